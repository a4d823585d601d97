"""A prepared XA transaction and its connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobu_db import LockTimeoutError, TransactionError
from jobu_db.driver import READ_WRITE
from jobu_db.transaction import decisions
from jobu_db.two_phase import Branch, End, new_id, participant_of
from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.two_phase import FORMAT_ID


async def test_a_connection_with_a_prepared_branch_is_not_reset(db: MySQLDatabase) -> None:
    """MariaDB would lose sight of the branch, which keeps its locks, until it is restarted."""
    place = await decisions.place_of(db.pool)
    branch = Branch(new_id(), new_id(), participant_of(place.fingerprint))
    two_phase, driver = db.driver.two_phase, db.driver
    await db.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY)")
    async with db.pool.connection() as lease:
        connection = lease.connection
        await driver.begin(connection, replace(READ_WRITE, branch=branch))
        await driver.execute(connection, "INSERT INTO kept VALUES (1)", None)
        await two_phase.prepare(connection, branch)
        with pytest.raises(TransactionError, match="a prepared XA transaction is attached"):
            await driver.reset(connection)
        assert connection.alive
        assert await two_phase.end(connection, branch, commit=True) is End.DONE
        await driver.reset(connection)
    assert await db.fetch_val("SELECT count(*) FROM kept") == 1


async def test_other_format_ids_are_not_listed(db: MySQLDatabase) -> None:
    branch = Branch(new_id(), new_id(), new_id())
    xid = f"'{branch.gtrid}','{branch.bqual}',{FORMAT_ID + 1}"
    async with db.pool.connection() as lease:
        connection = lease.connection
        await connection.order([f"XA START {xid}", f"XA END {xid}", f"XA PREPARE {xid}"])
        listed = await db.driver.two_phase.prepared(connection)
        await connection.order([f"XA ROLLBACK {xid}"])
    assert branch not in [one.branch for one in listed]


async def test_a_branch_that_wrote_nothing_may_end_either_way(db: MySQLDatabase) -> None:
    """MariaDB says 1402 once its session is gone; MySQL ends it as ordered."""
    two_phase = db.driver.two_phase
    for commit in (True, False):
        branch = Branch(new_id(), new_id(), new_id())
        lease = await db.pool.acquire()
        await db.driver.begin(lease.connection, replace(READ_WRITE, branch=branch))
        await two_phase.prepare(lease.connection, branch)
        db.pool.release(lease, discard="tested")
        end = End.UNKNOWN
        while end is End.UNKNOWN:  # until the server has noticed that the session is gone
            async with db.pool.connection() as other:
                end = await two_phase.end(other.connection, branch, commit=commit)
        assert end in (End.DONE, End.EMPTY)
        async with db.pool.connection() as other:
            listed = await two_phase.prepared(other.connection)
        assert branch not in [one.branch for one in listed]


async def test_a_name_that_a_lost_session_still_holds_may_be_free_later(db: MySQLDatabase) -> None:
    """The first statement is repeated where its connection had died; the server may not know."""
    branch = Branch(new_id(), new_id(), new_id())
    mode = replace(READ_WRITE, branch=branch)
    async with db.pool.connection() as lost:
        await db.driver.begin(lost.connection, mode)
        with pytest.raises(LockTimeoutError) as caught, db.pool.translating("XA START"):
            async with db.pool.connection() as lease:
                await db.driver.begin(lease.connection, mode)
        assert caught.value.retryable
        await db.driver.rollback(lost.connection)
        async with db.pool.connection() as lease:
            await db.driver.begin(lease.connection, mode)
            await db.driver.rollback(lease.connection)
