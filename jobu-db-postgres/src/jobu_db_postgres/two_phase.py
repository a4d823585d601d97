"""Prepared transactions of PostgreSQL, and the row by which it decides an atomic unit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import asyncpg

from jobu_db.errors import LockTimeoutError, TransactionError
from jobu_db.two_phase import (
    CLAIM_SECONDS,
    Branch,
    Deciding,
    End,
    Place,
    Prepared,
    TwoPhase,
    refuse,
    rowcount,
)
from jobu_db_postgres._private import Connection
from jobu_db_postgres.status import Status

_UNDEFINED_OBJECT, _NOT_IN_PREREQUISITE_STATE, _QUERY_CANCELED = "42704", "55000", "57014"

_PRIMARY = (
    "NOT pg_catalog.pg_is_in_recovery() AND"
    " pg_catalog.current_setting('default_transaction_read_only') = 'off'"
)

_DURABLY = (
    "SELECT pg_catalog.set_config('synchronous_commit', 'on', true)"
    " WHERE pg_catalog.current_setting('synchronous_commit') NOT IN ('on', 'remote_apply');"
)
"""Only `remote_apply` is stricter."""

_WRITE_NOTHING = "SELECT pg_catalog.pg_logical_emit_message(true, 'jobu_db', '')"
"""Its commit waits for standbys until they have everything that came before."""

_CLAIM = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
    f"SET LOCAL lock_timeout = {CLAIM_SECONDS * 1000};"
)
"""Sent in one text with the INSERT: the server takes all of it for one transaction."""


class PostgresTwoPhase(TwoPhase[Connection]):
    """PREPARE TRANSACTION and what belongs to it.

    Args:
        end_scope: Told that a transaction is over on a connection.
    """

    def __init__(self, end_scope: Callable[[Connection], None]) -> None:
        self._end_scope = end_scope

    async def check(self, connection: Connection) -> None:
        ((limit, primary),) = await connection.run(
            "SELECT pg_catalog.current_setting('max_prepared_transactions')::int, " + _PRIMARY, ()
        )
        if limit == 0:
            raise refuse(
                "prepared transactions are disabled on the server",
                "set max_prepared_transactions in postgresql.conf to at least the number of "
                "atomic units at a time, and restart it",
            )
        if not primary:
            raise refuse("the server takes no writes", "connect to the primary")

    async def prepare(self, connection: Connection, branch: Branch) -> None:
        try:
            status = await connection.command(f"PREPARE TRANSACTION '{branch.name}'")
        finally:
            # In any case: after an error of the server's there is no transaction any more, either.
            self._end_scope(connection)
        # A failed transaction is rolled back, and the answer is ROLLBACK, without an error.
        if status != "PREPARE TRANSACTION":
            raise TransactionError(
                f"the server answered PREPARE TRANSACTION with {status}: a statement had failed, "
                "and the transaction is rolled back"
            )
        if connection.committed_locally:
            connection.terminate()  # so that the branch is left to recovery
            raise TransactionError(
                "not committed: the wait for a standby to know of PREPARE TRANSACTION was cancelled"
            )

    async def end(self, connection: Connection, branch: Branch, *, commit: bool) -> End:
        order = f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{branch.name}'"
        try:
            await _give(connection, branch, order)
        except asyncpg.PostgresError as error:
            if error.sqlstate == _UNDEFINED_OBJECT:
                return End.UNKNOWN
            if error.sqlstate == _NOT_IN_PREREQUISITE_STATE:
                return End.BUSY
            raise
        connection.refuse_local_commit()
        return End.DONE

    async def prepared(self, connection: Connection) -> list[Prepared]:
        rows = await connection.run(
            "SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8"
            " FROM pg_catalog.pg_prepared_xacts"
            " WHERE database = pg_catalog.current_database()",
            (),
        )
        named = ((Branch.from_name(name), age) for name, age in rows)
        return [Prepared(branch, max(0.0, age)) for branch, age in named if branch is not None]


async def _give(connection: Connection, branch: Branch, order: str) -> None:
    try:
        await connection.command(order)
    except asyncpg.InsufficientPrivilegeError:
        if not await _as_owner(connection, branch, order):
            raise


async def _as_owner(connection: Connection, branch: Branch, order: str) -> bool:
    """Give the order as the role that has prepared a branch: it was set when that was done.

    Say whether it was given.
    """
    owners = await connection.run(
        "SELECT pg_catalog.quote_ident(owner) FROM pg_catalog.pg_prepared_xacts"
        " WHERE gid = $1 AND pg_catalog.pg_has_role(owner, 'MEMBER')",
        (branch.name,),
    )
    for (owner,) in owners:
        await connection.command(f"SET ROLE {owner}")
        try:
            await connection.command(order)
        except BaseException:
            # What became of the order is what the caller has to know. If the role cannot be left,
            # the connection is closed, which everybody notices.
            with suppress(Exception):
                await _leave_role(connection)
            raise
        await _leave_role(connection)
    return bool(owners)


async def _leave_role(connection: Connection) -> None:
    try:
        await connection.command("RESET ROLE")
    except BaseException:
        # The next holder must not have that role, also where nothing is reset between holders.
        connection.terminate()
        raise


class PostgresDeciding(Deciding[Connection]):
    """PostgreSQL as the database that decides."""

    async def place(self, connection: Connection) -> Place:
        ((system, database, schema, primary),) = await connection.run(
            "SELECT system_identifier::text, d.oid::text, pg_catalog.quote_ident(s.schema), "
            + _PRIMARY
            + " FROM pg_catalog.pg_control_system(), pg_catalog.current_schema() AS s(schema),"
            " pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()",
            (),
        )
        if schema is None:
            raise refuse(
                "no schema of the search_path exists to keep the decisions in",
                "create one, or set search_path under server_settings",
            )
        return Place(f"postgresql {system} {database}", f"{schema}.", writable=primary)

    async def enter(self, connection: Connection, sql: str) -> int:
        # Ahead of the INSERT, what a COMMIT would raise: after it, the unit counts on this
        # transaction to commit.
        text = f"SET CONSTRAINTS ALL IMMEDIATE;{_DURABLY}{sql}"
        return rowcount(Status(await connection.order(text)))

    async def claim(self, connection: Connection, sql: str) -> int:
        try:
            return rowcount(Status(await connection.command(_CLAIM + sql)))
        except asyncpg.QueryCanceledError as error:
            # By statement_timeout, if that is shorter than the limit of the lock: undecided as
            # well.
            raise LockTimeoutError(str(error), code=_QUERY_CANCELED) from error
        finally:
            connection.committed_locally = False  # what can never be committed needs no standby

    async def settle(self, connection: Connection) -> bool:
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                await connection.command(_DURABLY + _WRITE_NOTHING)
            return not connection.committed_locally
        except TimeoutError:
            await self.driver.abort(connection)
            return False
        finally:
            connection.committed_locally = False
