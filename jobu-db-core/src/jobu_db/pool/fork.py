"""Which process this is, without asking the system each time; and what a fork must not touch."""

from __future__ import annotations

import os
import weakref

pid = os.getpid()
_not_for_children: weakref.WeakSet[object] = weakref.WeakSet()
_inherited: list[object] = []


def keep_from_children(connections: object) -> None:
    """Ensure that no forked child ever collects this as garbage.

    A driver may say goodbye to the server when its connection is collected (asyncpg does): over
    the socket that the child shares with its parent.
    """
    _not_for_children.add(connections)


def _note() -> None:
    global pid
    pid = os.getpid()
    _inherited.extend(_not_for_children)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note)
