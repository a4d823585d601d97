"""What SQLite asks before it prepares a statement: may it be, and will it leave traces?"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

Authorize = Callable[[int, str | None, str | None, str | None, str | None], int]

_CREATIONS = {
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_CREATE_VTABLE,
}
_TEMPORARY_CREATIONS = {
    sqlite3.SQLITE_CREATE_TEMP_INDEX,
    sqlite3.SQLITE_CREATE_TEMP_TABLE,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    sqlite3.SQLITE_CREATE_TEMP_VIEW,
}
_ATTACHMENTS = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}
_WATCHED = {sqlite3.SQLITE_PRAGMA} | _CREATIONS | _TEMPORARY_CREATIONS | _ATTACHMENTS

_TRACELESS = frozenset({
    # Their argument says what to look at,
    "foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo",
    "integrity_check", "quick_check", "table_info", "table_list", "table_xinfo",
    # what to do once,
    "incremental_vacuum", "optimize", "wal_checkpoint",
    # what to keep in the file,
    "application_id", "user_version",
    # or what to do until the transaction ends.
    "defer_foreign_keys",
})  # fmt: skip
"""Pragmas that leave nothing on the connection, whatever their argument."""

_LOCKED = frozenset({"query_only", "journal_mode"})
"""Pragmas by which a read-only transaction could write."""


class Authorizer:
    """Called by SQLite in the connection's thread, once for each object a statement touches.

    Statements that come out of Python's statement cache are not seen again. This is sound:
    a connection on which something was noted is not lent again, and turning `query_only` on or
    off makes SQLite prepare every cached statement anew.

    Attributes:
        own: True while the library runs a statement of its own: nothing is noted or refused.
        readonly: True while `query_only` is on: what would undermine it is refused.
        changes: What the connection's holder changed on it, for a message.
        others: An authorizer that a holder set, asked after this one.
    """

    __slots__ = ("changes", "others", "own", "readonly")

    def __init__(self) -> None:
        self.own = False
        self.readonly = False
        self.changes: set[str] = set()
        self.others: Authorize | None = None

    def __call__(
        self, action: int, first: str | None, second: str | None, schema: str | None,
        inside: str | None,
    ) -> int:  # fmt: skip
        if action in _WATCHED and not self.own and not self._allow(action, first, second, schema):
            return sqlite3.SQLITE_DENY
        if self.others is not None and not self.own:
            return self.others(action, first, second, schema, inside)
        return sqlite3.SQLITE_OK

    def _allow(
        self, action: int, first: str | None, second: str | None, schema: str | None
    ) -> bool:
        if action == sqlite3.SQLITE_PRAGMA:
            return second is None or self._allow_pragma((first or "").lower())
        if action in _ATTACHMENTS:
            if self.readonly:
                return False
            self.changes.add("ATTACH or DETACH")
        elif action in _TEMPORARY_CREATIONS or schema == "temp":
            self.changes.add("a temporary object")
        return True

    def _allow_pragma(self, name: str) -> bool:
        if self.readonly and name in _LOCKED:
            return False
        if name not in _TRACELESS:
            self.changes.add(f"PRAGMA {name}")
        return True
