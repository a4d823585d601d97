"""The databases of a program, by name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from os import PathLike
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from jobu_db._aio.timeouts import check_seconds
from jobu_db.database import BaseDatabase
from jobu_db.errors import DatabaseError, DatabaseNotFoundError, NoTransactionError
from jobu_db.plugins import database_class
from jobu_db.recovery import Recovery, recover, recover_periodically
from jobu_db.settings.loader import ConfigSource, parse_databases, read_config
from jobu_db.settings.models import DatabaseSettings
from jobu_db.transaction import ambient
from jobu_db.transaction.context import TransactionContext


class DatabaseRegistry:
    """One per program; all methods are class methods."""

    _databases: ClassVar[dict[str, BaseDatabase]] = {}

    @classmethod
    async def init_from_config(
        cls,
        config: ConfigSource,
        db_names: Iterable[str] | None = None,
        *,
        wait: float | None = None,
    ) -> None:
        """Open and register databases, side by side; names registered already are skipped.

        Args:
            config: A mapping with the key `databases`, or the path of a file.
            db_names: The ones to open; all if None, none if empty.
            wait: Seconds to wait for servers that are still starting; None or 0: not at all.

        Raises:
            DatabaseNotFoundError: A name is not in the configuration.
            ConfigurationError: With all problems of the chosen databases at once.
            TypeError: `db_names` is a str, not a list of names.
            DatabaseError: One could not be opened; then none of this call stays open.
        """
        if isinstance(db_names, str):
            raise TypeError(f"db_names is a list of names, not a str: [{db_names!r}]")
        check_seconds("wait", wait)
        names = None if db_names is None else list(db_names)
        if not isinstance(config, Mapping):
            # Off the event loop: the file may lie on a network.
            config = await asyncio.to_thread(read_config, config)
        settings = parse_databases(config, names, lambda kind: database_class(kind).settings_class)
        wanted = {name: it for name, it in settings.items() if name not in cls._databases}
        opened = await _open_all(wanted, wait)
        # Nothing awaits from this look to the update: no two calls find the same name free.
        taken = [name for name in opened if name in cls._databases]
        if taken:  # concurrently, while we were opening
            await _close_all(opened.values())
            raise DatabaseError(f"{', '.join(taken)}: registered concurrently")
        cls._databases.update(opened)

    @classmethod
    def get(cls, name: str = "default") -> BaseDatabase:
        """Return a registered database.

        Raises:
            DatabaseNotFoundError: Lists the registered ones.
        """
        try:
            return cls._databases[name]
        except KeyError:
            known = ", ".join(sorted(cls._databases)) or "none"
            raise DatabaseNotFoundError(
                f"no database {name!r} is registered; registered: {known}"
            ) from None

    @classmethod
    def get_all(cls) -> dict[str, BaseDatabase]:
        """Return all registered databases by name."""
        return dict(cls._databases)

    @classmethod
    def register(cls, name: str, db: BaseDatabase) -> None:
        """Register a database that was opened elsewhere.

        Raises:
            DatabaseError: The name is taken.
        """
        if name in cls._databases:
            raise DatabaseError(
                f"the name {name!r} is taken by {cls._databases[name]!r}: close and clear it "
                "first, or choose another name"
            )
        cls._databases[name] = db

    @classmethod
    def clear(cls) -> None:
        """Forget all databases without closing them."""
        cls._databases.clear()

    @classmethod
    async def close_all(cls, timeout: float | None = None) -> None:
        """Close and forget all databases, side by side, also if closing one fails.

        Args:
            timeout: Seconds to wait for holders of connections; each pool's own if None.

        Raises:
            ExceptionGroup: What failed, after all have been tried.
        """
        databases = list(cls._databases.values())
        # First: who asks while they are being closed must not get one of them.
        cls._databases.clear()
        await _close_all(databases, timeout)

    @classmethod
    async def recover(cls) -> Recovery:
        """End what atomic units left prepared in the registered databases, once.

        Any process may do so, also while units run here or elsewhere. What cannot be decided now
        is left as it is, and told.
        """
        return await recover(cls.get_all())

    @classmethod
    @asynccontextmanager
    async def lifespan(
        cls,
        config: ConfigSource,
        db_names: Iterable[str] | None = None,
        *,
        wait: float | None = None,
        close_timeout: float | None = None,
        recover_every: float | None = None,
    ) -> AsyncIterator[type[DatabaseRegistry]]:
        """Open with `init_from_config` on entry; close all on exit, whatever happens.

        Args:
            wait: Seconds to wait for servers that are still starting; None or 0: not at all.
            close_timeout: Seconds to wait for holders of connections on exit; each pool's own
                `timeout` if None.
            recover_every: Seconds between two rounds of `recover`, in the background; None: none.
        """
        check_seconds("close_timeout", close_timeout)
        check_seconds("recover_every", recover_every)
        await cls.init_from_config(config, db_names, wait=wait)
        try:
            # Inside: recovery has stopped before its databases are closed.
            async with _recovering(cls.get_all(), recover_every):
                yield cls
        finally:
            await cls.close_all(close_timeout)


@asynccontextmanager
async def _recovering(
    databases: Mapping[str, BaseDatabase], seconds: float | None
) -> AsyncIterator[None]:
    if seconds is None:
        yield
        return
    if seconds <= 0:
        raise ValueError(f"recover_every={seconds:g}: must be more than 0")
    task = asyncio.create_task(recover_periodically(databases, seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _open_all(
    wanted: Mapping[str, DatabaseSettings], wait: float | None
) -> dict[str, BaseDatabase]:
    """Open all or none: a failure closes those that were opened and stops those under way."""
    tasks = {
        name: asyncio.create_task(database_class(settings.type).create(name, settings, wait=wait))
        for name, settings in wanted.items()
    }
    try:
        await asyncio.gather(*tasks.values())
    except BaseException:
        # All are waited for: one may have opened its database just before it was cancelled, and is
        # known to nobody else.
        for task in tasks.values():
            task.cancel()
        results = await asyncio.gather(*tasks.values(), return_exceptions=True)
        await _close_all(result for result in results if isinstance(result, BaseDatabase))
        raise
    return {name: task.result() for name, task in tasks.items()}


async def _close_all(databases: Iterable[BaseDatabase], timeout: float | None = None) -> None:
    closing = [database.close(timeout) for database in databases]
    results = await asyncio.gather(*closing, return_exceptions=True)
    errors = [result for result in results if isinstance(result, Exception)]
    if errors:
        raise ExceptionGroup("closing failed", errors)


def get_connection(name: str = "default") -> TransactionContext:
    """Return the context of the current transaction of a database, wherever in the call tree.

    Args:
        name: As registered, else as the database was named when it was created.

    Raises:
        NoTransactionError: No transaction of that database is open here, or only that of a
            generator which is suspended while its reader runs.
        TransactionError: It was opened in another process or event loop.
    """
    database = DatabaseRegistry.get_all().get(name)
    # By the name they were given, too: a database need not be registered. The registered one goes
    # first, if both bear the name.
    pools = [level.pool for level in ambient.levels() if level.pool.name == name]
    pools += [pool for pool in ambient.bindings() if pool.name == name]
    if database is not None:
        pools.insert(0, database.pool)
    for pool in pools:
        level: Any = ambient.current(pool)
        if level is not None:
            assert isinstance(level.face, TransactionContext)
            return level.face
    for place in filter(None, map(ambient.suspended_at, pools)):
        raise NoTransactionError(
            f"the transaction of {name!r} that is open here belongs to the generator at {place}, "
            "which is suspended: its reader is outside it. Open a transaction of your own, or "
            "have the generator yield its context",
            database=name,
        )
    raise NoTransactionError(
        f"no transaction of {name!r} is open here: call this inside "
        f"`async with get_db({name!r}).transaction()` or a function under "
        f"`@transactional({name!r})`",
        database=name,
    )


def get_db(name: str = "default") -> BaseDatabase:
    """Return a registered database; see `DatabaseRegistry.get`."""
    return DatabaseRegistry.get(name)


# -- aiosql


def get_aiosql_adapter(db_type: str) -> str:
    """Return the adapter's name, for `aiosql.from_path(path, get_aiosql_adapter("sqlite"))`.

    Raises:
        BackendNotFoundError, BackendLoadError: As for opening such a database.
        DatabaseError: The backend has no adapter.
    """
    return _adapter(database_class(db_type))


def get_aiosql_adapter_for_db(name: str = "default") -> str:
    """Return the adapter's name for a registered database."""
    return _adapter(type(DatabaseRegistry.get(name)))


def load_queries(path: str | PathLike[str], name: str = "default", **options: Any) -> Any:
    """Read the queries of a file or folder with aiosql, for a registered database.

    A query runs where it is told to: `await get_queries().find_job(ctx.connection, id=7)`. What was
    loaded for this database before is replaced.

    Args:
        path: Of the file or folder.
        name: As registered.
        options: Further arguments of `aiosql.from_path`.

    Returns:
        aiosql's `Queries`, which `get_queries` returns from then on.

    Raises:
        DatabaseNotFoundError: The database is not registered.
        DatabaseError: It has no adapter, or aiosql is not installed.
    """
    database = DatabaseRegistry.get(name)
    adapter = _adapter(type(database))
    try:
        import aiosql
    except ImportError as error:
        raise DatabaseError("aiosql is missing: pip install 'jobu-db-core[aiosql]'") from error
    queries = _queries[database] = aiosql.from_path(os.fspath(path), adapter, **options)
    return queries


def get_queries(name: str = "default") -> Any:
    """Return what `load_queries` read for a registered database.

    Raises:
        DatabaseNotFoundError: The database is not registered.
        DatabaseError: Nothing was loaded for it.
    """
    database = DatabaseRegistry.get(name)
    try:
        return _queries[database]
    except KeyError:
        raise DatabaseError(
            f"no queries were loaded for it: call load_queries(path, {name!r}) first", database=name
        ) from None


_queries: WeakKeyDictionary[BaseDatabase, Any] = WeakKeyDictionary()


def _adapter(database: type[BaseDatabase]) -> str:
    if database.aiosql_adapter is None:
        raise DatabaseError(f"the backend for {database.db_type!r} has no aiosql adapter")
    return database.aiosql_adapter
