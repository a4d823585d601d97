"""The decisions of atomic units: rows in a database that decides.

A row names the unit and its participants, and is written by the unit's own transaction before
anything is prepared. To insert the same key is to wait for that transaction, and so to learn for
certain what became of it: the key is taken (committed), or free (it can never come back, and can
only have been rolled back). Nothing here asks how old anything is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from jobu_db.errors import (
    DeadlockError,
    LockTimeoutError,
    SerializationError,
    TransactionError,
    UndefinedTableError,
    UniqueViolationError,
)
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.pool.two_phase_notes import Identity
from jobu_db.transaction.write_turn import take_write_turn
from jobu_db.two_phase import CLAIM_SECONDS, IDENTITY, UNITS, Place, new_id

T = TypeVar("T")
Pool = AsyncConnectionPool[Any]

_ATTEMPTS = 10


async def ask(pool: Pool, statement: str, work: Callable[[Any], Awaitable[T]]) -> T:
    """Do something on a connection of a pool, outside a transaction."""
    async with pool.connection() as lease:
        lease.expect_answer(monotonic())
        try:
            with pool.translating(statement):
                return await work(lease.connection)
        finally:
            lease.expect_answer(None)


async def ask_writing(
    pool: Pool,
    statement: str,
    work: Callable[[Any], Awaitable[T]],
    seconds: float = CLAIM_SECONDS,
) -> T:
    """The same, for what takes the turn to write; that is waited for as long as for a decider."""
    gate = await take_write_turn(pool, seconds)
    try:
        return await ask(pool, statement, work)
    finally:
        if gate is not None:
            gate.leave()


async def place_of(pool: Pool) -> Place:
    """Say where the connections of a pool lead, and note it."""
    place = await ask(pool, "SELECT", pool.driver.deciding.place)
    pool.two_phase.place = place
    return place


# -- who decides


async def read_identity(pool: Pool, place: Place) -> Identity | None:
    """Return the identity of a database that decides; None if it never did."""

    async def read(connection: Any) -> Any:
        sql = f"SELECT id, fingerprint FROM {place.prefix}{IDENTITY} WHERE one = 1"
        driver = pool.driver
        driver.autocommit(connection, readonly=True)
        return await driver.fetch_one(connection, sql, None)

    try:
        row = await ask(pool, "SELECT", read)
    except UndefinedTableError:
        return None
    return None if row is None else Identity(row["id"], row["fingerprint"])


async def identify(pool: Pool) -> Identity:
    """Return the identity of a database that is to decide, which is given one at first use.

    Raises:
        TransactionError: What commits there may not last, or the database is a copy.
    """
    notes = pool.two_phase
    if notes.identity is not None:
        return notes.identity
    driver = pool.driver
    await ask(pool, "SELECT", driver.deciding.check)
    place = await place_of(pool)
    identity = await read_identity(pool, place)
    if identity is None:
        script = driver.deciding.script(place.prefix)
        await ask_writing(
            pool,
            script,
            lambda connection: driver.initialize(connection, script),
            pool.config.timeout,
        )
        await _write_identity(pool, place)
        identity = await read_identity(pool, place)
        assert identity is not None
    if identity.fingerprint != place.fingerprint:
        raise TransactionError(
            f"atomic=True: {mismatch(identity, place)}; `jobu-db recover --confirm {pool.name}` "
            f"says that it is the original, `--renew {pool.name}` that it is a copy",
            database=pool.name,
        )
    notes.identity = identity
    return identity


def mismatch(identity: Identity, place: Place) -> str:
    """Say why a database is not the one that was given its identity."""
    return (
        f"this database decides as {identity.id}, which was given to {identity.fingerprint!r}, but "
        f"is {place.fingerprint!r}: it was copied, restored or moved"
    )


async def _write_identity(pool: Pool, place: Place) -> None:
    sql = (
        f"INSERT INTO {place.prefix}{IDENTITY} (one, id, fingerprint)"
        f" VALUES (1, '{new_id()}', {_literal(place.fingerprint)})"
    )
    with suppress(UniqueViolationError):  # another process did so just now
        await _execute(pool, sql, pool.config.timeout)


async def confirm_identity(pool: Pool, *, renew: bool = False) -> Identity:
    """Say that a database which decides is what it says, wherever it is now; or a new one.

    Args:
        renew: It is a copy: it gets a new identity, and what the original decides is no longer its
            affair.

    Raises:
        TransactionError: It never decided anything.
    """
    place = await place_of(pool)
    if await read_identity(pool, place) is None:
        raise TransactionError("it has decided no atomic unit yet", database=pool.name)
    new = f", id = '{new_id()}'" if renew else ""
    await _execute(
        pool,
        f"UPDATE {place.prefix}{IDENTITY} SET fingerprint = {_literal(place.fingerprint)}{new}"
        " WHERE one = 1",
    )
    identity = await read_identity(pool, place)
    assert identity is not None
    pool.two_phase.identity = None
    return identity


def _literal(text: str) -> str:
    if "\\" in text:
        raise TransactionError(f"a fingerprint with a backslash: {text!r}")
    return "'" + text.replace("'", "''") + "'"


async def _execute(pool: Pool, sql: str, seconds: float = CLAIM_SECONDS) -> None:
    async def run(connection: Any) -> None:
        pool.driver.autocommit(connection, readonly=False)
        await pool.driver.execute(connection, sql, None)

    await ask_writing(pool, sql, run, seconds)


# -- what was decided


def _insert(place: Place, identity: str, columns: str, values: str) -> str:
    """Write an INSERT that inserts nothing unless the database still is who it was.

    So a unit that was begun on one server decides nothing on another to which its name leads now.
    """
    return (
        f"INSERT INTO {place.prefix}{UNITS} ({columns}) SELECT {values}"
        f" FROM {place.prefix}{IDENTITY} WHERE one = 1 AND id = '{identity}'"
    )


def entry(place: Place, identity: str, unit: str, participants: Iterable[str]) -> str:
    """Write the INSERT by which a unit is decided once its transaction commits."""
    names = " ".join(participants)
    return _insert(place, identity, "unit, participants", f"'{unit}', '{names}'")


async def decide(pool: Pool, place: Place, identity: str, unit: str) -> bool | None:
    """Learn what became of a unit; if nothing was decided, ensure that nothing can be any more.

    Returns:
        True if it is committed, False if it can never be, None if its transaction is still open,
        or its commit may not last.
    """
    claim = _insert(place, identity, "unit", f"'{unit}'")
    driver = pool.driver
    for _ in range(_ATTEMPTS):
        try:
            count = await ask_writing(
                pool, claim, lambda connection: driver.deciding.claim(connection, claim)
            )
        except UniqueViolationError:
            pass
        except LockTimeoutError:
            return None
        # Two recoveries at the same key may get in each other's way: neither has learnt anything.
        except (DeadlockError, SerializationError):
            continue
        else:
            # Not a conflict, and nothing was inserted: the identity in the condition is another by
            # now.
            if count != 1:
                raise TransactionError(
                    f"this database does not decide as {identity} any more", database=pool.name
                )
            await forget(pool, place, unit)
            # Who asks knows a branch, which is prepared only after the unit's row was inserted.
            # The key was free, so that transaction is rolled back.
            return False
        row = await _read(pool, place, unit)  # in a new transaction: the old ones do not see it
        if row is not None:
            # Recovery inserts without participants, the unit itself with them.
            committed = row["participants"] is not None
            return None if committed and not await settled(pool) else committed
    return None


async def _read(pool: Pool, place: Place, unit: str) -> Any:
    sql = f"SELECT participants FROM {place.prefix}{UNITS} WHERE unit = '{unit}'"

    async def read(connection: Any) -> Any:
        pool.driver.autocommit(connection, readonly=True)
        return await pool.driver.fetch_one(connection, sql, None)

    return await ask(pool, sql, read)


async def settled(pool: Pool) -> bool:
    """Say whether everything that can be seen in a database will survive as commits do."""
    return await ask(pool, "COMMIT", pool.driver.deciding.settle)


async def decided(pool: Pool, place: Place) -> dict[str, list[str]]:
    """Return the units whose rows are there, with their participants; none were rolled back."""
    sql = f"SELECT unit, participants FROM {place.prefix}{UNITS}"

    async def read(connection: Any) -> Any:
        pool.driver.autocommit(connection, readonly=True)
        return await pool.driver.fetch_all(connection, sql, None)

    rows = await ask(pool, sql, read)
    return {row["unit"]: (row["participants"] or "").split() for row in rows}


async def forget(pool: Pool, place: Place, unit: str) -> None:
    """Delete the row of a unit that nobody will ask for again, by its key."""
    await _execute(pool, f"DELETE FROM {place.prefix}{UNITS} WHERE unit = '{unit}'")
