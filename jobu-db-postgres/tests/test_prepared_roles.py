"""A branch that was prepared under another role: ended as that role, which is left in any case."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from jobu_db.two_phase import Branch, End, new_id
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres._private import Connection

Act = Callable[[], Awaitable[Any]]


@pytest.fixture
async def member(
    open_db: Any, postgres_url: str, observer: asyncpg.Connection
) -> AsyncIterator[PostgresDatabase]:
    """Logged in as a role that may do what `group_of(member)` may."""
    name = f"member_{new_id()[:8]}"
    await observer.execute(
        f"CREATE ROLE {name}_group; CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE {name}_group"
    )
    parts = urlsplit(postgres_url)
    netloc = f"{name}:secret@{parts.hostname}:{parts.port}"
    database = await open_db(name, url=parts._replace(netloc=netloc).geturl())
    yield database
    await database.close(5.0)
    await observer.execute(f"DROP ROLE {name}; DROP ROLE {name}_group")


@pytest.fixture
async def branch(member: PostgresDatabase, observer: asyncpg.Connection) -> AsyncIterator[Branch]:
    """Prepared by the group, and gone after the test."""
    prepared = Branch(new_id(), new_id(), new_id())
    await observer.execute(f"SET ROLE {member.name}_group")
    await observer.execute(f"BEGIN; PREPARE TRANSACTION '{prepared.name}'")
    await observer.execute("RESET ROLE")
    yield prepared
    if await _is_listed(observer, prepared):
        await observer.execute(f"ROLLBACK PREPARED '{prepared.name}'")


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Act], None]:
    """`before(text, act)`: act before a command of the backend that begins so, once its role is
    another one."""
    acts: dict[str, Act] = {}
    roles: set[Connection] = set()
    command = Connection.command

    def watched(self: Connection, text: str) -> Any:
        async def run() -> str:
            if self in roles and text.split(" ")[0] in acts:
                await acts[text.split(" ")[0]]()
            status = await command(self, text)
            if text.startswith("SET ROLE"):
                roles.add(self)
            return status

        return run()

    monkeypatch.setattr(Connection, "command", watched)
    return acts.__setitem__


async def test_it_is_ended_and_the_role_left(
    member: PostgresDatabase, branch: Branch, observer: asyncpg.Connection
) -> None:
    async with member.pool.connection() as lease:
        assert await _end(member, lease.connection, branch) is End.DONE
        assert await lease.connection.fetchval("SELECT current_user") == member.name
    assert not await _is_listed(observer, branch)


async def test_one_that_is_gone_by_then_is_told_as_gone(
    member: PostgresDatabase,
    branch: Branch,
    observer: asyncpg.Connection,
    before: Callable[[str, Act], None],
) -> None:
    before("COMMIT", lambda: observer.execute(f"ROLLBACK PREPARED '{branch.name}'"))
    async with member.pool.connection() as lease:
        assert await _end(member, lease.connection, branch) is End.UNKNOWN
        assert await lease.connection.fetchval("SELECT current_user") == member.name


async def test_what_became_of_the_order_is_told_even_if_the_role_cannot_be_left(
    member: PostgresDatabase,
    branch: Branch,
    observer: asyncpg.Connection,
    before: Callable[[str, Act], None],
    eventually: Any,
) -> None:
    before("COMMIT", lambda: observer.execute(f"ROLLBACK PREPARED '{branch.name}'"))
    async with member.pool.connection() as lease:
        before("RESET", lambda: _terminate(observer, lease.connection, eventually))
        assert await _end(member, lease.connection, branch) is End.UNKNOWN
        assert lease.connection.is_closed()


async def test_a_role_that_cannot_be_left_ends_the_connection(
    member: PostgresDatabase,
    branch: Branch,
    observer: asyncpg.Connection,
    before: Callable[[str, Act], None],
) -> None:
    async def refuse() -> None:
        raise asyncpg.InternalServerError("no RESET today")

    before("RESET", refuse)
    async with member.pool.connection() as lease:
        with pytest.raises(asyncpg.InternalServerError, match="no RESET today"):
            await _end(member, lease.connection, branch)
        assert lease.connection.is_closed()
    assert not await _is_listed(observer, branch)
    assert await member.fetch_val("SELECT current_user") == member.name


async def _end(database: PostgresDatabase, connection: Any, branch: Branch) -> End:
    end: End = await database.driver.two_phase.end(connection, branch, commit=True)
    return end


async def _terminate(observer: asyncpg.Connection, connection: Any, eventually: Any) -> None:
    await observer.execute(f"SELECT pg_terminate_backend({connection.get_server_pid()})")
    await eventually(connection.is_closed)


async def _is_listed(observer: asyncpg.Connection, branch: Branch) -> bool:
    sql = "SELECT count(*) FROM pg_prepared_xacts WHERE gid = $1"
    return bool(await observer.fetchval(sql, branch.name))
