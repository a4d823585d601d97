"""What a forked child must leave alone: the connections of its parent, and the files behind them.

SQLite's notes of the locks it holds are copied with the process, the locks themselves are not. A
child that opens the file again takes its parent's locks for its own: rows that it commits are lost
as soon as the parent closes the file. Closing a copied connection may undo what the parent is
writing. (https://www.sqlite.org/howtocorrupt.html, section 2.6)
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

Identity = tuple[int, int]
"""Device and inode of a file."""

inherited_files: set[Identity] = set()
"""Those that the parent had open when it forked this process."""


class Inheritable(Protocol):
    """What a forked child gets a copy of."""

    def inherit(self) -> None:
        """In the child: be unusable from now on."""


_watched: weakref.WeakSet[Inheritable] = weakref.WeakSet()


def watch(thing: Inheritable) -> None:
    """Have `inherit` called in each child that is forked, for as long as the thing lives."""
    _watched.add(thing)


def unwatch(thing: Inheritable) -> None:
    """Let children alone with it: it is closed."""
    _watched.discard(thing)


def _inherit() -> None:
    # A copy: meanwhile some of them may stop being watched.
    for thing in list(_watched):
        thing.inherit()


if hasattr(os, "register_at_fork"):
    # In the child, before it runs anything else: Python calls these hooks within `os.fork` itself.
    os.register_at_fork(after_in_child=_inherit)
