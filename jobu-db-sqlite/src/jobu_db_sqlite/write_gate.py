"""Which writers take turns with which: those of one file, under whatever path or name."""

from __future__ import annotations

import os
import threading
import weakref

from jobu_db.write_gate import WriteGate
from jobu_db_sqlite.arrivals import wake
from jobu_db_sqlite.database_file import DatabaseFile

_gates: weakref.WeakValueDictionary[tuple[int, int, int], WriteGate] = weakref.WeakValueDictionary()
_gates_lock = threading.Lock()


def _unlock() -> None:
    """In a forked child: nobody is left to release what another thread held in the parent."""
    global _gates_lock
    _gates_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def gate_of(file: DatabaseFile) -> WriteGate:
    """Return the gate of a file, the same one under whatever path, for as long as it is kept.

    Raises:
        OpenError: The file is missing and can't be created.
    """
    identity = file.identity()
    if identity is None:
        # A gate goes by the file, so there must be one: else two paths to a file that is yet to be
        # created would have a gate each.
        file.create()
        identity = file.identity()
        assert identity is not None
    # A forked child starts with nobody at the gate.
    key = (os.getpid(), *identity)
    with _gates_lock:
        return _gates.setdefault(key, WriteGate(wake))
