"""Declarations are true: what is declared supported works, and what is not does not.

Every feature is tried on the driver itself, whatever the core would refuse.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

import pytest

from jobu_db._aio.inline_task import InlineTask
from jobu_db.capabilities import FEATURES
from jobu_db.database import BaseDatabase
from jobu_db.driver import READ_ONLY, READ_WRITE
from jobu_db.errors import (
    ConnectionFailedError,
    LockTimeoutError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
    TransactionError,
)
from jobu_db.testing.conformance.backend import Backend, with_items

PATIENCE = 8.0
"""Seconds until a slow statement that should have been stopped counts as running on."""

Trial = Callable[[Backend, BaseDatabase, Any], Awaitable[bool]]
ROW = "INSERT INTO items (id, name) VALUES ({0}, 'row {0}')"


class DeclarationConformance:
    @pytest.mark.parametrize("feature", FEATURES)
    async def test_a_feature_works_if_and_only_if_it_is_declared(
        self, backend: Backend, feature: str
    ) -> None:
        db = await with_items(backend)
        declared = getattr(db.driver.capabilities, feature)
        works = await _works(TRIALS[feature], backend, db)
        if declared:
            assert works, f"{feature} is declared {declared.support.value}, but does not work"
        else:
            assert not works, f"{feature} is declared unsupported ({declared.because}), but works"

    async def test_only_declared_isolation_levels_are_taken(self, backend: Backend) -> None:
        db = await with_items(backend)
        standard = {"read uncommitted", "read committed", "repeatable read", "serializable"}
        declared = db.driver.capabilities.isolation_levels
        assert declared <= standard
        for level in standard - declared:
            with pytest.raises(TransactionError, match=level):
                db.transaction(isolation=level)

    async def test_what_is_declared_taskless_needs_no_task(self, backend: Backend) -> None:
        db = await with_items(backend)
        driver = db.driver
        if not driver.taskless:
            return
        readonly = (READ_WRITE, READ_ONLY) if driver.capabilities.readonly else (READ_WRITE,)
        async with db.pool.connection() as lease:
            connection = lease.connection
            for mode, reset in itertools.product(readonly, (True, False)):
                await _outside_a_task(driver.begin(connection, mode))
                await driver.fetch_all(connection, "SELECT id FROM items", None)
                await _outside_a_task(driver.commit(connection, reset=reset))
                await _outside_a_task(driver.begin(connection, mode))
                await driver.fetch_all(connection, "SELECT id FROM items", None)
                await _outside_a_task(driver.rollback(connection, reset=reset))
            await _outside_a_task(driver.reset(connection))


async def _outside_a_task(work: Coroutine[Any, Any, Any]) -> None:
    """Step through a coroutine in callbacks of the event loop, where no task runs."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[BaseException | None] = loop.create_future()
    steps = InlineTask(work, lambda steps: over.set_result(steps.exception()))
    loop.call_soon(steps.step)
    error = await over
    if error is not None:
        raise error


async def _works(trial: Trial, backend: Backend, db: BaseDatabase) -> bool:
    """Say whether a trial succeeds; the connection is thrown away, whatever became of it."""
    lease = await db.pool.acquire()
    try:
        async with asyncio.timeout(2 * PATIENCE):
            return await trial(backend, db, lease.connection)
    except Exception:  # whatever it is: the feature does not work
        return False
    finally:
        lease.interrupted = True
        db.pool.release(lease, discard="tried out")


async def _ids(db: BaseDatabase, connection: Any) -> list[int]:
    rows = await db.driver.fetch_all(connection, "SELECT id FROM items ORDER BY id", None)
    return [row["id"] for row in rows]


async def _is_refused(db: BaseDatabase, connection: Any) -> bool:
    try:
        await db.driver.execute(connection, ROW.format(9), None)
    except Exception as error:
        return isinstance(db.driver.translate(error), ReadOnlyTransactionError)
    return False


async def _savepoints(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    driver = db.driver
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, ROW.format(1), None)
    await driver.savepoint(connection, "tried", readonly=False)
    await driver.execute(connection, ROW.format(2), None)
    await driver.rollback_to_savepoint(connection, "tried", readonly=False)
    return await _ids(db, connection) == [1]


async def _readonly(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    await db.driver.begin(connection, READ_ONLY)
    return await _is_refused(db, connection)


async def _nested_readonly(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    await db.driver.begin(connection, READ_WRITE)
    await db.driver.execute(connection, ROW.format(1), None)
    await db.driver.savepoint(connection, "tried", readonly=True)
    return await _is_refused(db, connection)


async def _independent_writes(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    driver = db.driver
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, ROW.format(1), None)

    async def beside(backend: Backend, db: BaseDatabase, other: Any) -> bool:
        async with asyncio.timeout(5):
            await driver.begin(other, READ_WRITE)
            await driver.execute(other, ROW.format(2), None)
            await driver.commit(other, reset=False)
        return True

    written = await _works(beside, backend, db)
    await driver.rollback(connection)
    return written and await _ids(db, connection) == [2]


async def _transactional_ddl(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    driver = db.driver
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, "CREATE TABLE more (id INTEGER)", None)
    await driver.rollback(connection)
    await driver.execute(connection, "CREATE TABLE more (id INTEGER)", None)
    return True


async def _deferred_constraints(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    driver = db.driver
    deferred = "REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED"
    await driver.execute(connection, f"CREATE TABLE later (item INTEGER {deferred})", None)
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, "INSERT INTO later (item) VALUES (7)", None)
    await driver.execute(connection, ROW.format(7), None)
    await driver.commit(connection, reset=False)
    return await _ids(db, connection) == [7]


async def _returning(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    value = await db.driver.fetch_val(connection, f"{ROW.format(3)} RETURNING id", None)
    return bool(value == 3)


async def _server_side_cursors(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    return await _read_side_by_side(db, connection, cursors=1)


async def _concurrent_cursors(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    return await _read_side_by_side(db, connection, cursors=2)


async def _read_side_by_side(db: BaseDatabase, connection: Any, cursors: int) -> bool:
    driver, sql = db.driver, "SELECT id FROM items ORDER BY id"
    await driver.begin(connection, READ_WRITE)
    for number in range(1, 6):
        await driver.execute(connection, ROW.format(number), None)
    opened = [await driver.open_cursor(connection, sql, None, 2) for _ in range(cursors)]
    seen: list[list[int]] = []
    for _ in range(4):
        pieces = [[row["id"] for row in await cursor.fetch()] for cursor in opened]
        seen += pieces[:1]
        if any(piece != pieces[0] for piece in pieces):
            return False
    return seen == [[1, 2], [3, 4], [5], []]


async def _statement_timeout(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    options = getattr(db.settings, "options", None)
    if backend.slow is None or not hasattr(options, "statement_timeout"):
        return False
    assert options is not None
    limited = options.model_copy(update={"statement_timeout": 200})
    other = await type(db).create("main", db.settings.model_copy(update={"options": limited}))
    try:
        await other._run("fetch_all", backend.slow, None)
    except QueryTimeoutError:
        return True
    finally:
        await other.close(timeout=1)
    return False


async def _cancellation(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    """Stopped, or the connection terminated: but not left running."""
    if backend.slow is None:
        return False
    running = asyncio.create_task(db.driver.fetch_all(connection, backend.slow, None))
    await asyncio.sleep(0.3)
    started = monotonic()
    running.cancel()
    await asyncio.wait({running})
    try:
        await db.driver.abort(connection)
    except Exception:
        return not db.driver.is_alive(connection)
    return monotonic() - started < PATIENCE


async def _sessions(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    if not await backend.sessions():
        return False
    await backend.end_sessions()
    with pytest.raises(Exception):  # noqa: B017, PT011 - each driver has its own
        await db.driver.ping(connection)
    return True


async def _two_phase(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    return db.driver.two_phase is not None  # what it does has tests of its own


async def _replicas(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    driver = db.driver
    replication = driver.replication
    if replication is None:
        return False
    try:
        await replication.look(connection)
    except ConnectionFailedError:
        return True  # this server is not set up to be followed
    before = await replication.position(connection)
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, ROW.format(1), None)
    await driver.commit(connection, reset=False)
    after = await replication.position(connection)
    state = await replication.look(connection)
    assert state.role == "primary"
    assert state.position.covers(before)
    assert after.merged(before) == after.after(before) == after
    numbered = str(after)  # else the server keeps no log for others, and nothing can be told
    assert not numbered or replication.parse(numbered) == after
    return after.covers(before) and not (numbered and before.covers(after))


async def _decides(backend: Backend, db: BaseDatabase, connection: Any) -> bool:
    driver = db.driver

    async def waits(backend: Backend, db: BaseDatabase, other: Any) -> bool:
        try:
            await driver.deciding.claim(other, ROW.format(1))
        except Exception as error:
            return isinstance(driver.translate(error), LockTimeoutError)
        return False

    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, ROW.format(1), None)
    return await _works(waits, backend, db)


TRIALS: dict[str, Trial] = {
    "savepoints": _savepoints,
    "readonly": _readonly,
    "nested_readonly": _nested_readonly,
    "independent_writes": _independent_writes,
    "transactional_ddl": _transactional_ddl,
    "deferred_constraints": _deferred_constraints,
    "returning": _returning,
    "server_side_cursors": _server_side_cursors,
    "concurrent_cursors": _concurrent_cursors,
    "statement_timeout": _statement_timeout,
    "cancellation": _cancellation,
    "sessions": _sessions,
    "two_phase": _two_phase,
    "decides": _decides,
    "replicas": _replicas,
}
