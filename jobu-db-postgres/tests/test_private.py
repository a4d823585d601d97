"""Canaries for what `_private.py` and `errors.py` know of asyncpg's inside."""

from __future__ import annotations

import asyncio
import inspect
import io
from typing import Any

import asyncpg
import asyncpg.connect_utils
import pytest
from asyncpg.cursor import Cursor
from asyncpg.transaction import Transaction

from jobu_db_postgres.errors import passed_through
from jobu_db_postgres.transport import ConnectingLoop, Transport, begin_of


@pytest.fixture
async def plain(postgres_url: str) -> Any:
    """A connection of asyncpg's own class."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    connection.terminate()


async def test_the_attributes_exist(plain: Any) -> None:
    assert plain._top_xact is None
    assert plain._pool_release_ctr == 0
    assert plain._listeners == {}
    assert plain._log_listeners == set()
    assert plain._query_loggers == set()
    assert not plain._protocol._is_cancelling()
    assert inspect.iscoroutinefunction(asyncpg.Connection._get_statement)
    assert inspect.iscoroutinefunction(asyncpg.Connection._execute)
    assert inspect.iscoroutinefunction(asyncpg.Connection._do_execute)
    assert inspect.iscoroutinefunction(asyncpg.Connection._executemany)
    assert inspect.iscoroutinefunction(Cursor._close_portal)
    assert list(inspect.signature(Transaction.__init__).parameters) == [
        "self",
        "connection",
        "isolation",
        "readonly",
        "deferrable",
    ]


async def test_a_request_to_cancel_is_sent_as_asyncpg_does_it(
    plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who overrides it must set its future, and leaves none of its tasks behind."""
    asked: list[tuple[Any, ...]] = []

    async def ask(**options: Any) -> None:
        asked.append((options["addr"], options["params"], options["backend_pid"]))

    assert list(inspect.signature(asyncpg.connect_utils._cancel).parameters) == [
        "loop",
        "addr",
        "params",
        "backend_pid",
        "backend_secret",
    ]
    monkeypatch.setattr(asyncpg.connect_utils, "_cancel", ask)
    sent = asyncio.get_running_loop().create_future()
    plain._cancel_current_command(sent)
    assert len(plain._cancellations) == 1
    await sent
    assert asked == [(plain._addr, plain._params, plain._protocol.backend_pid)]
    assert plain._protocol.backend_secret
    plain._clean_tasks()
    assert not plain._cancellations


async def test_commands_take_the_way_that_execute_takes(plain: Any) -> None:
    assert await plain._protocol.query("SELECT", None) == "SELECT 1"
    plain._check_open()
    plain.terminate()
    with pytest.raises(asyncpg.InterfaceError, match=r"connection is closed$"):
        plain._check_open()


async def test_a_cached_statement_is_found_and_executed_as_the_fetches_do_it(plain: Any) -> None:
    await plain.fetch("SELECT $1::int AS n", 1)
    statement = plain._stmt_cache.get(("SELECT $1::int AS n", asyncpg.Record, False))
    with plain._stmt_exclusive_section:
        (row,) = await plain._protocol.bind_execute(statement, (7,), "", 1, False, None)
    assert dict(row) == {"n": 7}
    answer = await plain._protocol.bind_execute(statement, (7,), "", 0, True, None)
    assert answer[1] == b"SELECT 1"


async def test_the_statement_cache_can_be_dropped(plain: Any) -> None:
    await plain.fetch("SELECT 1")
    await plain.execute("DEALLOCATE ALL")
    plain._drop_local_statement_cache()
    assert await plain.fetch("SELECT 1")


async def test_the_socket_can_be_reached(plain: Any) -> None:
    assert plain._transport.get_extra_info("socket").getpeername()


async def test_asyncpg_alone_still_refuses_to_nest(plain: Any) -> None:
    """Were it otherwise, `Connection.transaction` would be of no use any more."""
    await plain.execute("BEGIN")
    with pytest.raises(asyncpg.InterfaceError, match="manually started"):
        async with plain.transaction():
            pass


async def test_a_transaction_nests_where_another_one_is_the_top(plain: Any) -> None:
    await plain.execute("BEGIN")
    plain._top_xact = Transaction(plain, None, False, False)
    transaction = plain.transaction()
    await transaction.start()
    assert transaction._nested
    await transaction.rollback()


async def test_a_higher_release_counter_ends_what_was_made_before(plain: Any) -> None:
    statement = await plain.prepare("SELECT 1")
    plain._pool_release_ctr += 1
    with pytest.raises(asyncpg.InterfaceError, match="released"):
        await statement.fetch()
    assert await (await plain.prepare("SELECT 1")).fetchval() == 1


async def test_a_listener_in_the_table_keeps_listen_from_being_sent(plain: Any) -> None:
    """Which is why a reset empties the table."""
    await plain.add_listener("news", lambda *_: None)
    assert list(plain._listeners) == ["news"]
    await plain.execute("UNLISTEN *")
    await plain.add_listener("news", lambda *_: None)
    assert await plain.fetch("SELECT pg_listening_channels()") == []


async def test_a_closed_portal_is_gone_on_the_server(plain: Any) -> None:
    async with plain.transaction():
        cursor = await plain.cursor("SELECT generate_series(1, 10)")
        await cursor.fetch(1)
        portals = "SELECT count(*) FROM pg_cursors WHERE name LIKE '%portal%'"
        assert await plain.fetchval(portals) == 1
        await cursor._close_portal(None)
        assert await plain.fetchval(portals) == 0


EVERY_WAY = [
    ("execute", ["SELECT 1 AS prepare"]),
    ("execute", ["SELECT $1::int AS prepare", 1]),
    ("fetch", ["SELECT 1 AS prepare"]),
    ("fetchrow", ["SELECT 1 AS prepare"]),
    ("fetchval", ["SELECT 1 AS prepare"]),
    ("executemany", ["SELECT $1::int AS prepare", [(1,)]]),
    ("prepare", ["SELECT 1 AS Prepare"]),
    ("fetchmany", ["SELECT $1::int AS prepare", [(1,)]]),
    ("run", ["SELECT 1 AS prepare", ()]),
]


@pytest.mark.parametrize(("method", "arguments"), EVERY_WAY, ids=[way for way, _ in EVERY_WAY])
async def test_no_statement_passes_unseen(
    connection: Any, method: str, arguments: list[Any]
) -> None:
    """Whatever way a PREPARE takes, a reset must know of it."""
    await connection.fetch("SELECT 1")
    assert not connection.prepared_by_sql
    await getattr(connection, method)(*arguments)
    assert connection.prepared_by_sql


async def test_cursors_do_not_pass_unseen(connection: Any) -> None:
    async with connection.transaction():
        _ = [row async for row in connection.cursor("SELECT 1 AS prepare")]
    assert connection.prepared_by_sql


async def test_asyncpg_alone_still_forgets_the_cancellation_of_executemany(plain: Any) -> None:
    """Were it otherwise, `Connection._executemany` would be of no use any more."""
    await plain.execute("CREATE TEMPORARY TABLE many (t text)")
    work = plain.executemany("INSERT INTO many VALUES ($1)", [("x" * 1000,)] * 300_000)
    task = asyncio.create_task(work)
    await asyncio.sleep(0.2)
    task.cancel()
    _, unfinished = await asyncio.wait({task}, timeout=1)
    plain.terminate()
    with pytest.raises((asyncpg.ConnectionDoesNotExistError, asyncio.CancelledError)):
        await task
    assert unfinished


async def test_a_closed_connection_is_worded_as_errors_py_reads_it(plain: Any) -> None:
    statement = await plain.prepare("SELECT 1")
    plain.terminate()
    for use in (
        lambda: plain.execute("SELECT 1"),
        lambda: plain.fetch("SELECT 1"),
        statement.fetch,
    ):
        with pytest.raises(asyncpg.InterfaceError) as caught:
            await use()
        assert str(caught.value).endswith("connection is closed")


async def test_a_wrong_argument_is_worded_as_errors_py_reads_it(plain: Any) -> None:
    with pytest.raises(asyncpg.DataError) as caught:
        await plain.fetchval("SELECT $1::int", "secret")
    assert str(caught.value).startswith("invalid input for query argument $1: 'secret' (")
    assert isinstance(caught.value.__cause__, TypeError)


async def test_the_statement_cache_is_as_ours_extends_it(plain: Any) -> None:
    cache = plain._stmt_cache
    assert type(cache).__name__ == "_StatementCache"
    assert {"_loop", "_max_size", "_on_remove", "_max_lifetime", "_entries"} <= set(cache.__slots__)
    await plain.fetch("SELECT 1")
    ((key, entry),) = cache._entries.items()
    assert key == ("SELECT 1", asyncpg.Record, False)
    statement = entry._statement
    assert cache.get(key) is statement
    assert list(cache.iter_statements()) == [statement]
    assert (statement.refs, statement.closed) == (0, False)
    assert statement.name.startswith("__asyncpg_")
    cache._clear_entry_callback(entry)
    cache.clear()
    assert plain._stmts_to_close == {statement}
    assert statement.closed
    plain._maybe_gc_stmt(statement)
    await plain.execute(f"DEALLOCATE {statement.name}")
    plain._stmts_to_close.clear()
    assert await plain.fetchval("SELECT 1") == 1


async def test_a_changed_result_drops_statements_by_the_method_that_ours_replaces(
    plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = []
    monkeypatch.setattr(
        asyncpg.Connection, "_drop_global_statement_cache", lambda self: dropped.append(self)
    )
    await plain.execute("CREATE TEMP TABLE things (id int)")
    await plain.fetch("SELECT * FROM things")
    await plain.execute("ALTER TABLE things ADD more int")
    with pytest.raises(asyncpg.InvalidCachedStatementError):
        async with plain.transaction():
            await plain.fetch("SELECT * FROM things")
    assert dropped == [plain]
    plain._drop_local_type_cache()


async def test_notices_pass_through_the_method_that_ours_replaces(
    plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(
        asyncpg.Connection, "_process_log_message", lambda self, fields, query: heard.append(fields)
    )
    await plain.execute("DO $$BEGIN RAISE WARNING 'look out'; END$$")
    (fields,) = heard
    assert (fields["C"], fields["M"], fields["R"]) == ("01000", "look out", "exec_stmt_raise")


async def test_what_the_server_reports_is_at_hand(plain: Any) -> None:
    reported = plain.get_settings()
    assert reported.in_hot_standby == "off"
    assert reported.default_transaction_read_only == "off"
    await plain.execute("SET default_transaction_read_only = on; SET TIME ZONE 'Asia/Tokyo'")
    assert reported.default_transaction_read_only == "on"
    assert reported.TimeZone == "Asia/Tokyo"


async def test_errors_show_where_in_asyncpg_they_were_raised(plain: Any) -> None:
    """Were it otherwise, `errors.py` could not tell what was sent and what ran."""

    def fail(value: Any) -> Any:
        raise AssertionError

    async def places_of(work: Any) -> list[str]:
        try:
            await work
        except Exception as error:
            return passed_through(error)
        raise LookupError

    await plain.set_type_codec("jsonb", schema="pg_catalog", encoder=fail, decoder=fail)
    await plain.execute("CREATE TEMP TABLE numbers (n int)")
    assert "_encode_bind_msg" in await places_of(plain.fetch("SELECT $1::jsonb", 1))
    assert "_decode_row" in await places_of(plain.fetch("SELECT '1'::jsonb"))
    assert "_on_result__simple_query" in await places_of(plain.execute("-- nothing"))
    copied = await places_of(plain.copy_records_to_table("numbers", records=[("x",)]))
    assert {"copy_in", "encode"} <= set(copied)
    assert await plain.fetchval("SELECT 1") == 1


async def test_asyncpg_alone_still_closes_over_a_text_that_it_cannot_send(plain: Any) -> None:
    """Were it otherwise, nobody would have to look for it."""
    with pytest.raises(UnicodeEncodeError):
        await plain.execute("SELECT '\ud800'")
    assert plain.is_closed()


# -- what is put in front of what asyncpg writes


@pytest.fixture
async def written(postgres_url: str) -> Any:
    """A connection whose writes are noted, as they are handed to the loop's transport."""

    class Noting(Transport):
        __slots__ = ("lines",)

        def __init__(self, real: Any) -> None:
            super().__init__(real)
            self.lines: list[bytes] = []
            self.write = self.note

        def note(self, data: Any) -> None:
            self.lines.append(bytes(data))
            self.real.write(data)

        def note_lines(self, lines: Any) -> None:
            self.lines.append(b"".join(lines))
            self.real.writelines(lines)

    loop: Any = ConnectingLoop(asyncio.get_running_loop())
    connection = await asyncpg.connect(postgres_url, loop=loop)
    transport = connection._transport
    assert isinstance(transport, Transport)
    noting = Noting(transport.real)
    transport.write, transport.writelines = noting.note, noting.note_lines
    yield connection, noting.lines
    connection.terminate()


async def test_each_way_writes_what_begin_can_stand_in_front_of(written: Any) -> None:
    connection, lines = written
    await connection.execute("CREATE TEMP TABLE t (i int)")
    assert lines.pop()[:1] == b"Q"
    await connection.fetch("SELECT $1::int", 1)
    assert [line[:1] for line in lines] == [b"P", b"B"]
    assert lines[0].endswith(b"H\0\0\0\4"), "no Sync with a PREPARE"
    lines.clear()
    await connection.fetch("SELECT $1::int", 1)
    (line,) = lines
    assert line[:1] == b"B"
    assert line[5] == 0, "no name for the portal"
    lines.clear()
    await connection.executemany("INSERT INTO t VALUES ($1)", [(1,)])
    assert [line[:1] for line in lines] == [b"P", b"B"]
    lines.clear()
    await connection.copy_to_table("t", source=io.BytesIO(b"1\n"))
    assert lines[0][:1] == b"Q"


async def test_a_cursor_names_its_portal(written: Any) -> None:
    """To which the answer to a BEGIN in front would look like the end of its rows."""
    connection, lines = written
    async with connection.transaction():
        lines.clear()
        async for _ in connection.cursor("SELECT generate_series(1, 10)", prefetch=2):
            pass
    assert any(line[:1] == b"B" and line[5] for line in lines)


async def test_executemany_undoes_what_it_has_not_sent(written: Any) -> None:
    connection, lines = written
    await connection.execute("CREATE TEMP TABLE t (i int)")
    lines.clear()
    with pytest.raises(asyncpg.DataError):
        await connection.executemany("INSERT INTO t VALUES ($1)", [(1,), ("two",)])
    assert lines[-1].startswith(b"P")
    assert lines[-1][5:15] == b"\0ROLLBACK\0"


async def test_messages_in_front_are_passed_over(written: Any) -> None:
    connection, _ = written
    begin = begin_of("BEGIN READ ONLY", "SELECT WHERE false")
    for limit in (0, 1):
        for _ in range(2):
            connection._transport.send_first(begin)
            rows = await connection._execute("SELECT generate_series(1, 3) AS i", (), limit, None)
            assert [row["i"] for row in rows] == [1, 2, 3][: limit or 3]
            assert connection._protocol.is_in_transaction()
            await connection.execute("ROLLBACK")
    connection._transport.send_first(begin)
    with pytest.raises(RuntimeError, match="portal"):
        connection._transport.write(b"B\0\0\0\x0bname\0")
    await connection.execute("SELECT")
    assert connection._protocol.is_in_transaction()


async def test_the_loop_that_stands_in_is_not_kept(connection: Any) -> None:
    assert connection._loop is asyncio.get_running_loop()
    assert isinstance(connection._transport, Transport)
