"""The turn to write: taken before a connection, never waited for in vain, never lost."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Collection
from time import monotonic
from typing import Any

import pytest

from jobu_db import (
    ConnectionPoolExhaustedError,
    LockTimeoutError,
    ReadOnlyTransactionError,
    TransactionError,
    transactional,
)
from jobu_db.driver import WriteGate
from jobu_db.testing.conformance.backend import ids, insert, nothing_held


class Gate(WriteGate):
    """As simple as a gate can be, and strict: nobody leaves who has not entered."""

    def __init__(self) -> None:
        self.holder: object | None = None
        self.entered = 0
        self._line: deque[tuple[asyncio.Future[None], object]] = deque()

    async def enter(
        self, holder: object, timeout: float, holding: Collection[WriteGate] = ()
    ) -> None:
        if self.holder is not None:
            future = asyncio.get_running_loop().create_future()
            self._line.append((future, holder))
            try:
                async with asyncio.timeout(timeout):
                    await future
            except BaseException as error:
                self._step_out(future, holder)
                if isinstance(error, TimeoutError):
                    raise LockTimeoutError(f"{self.holder} has the turn") from None
                raise
        self.holder = holder
        self.entered += 1

    def _step_out(self, future: asyncio.Future[None], holder: object) -> None:
        if (future, holder) in self._line:
            self._line.remove((future, holder))
        elif not future.cancelled():
            self.leave()

    def leave(self) -> None:
        assert self.holder is not None, "left twice"
        self.holder = None
        while self._line and self.holder is None:
            future, holder = self._line.popleft()
            if not future.cancelled():
                self.holder = holder
                future.set_result(None)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def db(open_db: Any, gate: Gate) -> Any:
    database = await open_db(timeout=1.0)
    database.driver.write_gate = gate
    return database


async def work(db: Any, id: int = 1) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, id)


async def test_writers_take_turns_and_readers_do_not(db: Any, gate: Gate, committed: Any) -> None:
    async with db.transaction():
        writers = [asyncio.create_task(_outside(work(db, number))) for number in range(3)]
        async with db.transaction(readonly=True, independent=True) as reading:
            await ids(reading)
        assert gate.entered == 1
        await asyncio.sleep(0.01)
        assert db.stats()["in_use"] == 1, "a writer took a connection before its turn"
    await asyncio.gather(*writers)
    assert gate.holder is None
    assert gate.entered == 4


async def _outside(coroutine: Any) -> None:
    """Run outside the transaction of whoever makes the task."""
    import contextvars

    await asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())


@pytest.mark.parametrize("operation", ["begin", "commit", "rollback", "execute"])
@pytest.mark.parametrize("fault", ["fail", "lose", "hold"])
async def test_the_turn_is_given_back_whatever_fails(
    open_db: Any, gate: Gate, operation: str, fault: str
) -> None:
    db = await open_db(timeout=0.1, cleanup_timeout=0.05)
    db.driver.write_gate = gate
    getattr(db.server, fault)(operation, times=5)

    async def failing() -> None:
        async with asyncio.timeout(0.3), db.transaction() as ctx:
            await insert(ctx, 1)
            if operation == "rollback":
                raise KeyError

    with pytest.raises(Exception):  # noqa: B017, PT011 whatever it is
        await failing()
    db.server.heal()
    await asyncio.sleep(0.01)
    assert gate.holder is None
    await work(db, 2)


async def test_the_turn_is_given_back_by_a_manual_end(db: Any, gate: Gate) -> None:
    async with db.transaction() as ctx:
        assert gate.holder is not None
        await ctx.commit()
        assert gate.holder is None
        await asyncio.create_task(_outside(work(db, 1)))
        await ctx.begin()
        assert gate.holder is not None
        await ctx.rollback()
        assert gate.holder is None
    assert gate.entered == 3


async def test_the_turn_and_the_connection_share_one_deadline(open_db: Any, gate: Gate) -> None:
    db = await open_db(timeout=0.7, max_size=1)
    db.driver.write_gate = gate
    lease = await db.pool.acquire()
    await gate.enter("somebody", 1)
    asyncio.get_running_loop().call_later(0.5, gate.leave)
    started = monotonic()
    for attempt in (work(db), insert(db, 1)):
        with pytest.raises(ConnectionPoolExhaustedError):
            await asyncio.create_task(attempt)
        assert monotonic() - started < 1.15, "each with a limit of its own: 1.2"
        started = monotonic()
        await gate.enter("somebody", 1)
        asyncio.get_running_loop().call_later(0.5, gate.leave)
    await asyncio.sleep(0.55)
    db.pool.release(lease)


async def test_waiting_for_the_turn_ends_with_the_holders_name(db: Any, gate: Gate) -> None:
    async with db.transaction():
        waiting = asyncio.create_task(_outside(work(db, 1)))
        with pytest.raises(LockTimeoutError, match=f"at {__file__}"):
            await waiting


async def test_an_independent_write_inside_a_write_is_refused_at_once(db: Any, gate: Gate) -> None:
    started = monotonic()
    async with db.transaction():
        with pytest.raises(TransactionError, match="one writer"):
            async with db.transaction(independent=True):
                pass
        async with db.transaction():
            with pytest.raises(TransactionError, match="one writer"):
                async with db.transaction(independent=True):
                    pass
    assert monotonic() - started < 0.5


async def test_neither_is_it_hidden_by_an_independent_reader_in_between(
    db: Any, gate: Gate
) -> None:
    started = monotonic()
    async with db.transaction(), db.transaction(readonly=True, independent=True):
        with pytest.raises(TransactionError, match="one writer"):
            async with db.transaction(independent=True):
                pass
    assert monotonic() - started < 0.5


async def test_two_names_of_one_file_are_refused_in_one_unit_of_work(
    db: Any, open_db: Any, gate: Gate
) -> None:
    other = await open_db("other")
    other.driver.write_gate = gate

    @transactional(db, other)
    async def both() -> None:
        raise AssertionError("not reached")

    with pytest.raises(TransactionError, match="one writer at a time"):
        await both()
    async with db.transaction():
        with pytest.raises(TransactionError, match="'main' has a writing transaction open here"):
            await insert(other, 1)
        assert await ids(other) == []
    assert gate.holder is None


async def test_an_abandoned_block_gives_the_turn_back(db: Any, gate: Gate, committed: Any) -> None:
    async def abandon() -> None:
        transaction = db.transaction()
        await insert(await transaction.__aenter__(), 1)

    async def abandoned() -> None:
        await asyncio.create_task(_outside(abandon()))
        gc.collect()
        await asyncio.sleep(0.01)

    with pytest.warns(ResourceWarning, match="never released"):
        await abandoned()
    assert gate.holder is None
    assert committed(db) == []
    await work(db, 2)
    await nothing_held(db)


async def test_a_fetch_that_writes_takes_its_turn(db: Any, gate: Gate, monkeypatch: Any) -> None:
    modes: list[bool] = []

    def autocommit(connection: Any, *, readonly: bool) -> None:
        modes.append(readonly)

    async def fetch_one(connection: Any, sql: str, parameters: Any) -> Any:
        if modes[-1]:
            raise ReadOnlyTransactionError("read-only")
        return {"id": 1}

    monkeypatch.setattr(db.driver, "autocommit", autocommit)
    monkeypatch.setattr(db.driver, "fetch_one", fetch_one)
    assert await db.fetch_one("INSERT … RETURNING id") == {"id": 1}
    assert modes == [True, False]
    assert gate.entered == 1
    assert gate.holder is None


async def test_writers_of_many_tasks_with_every_kind_of_end(db: Any, gate: Gate) -> None:
    async def writer(number: int) -> None:
        async with db.transaction() as ctx:
            await insert(ctx, number)
            await asyncio.sleep(0)
            if number % 3 == 0:
                raise KeyError

    tasks = [asyncio.create_task(writer(number)) for number in range(60)]
    for number, task in enumerate(tasks):
        if number % 4 == 0:
            asyncio.get_running_loop().call_later(0.0003 * number, task.cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert gate.holder is None
    await work(db, 1000)
