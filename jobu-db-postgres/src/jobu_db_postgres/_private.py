"""Every use of asyncpg's private attributes.

`tests/test_private.py` fails when asyncpg changes one of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.cursor import Cursor
from asyncpg.transaction import Transaction

from jobu_db_postgres.effects import COPY_REFUSED, effects_of

if TYPE_CHECKING:
    AsyncpgConnection = asyncpg.Connection[asyncpg.Record]
else:
    AsyncpgConnection = asyncpg.Connection


LONGEST_SILENCE = 60
"""Seconds: about as long as a network needs to find another way."""

_PROBES = {
    "TCP_KEEPIDLE": LONGEST_SILENCE // 2,
    "TCP_KEEPINTVL": LONGEST_SILENCE // 6,
    "TCP_KEEPCNT": 3,
}
"""Ask after half of that time, three times.

Not TCP_USER_TIMEOUT: it would also end a COPY whose rows wait for a server that waits for a lock.
"""


_OUTDATED = (asyncpg.OutdatedSchemaCacheError, asyncpg.InvalidCachedStatementError)
"""What asyncpg knows of types or of the statement is not so any more."""


class Connection(AsyncpgConnection):
    """asyncpg's connection, for use inside transactions that were begun by SQL text.

    Attributes:
        prepared_by_sql: A statement's text may hold a PREPARE: a reset must look for what it left.
        beyond_reset: Something was set that no reset can undo.
        without_cursors: It was reset, and no transaction has begun since.
    """

    __slots__ = ("beyond_reset", "prepared_by_sql", "without_cursors")

    if TYPE_CHECKING:  # asyncpg's, and not in its public types
        _listeners: dict[str, set[Any]]
        _log_listeners: set[Any]
        _pool_release_ctr: int
        _protocol: Any
        _query_loggers: set[Any]
        _stmt_cache: Any
        _stmt_exclusive_section: AbstractContextManager[None]
        _top_xact: Transaction | None
        _transport: asyncio.BaseTransport

        def _check_open(self) -> None: ...
        async def _do_execute(self, query: str, executor: Any, timeout: None) -> Any: ...
        def _drop_local_statement_cache(self) -> None: ...
        async def _execute(self, query: str, *args: Any, return_status: bool) -> Any: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepared_by_sql = False
        self.beyond_reset = False
        self.without_cursors = False

    def transaction(self, **options: Any) -> Transaction:
        """Return a transaction, or a savepoint if a transaction is open, whoever began it.

        asyncpg alone refuses to nest inside a BEGIN sent as text. It nests where `_top_xact` is
        set, so a transaction object that is never started stands for the outer one.
        """
        if not self.is_in_transaction():
            if isinstance(self._top_xact, _Outer):
                self._top_xact = None
        elif self._top_xact is None:
            self._top_xact = _Outer(self, None, False, False)
        return super().transaction(**options)

    async def _executemany(
        self, query: str, args: Iterable[Sequence[Any]], *rest: Any, **options: Any
    ) -> Any:
        """Do the work of `executemany` and `fetchmany`.

        Cancelled while it still sends, asyncpg forgets the cancellation and waits for ever for an
        answer to what it never finished asking. Such a connection is given up here. The
        `executemany` of a prepared statement takes another way and is not helped.
        """
        feed = _Feed(args)
        work = super()._executemany(query, feed.rows(), *rest, **options)  # type: ignore[misc]
        task = asyncio.get_running_loop().create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if feed.sending:
                self.terminate()
            task.cancel()
            task.add_done_callback(_retrieve)
            await asyncio.wait({task})
            raise

    def command(self, text: str) -> Coroutine[Any, Any, str]:
        """Run SQL that is our own: nothing to note, and not for query loggers to hear."""
        self._check_open()
        work: Coroutine[Any, Any, str] = self._protocol.query(text, None)
        if self._protocol._is_cancelling():
            # asyncpg waits for the end of that with a time limit, for which it needs a task.
            return _in_a_task(work)
        return work

    async def run(
        self, query: str, args: Sequence[Any], limit: int = 0, return_status: bool = False
    ) -> Any:
        """Do what asyncpg's fetches do, and its `execute` with arguments.

        A statement in the cache needs little of what asyncpg does before it sends it.
        """
        self._check_open()
        self._note(query)  # first, for it may empty the cache
        statement = self._stmt_cache.get((query, asyncpg.Record, False))
        if statement is None or self._query_loggers:
            return await self._execute(query, args, limit, None, return_status=return_status)
        with self._stmt_exclusive_section:
            try:
                return await self._protocol.bind_execute(
                    statement, args, "", limit, return_status, None
                )
            except _OUTDATED as error:
                return await self._recover(error, query, args, limit, return_status)

    async def _recover(
        self, error: Exception, query: str, args: Sequence[Any], limit: int, return_status: bool
    ) -> Any:
        """Have asyncpg forget what is outdated, and try again where it would."""
        errors = [error]

        def execute(statement: Any, timeout: None) -> Coroutine[Any, Any, Any]:
            if errors:
                raise errors.pop()
            return self._protocol.bind_execute(  # type: ignore[no-any-return]
                statement, args, "", limit, return_status, timeout
            )

        result, _ = await self._do_execute(query, execute, None)
        return result

    # Every other statement passes through one of these two.

    def execute(
        self, query: str, *args: Any, timeout: float | None = None
    ) -> Coroutine[Any, Any, str]:
        """Run a statement, or several without arguments, and return the status of the last."""
        self._note(query)
        return super().execute(query, *args, timeout=timeout)

    def _get_statement(self, query: str, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        self._note(query)
        return super()._get_statement(query, *args, **kwargs)  # type: ignore[misc,no-any-return]

    def _note(self, query: str) -> None:
        effects = effects_of(query)
        if effects is None:
            return
        if effects.waits_for_client:
            raise asyncpg.InterfaceError(COPY_REFUSED)
        if effects.forgets_statements:
            # asyncpg would go on using its own, for everybody who gets this connection.
            self._drop_local_statement_cache()
        self.prepared_by_sql |= effects.prepares


class _Feed:
    """Hands rows to asyncpg, and knows whether it wants more."""

    def __init__(self, rows: Iterable[Sequence[Any]]) -> None:
        self._rows = rows
        self.sending = False

    def rows(self) -> Iterator[Sequence[Any]]:
        return chain(self._note(sending=True), self._rows, self._note(sending=False))

    def _note(self, *, sending: bool) -> Iterator[Sequence[Any]]:
        self.sending = sending
        yield from ()


async def _in_a_task(work: Coroutine[Any, Any, str]) -> str:
    return await asyncio.get_running_loop().create_task(work)


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


class _Outer(Transaction):
    """Stands for a transaction that was begun by SQL text."""

    __slots__ = ()


def notice_silence(connection: Connection) -> None:
    """Have the operating system end the connection if it hears nothing while we wait.

    Where a machine or the network vanishes without a word, a statement would be waited for as
    long as its caller cares to, which may be for ever.
    """
    peer = connection._transport.get_extra_info("socket")
    if peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):  # not every system has all of them
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def encryption(connection: Connection) -> str | None:
    """Return protocol and cipher of the connection, None if it is not encrypted."""
    tls = connection._transport.get_extra_info("ssl_object")
    return None if tls is None else f"{tls.version()} {tls.cipher()[0]}"


def end_handles(connection: Connection) -> None:
    """Make cursors, prepared statements and transaction objects of this connection raise.

    They compare this counter, which asyncpg's pool raises at every release.
    """
    connection._pool_release_ctr += 1
    connection._top_xact = None


def forget_callbacks(connection: Connection) -> None:
    """Forget notification and log listeners, as asyncpg's own reset does."""
    connection._listeners.clear()
    connection._log_listeners.clear()


def close_cursor(cursor: Cursor[asyncpg.Record]) -> Awaitable[None]:
    """Close the cursor's portal on the server, unread rows included."""
    return cursor._close_portal(None)  # type: ignore[attr-defined,no-any-return]
