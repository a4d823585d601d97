"""What SQLite asks before it prepares a statement: may it be, and will it leave traces?"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache

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
ATTACHED = "ATTACH or DETACH"
"""What the authorizer notes when a database may have been attached."""
HOLDERS_REFUSAL = "not authorized by the authorizer that was set on the connection"
"""The reason where it was not ours that refused."""
_WATCHED = (
    {sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_PRAGMA}
    | _CREATIONS
    | _TEMPORARY_CREATIONS
    | _ATTACHMENTS
)

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

_BEYOND_THE_CONNECTION = frozenset({
    "default_cache_size", "hard_heap_limit", "schema_version", "soft_heap_limit",
})  # fmt: skip
"""Pragmas that set something in the file or the process: they last, whoever set them."""

_OPTIONS = frozenset({"busy_timeout", "cache_size", "foreign_keys", "journal_mode", "synchronous"})
"""Pragmas that are options in the settings."""

_ONLY_BY_VACUUM = (
    "it takes effect only by VACUUM on the same connection, and that is not possible in a "
    "transaction: use db.session()"
)
_IGNORED_IN_TRANSACTIONS = {
    "auto_vacuum": _ONLY_BY_VACUUM,
    "encoding": "it is fixed once there is a database",
    "foreign_keys": (
        "it must be set before the transaction begins, on the same connection, which is what "
        "db.session() is for; what relies on it, as rebuilding a table that others refer to does, "
        "cannot work here and would lose rows. `options.foreign_keys` sets it for all connections"
    ),
    "page_size": _ONLY_BY_VACUUM,
}
"""Pragmas that SQLite ignores in a transaction without a word, and what to say of them."""


@cache
def _known_pragmas() -> frozenset[str]:
    """Return those that SQLite knows; empty if it was built without the list of them."""
    with closing(sqlite3.connect(":memory:")) as raw:
        return frozenset(name for (name,) in raw.execute("PRAGMA pragma_list"))


class Authorizer:
    """Called by SQLite in the connection's thread, once for each object a statement touches.

    Statements that come out of Python's statement cache are not seen again. This is sound:
    a connection on which something was noted is not lent again, turning `query_only` on or off
    makes SQLite prepare every cached statement anew, and so does setting `foreign_keys`.

    Args:
        in_transaction: Whether a transaction is open, as SQLite says.
        memory: The database is in memory: what is set there is put back, the rest stays.

    Attributes:
        own: True while the library runs a statement of its own: nothing is noted or refused.
        readonly: True while `query_only` is on: what would undermine it is refused.
        alone: True while a statement runs that is not in a transaction: what it sets on the
            connection is undone right after it.
        setting_up: True while `on_connect` runs, which may have loaded what knows more pragmas.
        foreign_keys: Whether they are enforced.
        deferring: `PRAGMA defer_foreign_keys` is on, until the transaction ends.
        parents: Then: tables, in lower case, whose rows take others with them when they go.
        changes: What the connection's holder changed on it, for a message.
        others: An authorizer that a holder set, asked after this one.
    """

    __slots__ = (
        "_in_transaction",
        "_memory",
        "_refusal",
        "alone",
        "changes",
        "deferring",
        "foreign_keys",
        "others",
        "own",
        "parents",
        "readonly",
        "setting_up",
    )

    def __init__(self, in_transaction: Callable[[], bool], *, memory: bool) -> None:
        self._in_transaction = in_transaction
        self._memory = memory
        self.own = False
        self.readonly = False
        self.alone = False
        self.setting_up = False
        self.foreign_keys = False
        self.deferring = False
        self.parents: frozenset[str] = frozenset()
        self.changes: set[str] = set()
        self.others: Authorize | None = None
        self._refusal = ""

    def __call__(
        self, action: int, first: str | None, second: str | None, schema: str | None,
        inside: str | None,
    ) -> int:  # fmt: skip
        # SQLite asks for each table, column and function: what is not watched must cost next to
        # nothing.
        if action in _WATCHED and not self.own and not self._allow(action, first, second, schema):
            return sqlite3.SQLITE_DENY
        if self.others is not None and not self.own:
            answer = self.others(action, first, second, schema, inside)
            if answer == sqlite3.SQLITE_DENY:
                self._refuse(HOLDERS_REFUSAL)
            return answer
        return sqlite3.SQLITE_OK

    def _allow(
        self, action: int, first: str | None, second: str | None, schema: str | None
    ) -> bool:
        # A refusal that nobody took must not be told of this statement.
        self._refusal = ""
        # Without a value a pragma sets nothing; with one, it may still only ask (`table_info`).
        if action == sqlite3.SQLITE_PRAGMA:
            return second is None or self._allow_pragma((first or "").lower(), second)
        if action == sqlite3.SQLITE_DROP_TABLE:
            return self._allow_drop((first or "").lower())
        if action in _ATTACHMENTS:
            if self.readonly:
                return False
            self.changes.add(ATTACHED)  # perhaps by VACUUM, which detaches again
            return True
        if action in _TEMPORARY_CREATIONS or schema == "temp":
            return self._note("a temporary object")
        return True

    def _allow_pragma(self, name: str, value: str) -> bool:
        if self.readonly and name in _LOCKED:
            return False
        known = _known_pragmas()
        if known and name not in known and not self.setting_up:
            return self._refuse(f"SQLite knows no PRAGMA {name}, and would ignore it")
        if name in _IGNORED_IN_TRANSACTIONS and self._in_transaction():
            if name == "foreign_keys" and _truth(value) == self.foreign_keys:
                return True  # as it is already
            return self._refuse(
                f"SQLite ignores PRAGMA {name} inside a transaction: "
                f"{_IGNORED_IN_TRANSACTIONS[name]}"
            )
        if name not in _TRACELESS or (self.alone and name == "defer_foreign_keys"):
            if not self._note(f"PRAGMA {name}", name):
                return False
            if name == "foreign_keys":
                self.foreign_keys = _truth(value)
        if name == "defer_foreign_keys":
            self.deferring = _truth(value)
        return True

    def _allow_drop(self, table: str) -> bool:
        if not (self.deferring and self.foreign_keys and table in self.parents):
            return True
        return self._refuse(
            f"DROP TABLE {table} would delete or change the rows that refer to it: PRAGMA "
            "defer_foreign_keys puts off the checks, not what ON DELETE does. To rebuild a table, "
            f"{_IGNORED_IN_TRANSACTIONS['foreign_keys']}"
        )

    def _note(self, what: str, pragma: str = "") -> bool:
        """Note a change of the connection; say no if it would be undone before it has effect."""
        if self.alone and pragma not in _BEYOND_THE_CONNECTION and (pragma or not self._memory):
            self._refuse_alone(what, pragma)
            return False
        self.changes.add(what)
        return True

    def refuse_attached(self) -> bool:
        """Refuse an ATTACH outside a transaction, after the fact: VACUUM looks the same before."""
        return not self._memory and not self._refuse_alone("ATTACH", "")

    def take_refusal(self) -> str:
        """Return why the last statement was refused; "" if only because of `readonly`."""
        reason, self._refusal = self._refusal, ""
        return reason

    def _refuse_alone(self, what: str, pragma: str) -> bool:
        instead = "use it inside db.session() or transaction(), for its length"
        if pragma in _OPTIONS:
            instead = f"set `options.{pragma}`, for all connections"
        elif pragma in _IGNORED_IN_TRANSACTIONS:
            instead = _IGNORED_IN_TRANSACTIONS[pragma]
        elif pragma and pragma != "defer_foreign_keys":
            instead += ", or in `on_connect`, for all connections"
        return self._refuse(
            f"{what} outside a transaction would have no effect: it applies to one connection, and "
            f"is undone when that goes back to the pool, right after the statement: {instead}"
        )

    def _refuse(self, reason: str) -> bool:
        self._refusal = reason
        return False


def _truth(value: str) -> bool:
    """Say what SQLite takes a text for; see sqlite3GetBoolean in its pragma.c."""
    digits = re.match("[0-9]+", value)
    return int(digits[0]) != 0 if digits else value.lower() in ("on", "yes", "true")
