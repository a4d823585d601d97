"""What programs are handed shows what programs use, and nothing of the core's own.

Editors complete these names.
"""

from __future__ import annotations

import pytest

from jobu_db.database import BaseDatabase
from jobu_db.plugins import database_class
from jobu_db.testing.fake import FakeDatabase

STATEMENTS = {
    *("execute", "executemany", "execute_script"),
    *("fetch_all", "fetch_one", "fetch_val"),
}
CONTEXT = STATEMENTS | {
    *("iterate", "on_commit", "begin", "commit", "rollback"),
    *("connection", "readonly", "closed", "in_transaction"),
}
SESSION = STATEMENTS | {"transaction", "connection", "in_transaction"}
DATABASE = STATEMENTS | {
    *("create", "close", "ping", "stats", "transaction", "session", "listen"),
    *("replica", "position"),
}
ATTRIBUTES = {"name", "settings", "pool", "driver"}
"""What a database shows beside what its class does."""
FOR_BACKENDS = {
    *("api_version", "db_type", "settings_class", "context_class"),
    *("capabilities_of", "make_driver", "aiosql_adapter"),
}
"""What a subclass of `BaseDatabase` says."""


def shown(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


async def test_contexts_sessions_and_databases_show_what_programs_use() -> None:
    async with FakeDatabase.create("fake", {}) as db:
        assert shown(db) == DATABASE | ATTRIBUTES | FOR_BACKENDS | {"server"}
        async with db.transaction() as ctx:
            assert shown(ctx) == CONTEXT
            async with db.transaction() as inner:
                assert shown(inner) == CONTEXT
        async with db.session() as session:
            assert shown(session) == SESSION


@pytest.mark.parametrize(
    ("db_type", "more"), [("sqlite", {"backup"}), ("postgres", set()), ("mysql", set())]
)
def test_they_are_the_same_on_every_database(db_type: str, more: set[str]) -> None:
    database: type[BaseDatabase] = database_class(db_type)
    assert shown(database.context_class) == CONTEXT
    assert shown(database) == DATABASE | FOR_BACKENDS | more
