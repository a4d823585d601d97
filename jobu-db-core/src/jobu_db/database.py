"""One named database: its driver, its pool, and everything a program does with it."""

from __future__ import annotations

import asyncio
import functools
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Self

from jobu_db._aio.timeouts import check_seconds
from jobu_db.capabilities import Capabilities
from jobu_db.driver import READ_ONLY, READ_WRITE, Driver, TransactionMode
from jobu_db.errors import (
    ConfigurationError,
    ConnectionLostError,
    DatabaseError,
    ReadOnlyTransactionError,
    TransactionError,
)
from jobu_db.opening import Opening, open_pool
from jobu_db.plugins import API_VERSION as API_VERSION
from jobu_db.plugins import Backend
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.replicas import (
    OwnPositions,
    ParameterReplicaStatements,
    Replicas,
    ReplicaStatements,
    ReplicaTransaction,
)
from jobu_db.replicas.own_positions import ask_primary
from jobu_db.settings import ReplicatedSettings
from jobu_db.settings.files import UnusableFileError, read_file
from jobu_db.settings.models import DatabaseSettings
from jobu_db.statements import ParameterStatements, Result, Statements, needs_transaction
from jobu_db.transaction import ambient
from jobu_db.transaction.autocommit import run_autocommit
from jobu_db.transaction.block import ManagedTransaction
from jobu_db.transaction.connection_session import DatabaseSession, ParameterSession
from jobu_db.transaction.context import ParameterContext, TransactionContext
from jobu_db.transaction.time_limit import of_statement

_LARGEST_SCRIPT = 16_000_000
"""Bytes of the file of `init_sql`."""


class BaseDatabase(Statements, Backend):
    """What every backend's database is.

    Its statements take `(sql, *args)`; those of `ParameterDatabase` take `(sql, parameters)`.

    Class attributes, which a backend sets:
        db_type: "sqlite", "postgres", …
        settings_class: The model of its settings.
        context_class: Its `TransactionContext`, with the same statements as the database.
        aiosql_adapter: Name of the adapter for aiosql, or None if it has none.
        api_version: The `API_VERSION` of the core that it was written for.

    Attributes:
        name, settings, driver, pool: As created.
    """

    settings_class: ClassVar[type[DatabaseSettings]]
    context_class: ClassVar[type[TransactionContext]] = TransactionContext
    aiosql_adapter: ClassVar[str | None] = None

    def __init__(self, name: str, settings: DatabaseSettings) -> None:
        self.name = name
        self.settings = settings
        self.driver: Driver[Any] = self.make_driver(name, settings)
        self.pool: AsyncConnectionPool[Any] = AsyncConnectionPool(name, self.driver, settings.pool)
        self._replicas: Replicas | None = None
        self._own_positions: OwnPositions | None = None
        if isinstance(settings, ReplicatedSettings) and settings.replicas is not None:
            make = functools.partial(self.make_driver, name)
            self._replicas = Replicas(name, settings, make, self.pool)
            self.driver.watch_hosts(None)  # the replicas' own watch tells of them
            self._own_positions = self.pool.positions = self._replicas.own

    @classmethod
    @abstractmethod
    def make_driver(cls, name: str, settings: Any) -> Driver[Any]:
        """Make the driver for these settings, without connecting."""

    @classmethod
    def capabilities_of(cls, db_type: str) -> Capabilities | None:
        """Say what a database of this type can do, as far as that is known without connecting."""
        return None

    @classmethod
    def create(
        cls,
        name: str,
        config: Mapping[str, Any] | DatabaseSettings,
        *,
        wait: float | None = None,
        close_timeout: float | None = None,
    ) -> Opening[Self]:
        """Open a database: `await create(…)`, or `async with create(…) as database`.

        Args:
            name: For messages and `get_connection`.
            config: What stands under the name in the configuration file; `type` may be left out.
            wait: Seconds to wait for a server that is still starting: one that refuses, is
                silent, or lets nobody in yet. None or 0: whatever is wrong is an error at once.
            close_timeout: Seconds that the end of an `async with` waits for holders of
                connections; the pool's `timeout` if None.

        Raises:
            ConfigurationError: With all problems at once.
            ConnectionFailedError: No connection could be made, whatever the cause.
        """
        check_seconds("wait", wait)
        check_seconds("close_timeout", close_timeout)
        return Opening(cls._create(name, config, wait), close_timeout)

    @classmethod
    async def _create(
        cls, name: str, config: Mapping[str, Any] | DatabaseSettings, wait: float | None
    ) -> Self:
        if not isinstance(config, DatabaseSettings):
            config = cls.settings_class.parse(name, {"type": cls.db_type, **config})
        database = cls(name, config)
        await open_pool(database.pool, wait)
        try:
            await database._initialize()
            if database._replicas is not None:
                await database._replicas.open(wait=not config.pool.lazy)
        except BaseException:
            # Cancelled, too: only here is there somebody who could close it.
            await database.close(timeout=0)
            raise
        return database

    async def _initialize(self) -> None:
        if not self.settings.init_sql:
            return
        # Off the event loop: the file may lie on a network.
        script = await asyncio.to_thread(self._script)
        async with self.pool.connection() as lease:
            with self.pool.translating(None):
                await self.driver.initialize(lease.connection, script)

    def _script(self) -> str:
        from importlib import resources  # a fifth of the time that importing jobu_db would take

        given = self.settings.init_sql
        if given is True:
            package = type(self).__module__.partition(".")[0]
            return resources.files(package).joinpath("sql/init.sql").read_text(encoding="utf-8")
        try:
            return read_file(Path(str(given)), _LARGEST_SCRIPT)[0].decode("utf-8-sig")
        except UnusableFileError as error:
            fault, cause = str(error), error.__cause__
        except UnicodeDecodeError as error:
            fault, cause = "is not UTF-8 text", error
        raise ConfigurationError(
            f"databases.{self.name}.init_sql: {given}: {fault}", database=self.name
        ) from cause

    async def close(self, timeout: float | None = None) -> None:
        """Close the pool, and those of the replicas; see `AsyncConnectionPool.close`."""
        if self._replicas is None:
            await self.pool.close(timeout)
        else:
            await asyncio.gather(self.pool.close(timeout), self._replicas.close(timeout))

    # -- transactions

    def transaction(
        self,
        readonly: bool = False,
        isolation: str | None = None,
        timeout: float | None = None,
        independent: bool = False,
        replica: bool | str = False,
    ) -> ManagedTransaction:
        """Open a transaction with `async with`; inside another one of this database, a savepoint.

        Args:
            readonly: The server refuses writes.
            isolation: A standard name such as "serializable", as far as the database has it.
            timeout: Seconds for the whole block, acquire included; `QueryTimeoutError` after that.
            independent: Take a connection of its own, so that it survives the outer rollback.
            replica: With `readonly`: a replica may answer that has all that this task, and those
                that share its positions, have committed here. A text is a `position` to be reached
                as well. Without `replicas` in the settings, the primary answers.

        Raises:
            TransactionError: The isolation level is unknown, this, `readonly` or `replica` cannot
                be had, or `replica` is no position.
        """
        mode = self._mode(readonly, isolation)
        if self._own_positions is not None:
            # In the caller's context: the task that enters the block may be another one, and what
            # it commits is to be seen by those that the caller begins.
            self._own_positions.cell()
        if replica is not False:
            if not readonly:
                raise TransactionError(
                    "replica needs readonly=True: replicas take no writes", database=self.name
                )
            if self._replicas is not None:
                return ReplicaTransaction(
                    self.pool,
                    self._replicas,
                    replica,
                    mode,
                    self.context_class,
                    timeout=timeout,
                    independent=independent,
                )
        return ManagedTransaction(
            self.pool, mode, self.context_class, timeout=timeout, independent=independent
        )

    def session(self) -> DatabaseSession:
        """Keep one connection for the length of an `async with` block, without a transaction.

        Statements of the session commit by themselves; what they set, and the locks that they
        take, hold to its end, and are undone then. `session.transaction()` opens a transaction on
        the same connection, `session.connection` is the driver's. The session is never the
        current transaction: `db.execute` inside it uses the pool as ever.

        Entering the block raises:
            ConnectionPoolExhaustedError: No connection came free in time.
            TransactionError: A writing transaction is open here, and the database has one writer.
        """
        if self._own_positions is not None:
            self._own_positions.cell()  # here: it may be used in tasks of their own
        with_parameters = isinstance(self, ParameterStatements)
        chosen = ParameterSession if with_parameters else DatabaseSession
        return chosen(self.pool, self._mode, self.context_class)

    def listen(self, *channels: str) -> AsyncGenerator[Any]:
        """Hear what is sent to these channels, where the database has such: PostgreSQL.

        Raises:
            DatabaseError: It has none.
        """
        raise DatabaseError(
            f"listen(): {self.db_type} sends no notifications; ask a table at intervals",
            database=self.name,
        )

    def _mode(self, readonly: bool, isolation: str | None) -> TransactionMode:
        if readonly:
            self.driver.capabilities.readonly.demand("readonly=True", self.name)
        if isolation is not None:
            return TransactionMode(readonly, self._isolation(isolation))
        # The usual ones are there already: no object for each transaction.
        return READ_ONLY if readonly else READ_WRITE

    def _isolation(self, isolation: str) -> str:
        level = " ".join(isolation.lower().replace("_", " ").split())
        known = self.driver.capabilities.isolation_levels
        if level not in known:
            raise TransactionError(
                f"isolation={isolation!r}: {self.db_type} has {', '.join(sorted(known))}",
                database=self.name,
            )
        return level

    # -- statements

    def _run(self, operation: str, sql: str, parameters: Any) -> Result:
        """Run in the current transaction of this database, else alone."""
        if self._own_positions is not None:
            self._own_positions.cell()  # here: what is returned may be run in a task of its own
        return self._run_here(operation, sql, parameters)

    async def _run_here(self, operation: str, sql: str, parameters: Any) -> Any:
        level: Any = ambient.current(self.pool)
        if level is not None and not level.of_test:
            return await level.face._run(operation, sql, parameters)
        # In a test's transaction, what would commit by itself must fail by itself, too.
        if level is not None or needs_transaction(self.driver, operation):
            async with self.transaction() as context:
                return await context._run(operation, sql, parameters)
        observation = self.pool.observer.observe(operation, sql, parameters, None)
        running = run_autocommit(self.pool, operation, sql, parameters, observation)
        # Where nobody listens there is no observation, and no coroutine more to step through.
        return await (running if observation is None else observation.of(running))

    async def _run_in_time(self, seconds: float, operation: str, sql: str, parameters: Any) -> Any:
        """Run in the current transaction, else in one of its own: then certainly nothing remains
        of a statement that took too long."""
        level: Any = ambient.current(self.pool)
        if level is not None and not level.of_test:
            return await level.face._run_in_time(seconds, operation, sql, parameters)
        until = monotonic() + seconds
        with of_statement(sql, seconds):
            if self.driver.write_gate is not None and operation.startswith("fetch"):
                # As a reader first, which never waits for writers.
                # INSERT … RETURNING is fetched, too: it is refused, nothing of it remains, and it
                # is run below as a writer.
                with suppress(ReadOnlyTransactionError):
                    async with self.transaction(readonly=True, timeout=seconds) as context:
                        return await context._run(operation, sql, parameters)
            async with self.transaction(timeout=until - monotonic()) as context:
                return await context._run(operation, sql, parameters)

    @property
    def _database_name(self) -> str:
        return self.name

    # -- replicas

    @property
    def replica(self) -> Statements:
        """Reads from a replica: `await db.replica.fetch_all(…)`, as in a transaction of its own
        with `readonly=True, replica=True`; inside a transaction of this database, in that."""
        with_parameters = isinstance(self, ParameterStatements)
        chosen = ParameterReplicaStatements if with_parameters else ReplicaStatements

        def transaction(timeout: float | None) -> ManagedTransaction:
            return self.transaction(readonly=True, timeout=timeout, replica=True)

        return chosen(self.pool, transaction)

    async def position(self) -> str:
        """Return where this task's writes are, for `replica=` in whatever process.

        That is what it, and the tasks that share its positions, have committed through this
        database; if that is nothing, what is committed by now. "" where no replica can be read.

        Raises:
            DatabaseError: The primary is to be asked for it, and does not answer.
        """
        if self._own_positions is not None:
            return await self._own_positions.token(self.pool)
        if self.driver.replication is None:
            return ""
        return str(await ask_primary(self.pool, self.driver.replication))

    # -- health and figures

    async def ping(self, timeout: float | None = None) -> None:
        """Ask the server for an answer.

        Args:
            timeout: Seconds for waiting for a connection and for the answer together, more than
                0; the pool's `timeout` if None.

        Raises:
            ValueError: There is no time for an answer.
            ConnectionPoolExhaustedError: All connections are in use.
            ConnectionLostError: There was no answer in time, or the connection is lost.
            DatabaseError: What else is wrong.
        """
        check_seconds("timeout", timeout)
        limit = self.settings.pool.timeout if timeout is None else timeout
        if limit <= 0:
            raise ValueError(f"timeout={limit:g}: must be more than 0")
        until = monotonic() + limit
        try:
            async with self.pool.connection(limit) as lease:
                # One limit for both: the answer has what waiting for the connection has left.
                left = until - monotonic()
                await self.pool.time_limits.within(left, self._ping(lease.connection))
        except TimeoutError as error:
            raise ConnectionLostError(
                f"the server did not answer within {limit:g} s", database=self.name
            ) from error

    async def _ping(self, connection: Any) -> None:
        with self.pool.translating(None):
            await self.driver.ping(connection)

    def stats(self) -> dict[str, Any]:
        """Return the figures of the pool; see `AsyncConnectionPool.stats`.

        Also `prepared`: the branches of atomic units that wait for recovery here, as far as this
        process knows, with their age in seconds.

        With several `hosts` also `hosts`, of each server: its address as `host`, role, connections,
        errors, and as `last_failover` the Unix time at which it was last lost. With `replicas` also
        lag in seconds, and why nothing is read there if it is a replica; and `replicas`: how many
        reads they answered, and why others were not theirs.
        """
        figures = {"name": self.name, "type": self.db_type, **self.pool.stats()}
        figures["prepared"] = self.pool.two_phase.figures()
        if self._replicas is not None:
            figures["hosts"] = self._replicas.hosts()
            figures["replicas"] = self._replicas.figures()
        return figures

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.pool!r}>"


class ParameterDatabase(ParameterStatements, BaseDatabase):
    """The database of backends whose statements take `(sql, parameters)`."""

    context_class = ParameterContext
