"""XA transactions of MySQL and MariaDB, and the row by which they decide an atomic unit."""

from __future__ import annotations

from dataclasses import replace

from asyncmy.errors import MySQLError

from jobu_db.capabilities import Capabilities, unsupported
from jobu_db.two_phase import (
    CLAIM_SECONDS,
    Branch,
    Deciding,
    End,
    Place,
    Prepared,
    TwoPhase,
    new_id,
    refuse,
)
from jobu_db_mysql.errors import number
from jobu_db_mysql.session import MySQLConnection

FORMAT_ID = 0x6A6F6275
"""Tells our XA names from those of others."""

OLDEST_MYSQL, OLDEST_MARIADB = (8, 4), (10, 5)

_NOT_SUPPORTED_YET = 1235
_UNKNOWN_XID, _WRONG_STATE, _ROLLED_BACK = 1397, 1399, 1402
_NO_PRIVILEGE = 1401
_ROLLBACK_ONLY = frozenset({_UNKNOWN_XID, _WRONG_STATE, _ROLLED_BACK, 1613, 1614})
"""What XA END says of a branch that is rolled back, or to be so: after a deadlock for one."""

_NO_SUCH_VARIABLE = 1193


_FROM_WHEN_ON = "MySQL from 8.4 and MariaDB from 10.5 on take part in atomic units"


def capabilities(usual: Capabilities, connection: MySQLConnection) -> Capabilities:
    """Say what a server can do, if it usually prepares transactions."""
    problem = too_old(connection)
    return (
        replace(usual, two_phase=unsupported(f"{problem}: {_FROM_WHEN_ON}")) if problem else usual
    )


def too_old(connection: MySQLConnection) -> str:
    """Say why the version of a server prepares no transactions, or ""."""
    version = connection.get_server_info()
    oldest = OLDEST_MARIADB if connection.is_mariadb else OLDEST_MYSQL
    # MariaDB may say 5.5.5- first, as replicas of MySQL wanted to hear.
    number = version.removeprefix("5.5.5-").partition("-")[0]
    known = tuple(int(part) for part in number.split(".")[:2])
    return f"XA transactions are not safe on version {version}" if known < oldest else ""


class MySQLTwoPhase(TwoPhase[MySQLConnection]):
    """XA PREPARE and what belongs to it. XA START is sent by the session, see `begun`."""

    async def check(self, connection: MySQLConnection) -> None:
        if problem := too_old(connection):
            raise refuse(problem, _FROM_WHEN_ON)
        await check_durable(connection)
        await _refuse_read_only(connection)
        try:
            await connection.run("XA RECOVER")
            # XA RECOVER works where XA START is refused, on Galera: only a trial tells.
            await _try_xa(connection)
        except MySQLError as error:
            if number(error) == _NO_PRIVILEGE:
                raise refuse(
                    "this user may not list prepared transactions",
                    "GRANT XA_RECOVER_ADMIN ON *.* to it",
                ) from error
            if number(error) == _NOT_SUPPORTED_YET:
                raise refuse(
                    "the server refuses XA transactions, as Galera does",
                    "name this database first, so that it decides, or leave out atomic=True",
                ) from error
            raise

    async def prepare(self, connection: MySQLConnection, branch: Branch) -> None:
        name = xid(branch)
        # One write: what follows an XA END that failed is refused, in whatever state.
        await connection.order([f"XA END {name}", f"XA PREPARE {name}"])
        connection.prepared = True

    async def end(self, connection: MySQLConnection, branch: Branch, *, commit: bool) -> End:
        word = "COMMIT" if commit else "ROLLBACK"
        try:
            await connection.order([f"XA {word} {xid(branch)}"])
        except MySQLError as error:
            if number(error) == _UNKNOWN_XID:
                return End.UNKNOWN
            # MariaDB says so of a branch without writes, once the session that prepared it is gone.
            if number(error) != _ROLLED_BACK:
                raise
            end = End.EMPTY
        else:
            end = End.DONE
        if connection.xid == xid(branch):
            connection.prepared = False
            connection.lend()
        return end

    async def prepared(self, connection: MySQLConnection) -> list[Prepared]:
        found = []
        for form, long, _, data in (await connection.run("XA RECOVER")).rows:
            if form != FORMAT_ID:
                continue
            # Both parts of the name come as one text, and the length of the first tells them apart.
            text = data.decode("latin-1") if isinstance(data, bytes) else data
            branch = Branch.from_xid(text[:long], text[long:])
            if branch is not None:
                found.append(Prepared(branch))
        return found

    async def beside(self, connection: MySQLConnection) -> set[str]:
        server = await _server(connection)
        rows = (await connection.run("SELECT schema_name FROM information_schema.schemata")).rows
        return {_fingerprint(server, schema) for (schema,) in rows}


class MySQLDeciding(Deciding[MySQLConnection]):
    """MySQL or MariaDB as the database that decides."""

    # InnoDB, whatever the server's default: another engine would keep the row of a unit that was
    # rolled back, and recovery would commit its branches. ascii_bin: hexadecimal digits, compared
    # as they are.
    options = " ENGINE=InnoDB CHARACTER SET ascii COLLATE ascii_bin"

    async def place(self, connection: MySQLConnection) -> Place:
        ((schema, readonly),) = (await connection.run("SELECT DATABASE(), @@GLOBAL.read_only")).rows
        if schema is None:
            raise refuse("no database is selected", "name one with `database`")
        server = await _server(connection)
        prefix = f"`{schema.replace('`', '``')}`."
        return Place(_fingerprint(server, schema), prefix, writable=readonly in (0, "OFF"))

    async def check(self, connection: MySQLConnection) -> None:
        await check_durable(connection)
        await _refuse_read_only(connection)

    async def enter(self, connection: MySQLConnection, sql: str) -> int:
        # No `prepare_commit` before it: this is a round trip itself, and InnoDB, which checks
        # constraints at once, leaves nothing that a COMMIT could still find.
        return (await connection.run(sql)).affected

    async def claim(self, connection: MySQLConnection, sql: str) -> int:
        try:
            await connection.run(f"SET SESSION innodb_lock_wait_timeout = {CLAIM_SECONDS}")
            return (await connection.run(sql, True)).affected
        finally:
            # The short limit is the session's, and must not reach its next holder.
            if connection.alive:
                await connection.reset()


async def roll_back(connection: MySQLConnection) -> None:
    """Roll back the branch that is open on its own connection, also after a deadlock."""
    name, connection.prepared = connection.xid, False
    try:
        await connection.order([f"XA END {name}", f"XA ROLLBACK {name}"])
    except MySQLError as error:
        if number(error) not in _ROLLBACK_ONLY:
            raise
        try:
            # After XA END has failed, as for a deadlock's victim, the rollback that was sent with
            # it may have been refused, or have done its work. The next one does it, or is told that
            # there is nothing.
            await connection.order([f"XA ROLLBACK {name}"])
        except MySQLError as again:
            if number(again) not in (_UNKNOWN_XID, _ROLLED_BACK):
                raise
    finally:
        connection.lend()


def xid(branch: Branch) -> str:
    """Write the XA name."""
    return f"'{branch.gtrid}','{branch.bqual}',{FORMAT_ID}"


async def _try_xa(connection: MySQLConnection) -> None:
    """Begin an XA transaction and end it."""
    name = xid(Branch(new_id(), new_id(), new_id()))
    await connection.order([f"XA START {name}", f"XA END {name}", f"XA ROLLBACK {name}"])


async def check_durable(connection: MySQLConnection) -> None:
    """Raise unless what is committed or prepared here survives a crash.

    Raises:
        TransactionError: Names the variable and what it must be.
    """
    ((flush, has_log, sync),) = (
        await connection.run(
            "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.log_bin, @@GLOBAL.sync_binlog"
        )
    ).rows
    if flush != 1:
        raise refuse(
            f"innodb_flush_log_at_trx_commit is {flush}, so that a crash of the machine loses "
            "commits",
            "set it to 1",
        )
    if has_log in (1, "ON") and sync != 1:
        raise refuse(
            f"sync_binlog is {sync}, so that a crash of the machine loses commits", "set it to 1"
        )


async def _refuse_read_only(connection: MySQLConnection) -> None:
    ((readonly,),) = (await connection.run("SELECT @@GLOBAL.read_only")).rows
    if readonly not in (0, "OFF"):
        raise refuse("the server is read-only", "connect to the primary")


def _fingerprint(server: str, schema: str) -> str:
    return f"{server} {schema}"


async def _server(connection: MySQLConnection) -> str:
    """Tell the server from others: MariaDB has `server_uid` where it is new enough."""
    mariadb = connection.is_mariadb
    try:
        ((server,),) = (
            await connection.run(f"SELECT @@{'server_uid' if mariadb else 'server_uuid'}")
        ).rows
    except MySQLError as error:
        if number(error) != _NO_SUCH_VARIABLE:
            raise
        ((host, port, folder),) = (
            await connection.run("SELECT @@hostname, @@port, @@datadir")
        ).rows
        server = f"{host}:{port}:{folder}"
    return f"{'mariadb' if mariadb else 'mysql'} {server}"
