"""Recovery ends what is certain, tells what is not, and touches nothing that is not its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import Context
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import pytest
from asyncmy.errors import MySQLError
from waiting import eventually

from jobu_db import (
    CommitOutcomeUnknownError,
    DatabaseRegistry,
    TransactionError,
    get_connection,
    recovery,
    transactional,
)
from jobu_db.driver import READ_WRITE
from jobu_db.plugins import database_class
from jobu_db.recovery import Fate, Recovery
from jobu_db.testing.conformance.backend import TABLE, ids, insert
from jobu_db.transaction import decisions
from jobu_db.two_phase import Branch, End, new_id, participant_of
from jobu_db_mysql.two_phase import MySQLDeciding

from .atomic import HANG, agreed, prepared, recover, recovered, rows_of_units, unit
from .conftest import MYSQL, POSTGRES, SQLITE, World


def by_name(databases: list[Any]) -> dict[str, Any]:
    return {database.name: database for database in databases}


async def leave_prepared(world: World, databases: list[Any], number: int = 1) -> None:
    """Commit a unit whose last database never hears of the decision."""
    last = databases[-1]
    kind, word = (MYSQL, b"XA COMMIT") if last.name == MYSQL else (POSTGRES, b"COMMIT PREPARED")
    world.proxies[kind].cut_at(word, answered=False)
    await unit(databases, number)()
    assert len(await prepared([last])) == 1


async def prepare_alone(database: Any, decider: str, number: int = 1) -> Branch:
    """Prepare a branch of whatever decider."""
    two_phase, driver = database.driver.two_phase, database.driver
    place = await decisions.place_of(database.pool)
    branch = Branch(decider, new_id(), participant_of(place.fingerprint))
    lease = await database.pool.acquire()
    await driver.begin(lease.connection, replace(READ_WRITE, branch=branch))
    await driver.execute(
        lease.connection, f"INSERT INTO items (id, name) VALUES ({number}, 'x')", None
    )
    await two_phase.prepare(lease.connection, branch)
    database.pool.release(lease, discard="tested")
    async with asyncio.timeout(HANG):
        while True:
            end = await recover({database.name: database})
            if end.found:
                return branch
            await asyncio.sleep(0.01)


async def end_by_hand(database: Any, branch: Branch) -> None:
    """Roll back what recovery rightly leaves alone."""
    two_phase = database.driver.two_phase
    async with asyncio.timeout(HANG):
        while branch in await prepared([database]):
            await decisions.ask(
                database.pool,
                "ROLLBACK PREPARED",
                lambda connection: two_phase.end(connection, branch, commit=False),
            )
            await asyncio.sleep(0.01)


def waiting(database: Any) -> list[str]:
    """Return the units of which a branch waits, as the figures tell."""
    return [one["unit"] for one in database.stats()["prepared"]]


def fates(told: Recovery) -> list[Fate]:
    return [one.fate for one in told.found]


# -- deciders that are not there, or not what they were


@pytest.mark.parametrize("kind", [POSTGRES, MYSQL])
async def test_a_branch_of_an_unknown_decider_is_told_and_left_alone(
    world: World, kind: str
) -> None:
    sqlite, database = await world.open_all((SQLITE, kind))
    await unit([sqlite, database], 0)()
    branch = await prepare_alone(database, decider=new_id())
    try:
        for _ in range(2):
            told = await recover(by_name([sqlite, database]))
            assert fates(told) == [Fate.ORPHAN]
            assert branch.decider in told.found[0].why
            assert not told.complete
            assert branch in await prepared([database])
        assert branch.unit in waiting(database)
    finally:
        await end_by_hand(database, branch)
    assert (await recover(by_name([sqlite, database]))).complete
    assert branch.unit not in waiting(database)


async def test_a_copied_decider_decides_nothing_until_it_is_told_what_it_is(
    world: World, tmp_path: Path
) -> None:
    original, postgres = await world.open_all((SQLITE, POSTGRES))
    await unit([original, postgres], 0)()
    path = tmp_path / "copy.db"
    await original.backup(path)
    await leave_prepared(world, [original, postgres])
    copy = await database_class(SQLITE).create("copy", {"path": str(path)})
    try:
        # The copy knows nothing of the unit: to ask it would undo what is committed.
        told = await recover(by_name([copy, postgres]))
        assert fates(told) == [Fate.ORPHAN]
        assert "copied, restored or moved" in told.mismatches["copy"]
        with pytest.raises(TransactionError, match="--confirm copy"):
            await unit([copy, postgres], 2)()
        before = await decisions.identify(original.pool)
        renewed = await decisions.confirm_identity(copy.pool, renew=True)
        assert renewed.id != before.id
        assert fates(await recover(by_name([copy, postgres]))) == [Fate.ORPHAN]
        await unit([copy, postgres], 2)()
        assert await agreed([copy, postgres], 2)
    finally:
        await copy.close()
    await recovered([original, postgres])
    assert await agreed([original, postgres])


async def test_a_decider_that_was_moved_goes_on_once_that_is_confirmed(
    world: World, tmp_path: Path
) -> None:
    (postgres,) = await world.open_all((POSTGRES,))
    path, moved = tmp_path / "first.db", tmp_path / "moved.db"
    async with database_class(SQLITE).create(SQLITE, {"path": str(path)}) as first:
        await first.execute(TABLE)
        await leave_prepared(world, [first, postgres])
    shutil.copy(path, moved)
    path.unlink()
    async with database_class(SQLITE).create(SQLITE, {"path": str(moved)}) as second:
        databases = [second, postgres]
        assert fates(await recover(by_name(databases))) == [Fate.ORPHAN]
        await decisions.confirm_identity(second.pool)
        await recovered(databases)
        assert await agreed(databases)


# -- what cannot be decided, or ended, now


@pytest.mark.parametrize("order", [(SQLITE, POSTGRES), (POSTGRES, MYSQL), (MYSQL, POSTGRES)],
                         ids="-".join)  # fmt: skip
async def test_while_the_deciders_transaction_is_open_nothing_is_touched(
    world: World, order: tuple[str, ...]
) -> None:
    databases = await world.open_all(order)
    await unit(databases, 0)()
    last = world.proxies[order[-1]]
    word = b"PREPARE TRANSACTION" if order[-1] == POSTGRES else b"XA PREPARE"
    last.stall_at(word, answered=True)
    work = asyncio.create_task(unit(databases)())
    await last.sprung()
    beside = await open_beside(world, databases)
    try:
        told = await recover(by_name(beside))
        assert fates(told) == [Fate.UNDECIDED]
        assert "still open" in told.found[0].why
        assert told.found[0].age >= 0
        last.resume()
        await asyncio.wait_for(work, HANG)
    finally:
        last.resume()
        for database in beside:
            await database.close()
    assert await agreed(databases)
    await recovered(databases)


@pytest.mark.parametrize("order", [(SQLITE, MYSQL), (SQLITE, POSTGRES)], ids="-".join)
async def test_a_branch_whose_session_is_alive_is_ended_or_held(
    world: World, order: tuple[str, ...]
) -> None:
    """MariaDB answers 1397 for a branch that is attached to another session: it is still listed."""
    databases = await world.open_all(order)
    await unit(databases, 0)()
    last = world.proxies[order[-1]]
    last.stall_at(b"COMMIT PREPARED" if order[-1] == POSTGRES else b"XA COMMIT", answered=False)
    work = asyncio.create_task(unit(databases)())
    await last.sprung()
    beside = await open_beside(world, databases)
    try:
        (fate,) = fates(await recover(by_name(beside)))
        assert fate in (Fate.COMMITTED, Fate.HELD)
        assert len(await rows_of_units(beside[0])) == (1 if fate is Fate.HELD else 0)
    finally:
        last.resume()
        for database in beside:
            await database.close()
    await asyncio.wait_for(work, HANG)
    assert await agreed(databases)
    await recovered(databases)
    assert await rows_of_units(databases[0]) == []


async def test_what_is_committed_and_forgotten_meanwhile_is_not_told_as_rolled_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the list of branches and the question to the decider, another one ends it."""
    databases = await world.open_all((SQLITE, POSTGRES))
    await leave_prepared(world, databases)
    decide = decisions.decide

    async def late(*asked: Any) -> bool | None:
        monkeypatch.setattr(decisions, "decide", decide)
        await recovered(databases)
        return await decide(*asked)

    monkeypatch.setattr(decisions, "decide", late)
    told = await recover(by_name(databases))
    assert told.found == []
    assert told.complete
    assert await agreed(databases)
    assert databases[1].stats()["prepared"] == []


async def test_a_server_that_falls_silent_is_not_waited_for(world: World) -> None:
    pool = {"check_timeout": 1.0, "commit_timeout": 1.0, "commit_limit": 30.0}
    databases = await world.open_all((SQLITE, POSTGRES), pool=pool)
    await unit(databases)()
    world.proxies[POSTGRES].stall_at(b"pg_prepared_xacts", answered=False)
    async with asyncio.timeout(HANG):
        told = await recover(by_name(databases))
    assert world.proxies[POSTGRES].has_sprung, "the fault did not happen: this tested nothing"
    assert list(told.errors) == [POSTGRES]
    world.proxies[POSTGRES].resume()
    assert (await recovered(databases)).complete


async def open_beside(world: World, databases: list[Any]) -> list[Any]:
    """The same databases, not through the proxies: for another process, so to speak."""
    return [
        await database_class(one.name).create(one.name, world.direct(one.name)) for one in databases
    ]


async def test_a_branch_that_another_session_ends_just_now_is_busy(
    world: World, start_postgres: Any
) -> None:
    """55000: the session that ends it waits for a standby that never answers."""
    server = await asyncio.to_thread(start_postgres, {"synchronous_standby_names": "nobody"})
    local = {"server_settings": {"synchronous_commit": "local"}}
    settings = {"url": server.url, "options": local}
    async with database_class(POSTGRES).create("lone", settings) as lone:
        await lone.execute(TABLE)
        branch = await prepare_alone(lone, decider=new_id())
        two_phase = lone.driver.two_phase
        lease = await lone.pool.acquire()
        await lease.connection.execute("SET synchronous_commit = on")
        first = asyncio.create_task(two_phase.end(lease.connection, branch, commit=True))
        try:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            await eventually(lambda: lone.fetch_val(waiting))
            async with lone.pool.connection() as other:
                assert await two_phase.end(other.connection, branch, commit=True) is End.BUSY
                await other.connection.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                    " WHERE wait_event = 'SyncRep'"
                )
        finally:
            with pytest.raises(CommitOutcomeUnknownError, match="standby"):
                await asyncio.wait_for(first, HANG)
            lone.pool.release(lease, discard="tested")
        assert await ids(lone) == [1]
        assert await prepared([lone]) == []


async def test_a_claim_that_a_statement_timeout_ends_leaves_the_unit_undecided(
    world: World,
) -> None:
    """57014, and 55P03: both say that the transaction is still open."""
    # What is asked as a connection is opened is under statement_timeout, too.
    for options in ({"statement_timeout": 2000}, {"lock_timeout": 200}, {}):
        (database,) = await world.open_all((POSTGRES,), options=options)
        identity = await decisions.identify(database.pool)
        place = database.pool.two_phase.place
        number = new_id()
        async with database.transaction() as ctx:
            await ctx.execute(decisions.entry(place, identity.id, number, [new_id()]))
            other = asyncio.create_task(decisions.decide(database.pool, place, identity.id, number))
            assert await asyncio.wait_for(other, HANG) is None
            await ctx.rollback()
        assert await decisions.decide(database.pool, place, identity.id, number) is False
        await database.execute("DROP TABLE items")


# -- who may

Roles = Callable[..., Awaitable[Any]]


@pytest.fixture
async def open_as(world: World) -> AsyncIterator[Roles]:
    """Opens PostgreSQL as a new role, a member of others, that may do what it likes to tables."""
    (admin,) = await world.open_all((POSTGRES,))
    roles: list[str] = []

    async def open_one(name: str, *groups: str) -> Any:
        role = f"{name}_{new_id()[:8]}"
        await admin.execute_script(
            f"CREATE ROLE {role} LOGIN PASSWORD 'secret';"
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};"
            f"GRANT ALL ON SCHEMA public TO {role};"
            + "".join(f"GRANT {group} TO {role};" for group in groups)
        )
        roles.append(role)
        parts = urlsplit((await world.settings(POSTGRES))["url"])
        netloc = f"{role}:secret@{parts.hostname}:{parts.port}"
        return await world.open(POSTGRES, role, url=parts._replace(netloc=netloc).geturl())

    yield open_one
    for role in reversed(roles):
        await admin.execute_script(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role};")


async def test_who_has_prepared_under_another_role_commits_as_that_role(
    world: World, open_as: Roles
) -> None:
    """PostgreSQL lets nobody else end it, but superusers."""
    (sqlite,) = await world.open_all((SQLITE,))
    group = await open_as("grp")
    member = await open_as("member", group.name)
    async with transactional(sqlite, member, atomic=True):
        await insert(get_connection(SQLITE), 1)
        await insert(get_connection(member.name), 1)
        await get_connection(member.name).execute(f"SET LOCAL ROLE {group.name}")
    assert await agreed([sqlite, member])
    assert await prepared([member]) == []
    assert await member.fetch_val("SELECT current_user") == member.name


async def test_what_another_role_has_prepared_is_held_and_told(
    world: World, open_as: Roles
) -> None:
    (sqlite,) = await world.open_all((SQLITE,))
    owner, stranger = await open_as("owner"), await open_as("stranger")
    await leave_prepared(world, [sqlite, owner])
    told = await recover(by_name([sqlite, stranger]))
    assert fates(told) == [Fate.HELD]
    assert "permission denied to finish prepared transaction" in told.found[0].why
    assert len(await prepared([owner])) == len(await rows_of_units(sqlite)) == 1
    await recovered([sqlite, owner])
    assert await agreed([sqlite, owner])


async def test_databases_on_one_server_leave_each_others_branches_alone(world: World) -> None:
    """XA RECOVER shows those of the whole server."""
    sqlite, mysql = await world.open_all((SQLITE, MYSQL))
    name = f"beside_{new_id()[:8]}"
    await mysql.execute(f"CREATE DATABASE {name}")
    try:
        url = urlsplit((await world.settings(MYSQL))["url"])._replace(path=f"/{name}").geturl()
        beside = await world.open(MYSQL, "beside", url=url)
        await beside.execute(TABLE)
        branch = await prepare_alone(beside, decider=new_id())
        try:
            told = await recovery.recover(by_name([sqlite, mysql]))
            assert branch.unit not in [one.unit for one in told.found]
            told = await recovery.recover(by_name([sqlite, mysql, beside]))
            assert [(one.database, one.fate) for one in told.found if one.unit == branch.unit] == [
                ("beside", Fate.ORPHAN)
            ]
        finally:
            await end_by_hand(beside, branch)
    finally:
        await mysql.execute(f"DROP DATABASE {name}")


async def test_a_branch_from_before_a_failover_of_mysql_is_an_orphan(world: World) -> None:
    """The server's UUID is another one by now, and so is the participant's name."""
    (mysql,) = await world.open_all((MYSQL,))
    branch = Branch(new_id(), new_id(), participant_of(f"mysql {new_id()} before"))
    lease = await mysql.pool.acquire()
    await mysql.driver.begin(lease.connection, replace(READ_WRITE, branch=branch))
    await mysql.driver.two_phase.prepare(lease.connection, branch)
    try:
        told = await recovery.recover(by_name([mysql]))
        (found,) = (one for one in told.found if one.unit == branch.unit)
        assert (found.fate, found.why) == (Fate.ORPHAN, recovery.ELSEWHERE)
        assert not told.complete
    finally:
        await mysql.driver.two_phase.end(lease.connection, branch, commit=False)
        mysql.pool.release(lease)


async def test_recoverers_that_deadlock_over_a_row_ask_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1213: all of them wait for an INSERT that is rolled back, and then for each other."""
    (mysql,) = await world.open_all((MYSQL,), pool={"max_size": 6})
    identity = await decisions.identify(mysql.pool)
    place = mysql.pool.two_phase.place
    claim, deadlocks = MySQLDeciding.claim, 0

    async def counted(self: Any, connection: Any, sql: str) -> int:
        nonlocal deadlocks
        try:
            return await claim(self, connection, sql)
        except MySQLError as error:
            deadlocks += error.args[0] == 1213
            raise

    async def all_wait() -> bool:
        # Not innodb_trx: it tells those who look more often than every 0.1 s what it told before.
        status = await mysql.fetch_one("SHOW ENGINE INNODB STATUS")
        waiting = [
            transaction
            for transaction in status["Status"].split("---TRANSACTION ")[1:]
            if "LOCK WAIT" in transaction and place.prefix in transaction
        ]
        return len(waiting) == 3 or any(one.done() for one in asked)

    monkeypatch.setattr(MySQLDeciding, "claim", counted)
    # On a busy machine, too, none of them gives up before all of them wait.
    monkeypatch.setattr("jobu_db_mysql.two_phase.CLAIM_SECONDS", int(HANG))
    deadline = monotonic() + HANG
    while not deadlocks:
        assert monotonic() < deadline, "they never deadlocked"
        number = new_id()
        async with mysql.transaction() as ctx:
            await ctx.execute(decisions.entry(place, identity.id, number, [new_id()]))
            asked = [
                asyncio.create_task(
                    decisions.decide(mysql.pool, place, identity.id, number), context=Context()
                )
                for _ in range(3)
            ]
            work = eventually(all_wait)
            await asyncio.get_running_loop().create_task(work, context=Context())
            await ctx.rollback()
        answers = await asyncio.gather(*asked)
        assert True not in answers
    assert await decisions.decide(mysql.pool, place, identity.id, number) is False
    assert await rows_of_units(mysql) == []


# -- rows


async def test_a_row_is_kept_while_a_participant_cannot_be_asked(world: World) -> None:
    databases = await world.open_all((SQLITE, POSTGRES, MYSQL))
    await unit(databases, 0)()
    await leave_prepared(world, databases)
    sqlite, postgres, _ = databases
    for _ in range(2):
        await recover(by_name([sqlite, postgres]))
        assert len(await rows_of_units(sqlite)) == 1
    await recovered(databases)
    assert await agreed(databases)
    assert await rows_of_units(sqlite) == []


async def test_a_row_is_kept_while_a_participant_holds_a_branch(world: World) -> None:
    """Whoever forgets by age, or a range of keys, forgets this one, which recovery needs."""
    databases = await world.open_all((SQLITE, POSTGRES))
    await leave_prepared(world, databases)
    world.proxies[POSTGRES].cut_at(b"COMMIT PREPARED", answered=False)
    told = await recover(by_name(databases))
    assert fates(told) == [Fate.HELD]
    assert len(await rows_of_units(databases[0])) == 1
    await recovered(databases)
    assert await agreed(databases)


async def test_a_row_that_recovery_inserted_and_left_is_deleted(world: World) -> None:
    """Its process ended between the INSERT and the DELETE."""
    databases = await world.open_all((SQLITE, POSTGRES))
    await unit(databases, 0)()
    place = databases[0].pool.two_phase.place
    await databases[0].execute(
        f"INSERT INTO {place.prefix}jobu_db_units (unit) VALUES ('{'a' * 32}')"
    )
    await recovered(databases)
    assert await rows_of_units(databases[0]) == []


# -- names


def test_names_are_ascii_and_fit_everywhere() -> None:
    branch = Branch("0" * 32, "1" * 32, "f" * 32)
    assert len(branch.gtrid) == 64
    assert len(branch.bqual) <= 64
    assert len(branch.name) <= 199
    assert branch.name.isascii()
    assert Branch.from_name(branch.name) == branch
    assert Branch.from_xid(branch.gtrid, branch.bqual) == branch


@pytest.mark.parametrize(
    "name", ["", "jobu_db_1_2", "x" * 105, "jobu_db_" + "A" * 64 + "_" + "0" * 32]
)
def test_the_names_of_others_are_left_alone(name: str) -> None:
    assert Branch.from_name(name) is None


def test_what_is_no_name_of_ours_is_never_written() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        Branch("'; DROP TABLE items; --", "1" * 32, "f" * 32)


async def test_other_databases_of_a_postgres_are_not_looked_at(world: World) -> None:
    sqlite, postgres = await world.open_all((SQLITE, POSTGRES))
    name = f"beside_{new_id()[:8]}"
    await postgres.execute(f"CREATE DATABASE {name}")
    url = urlsplit((await world.settings(POSTGRES))["url"])._replace(path=f"/{name}").geturl()
    async with database_class(POSTGRES).create("beside", {"url": url}) as beside:
        await beside.execute(TABLE)
        branch = await prepare_alone(beside, decider=new_id())
        assert (await recover(by_name([sqlite, postgres]))).found == []
        await end_by_hand(beside, branch)
    await postgres.execute(f"DROP DATABASE {name}")


async def test_transactions_that_others_prepared_are_not_listed(world: World) -> None:
    (postgres,) = await world.open_all((POSTGRES,))
    lease = await postgres.pool.acquire()
    await lease.connection.execute("BEGIN; INSERT INTO items VALUES (1, 'x')")
    await lease.connection.execute("PREPARE TRANSACTION 'somebody elses'")
    postgres.pool.release(lease)
    try:
        assert await prepared([postgres]) == []
        assert (await recover(by_name([postgres]))).complete
    finally:
        async with postgres.pool.connection() as lease:
            await lease.connection.execute("ROLLBACK PREPARED 'somebody elses'")


# -- in the background, and by the registry


async def test_a_background_round_ends_what_is_left(world: World) -> None:
    databases = await world.open_all((SQLITE, POSTGRES))
    await leave_prepared(world, databases)
    config = {
        "databases": {one.name: {"type": one.name, **world.direct(one.name)} for one in databases}
    }
    async with DatabaseRegistry.lifespan(config, recover_every=0.05):

        async def none_left() -> bool:
            return not await prepared(databases)

        await eventually(none_left)
    assert await agreed(databases)


async def test_recovery_inside_a_transaction_is_no_part_of_it(world: World) -> None:
    databases = await world.open_all((SQLITE, POSTGRES))
    await leave_prepared(world, databases)
    for database in databases:
        DatabaseRegistry.register(database.name, database)
    async with transactional(SQLITE):
        await insert(get_connection(SQLITE), 5)
        assert fates(await DatabaseRegistry.recover()) == [Fate.UNDECIDED]
    assert fates(await DatabaseRegistry.recover()) == [Fate.COMMITTED]
    assert await agreed(databases)


@pytest.mark.parametrize("seconds", [0, -1.0])
async def test_recover_every_is_a_positive_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be more than 0"):
        async with DatabaseRegistry.lifespan({"databases": {}}, recover_every=seconds):
            pass


async def test_a_cancellation_while_recovery_stops_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, stopping, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(databases: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(HANG)
        finally:
            stopping.set()
            await may_end.wait()

    monkeypatch.setattr("jobu_db.recovery.recover", slow)

    async def work() -> None:
        async with DatabaseRegistry.lifespan({"databases": {}}, recover_every=60):
            await begun.wait()

    task = asyncio.create_task(work())
    await stopping.wait()
    task.cancel()
    asyncio.get_running_loop().call_soon(may_end.set)
    await asyncio.wait({task}, timeout=HANG)
    assert task.cancelled()
