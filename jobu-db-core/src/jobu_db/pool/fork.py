"""Which process this is, without asking the system each time; and what a fork must not touch."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

pid = os.getpid()


class Owner(Protocol):
    """One that has connections open."""

    def disown(self) -> None:
        """In a forked child: leave them to the parent, whatever still runs here."""


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()
# In a child, strong references to what its parent opened: never collected there.
_inherited: list[Owner] = []


def keep_from_children(owner: Owner) -> None:
    """Ensure that a forked child disowns its parent's connections at once, and never collects
    them as garbage.

    A driver may tell the server that it leaves when its connection is collected (asyncpg does):
    over the socket that the child shares with its parent.
    """
    _owners.add(owner)


def _note() -> None:
    global pid
    pid = os.getpid()
    _inherited.extend(_owners)
    for owner in _inherited:
        owner.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note)
