"""Every use of asyncpg's private attributes.

`tests/test_private.py` fails when asyncpg changes one of them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.connect_utils import _cancel as ask_to_cancel  # type: ignore[attr-defined]
from asyncpg.connection import _StatementCache  # type: ignore[attr-defined]
from asyncpg.cursor import Cursor
from asyncpg.transaction import Transaction

from jobu_db.driver import InlineTask
from jobu_db.errors import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DataError,
    ProgrammingError,
)
from jobu_db.settings import Address
from jobu_db_postgres import effects
from jobu_db_postgres.errors import ASYNCPG_STATEMENT, SERVER_IS_READ_ONLY, is_empty_answer
from jobu_db_postgres.owed import End
from jobu_db_postgres.roles import Role, role_of
from jobu_db_postgres.schema import Schema, Scope, Step
from jobu_db_postgres.transport import Begin, ConnectingLoop, Transport

if TYPE_CHECKING:
    AsyncpgConnection = asyncpg.Connection[asyncpg.Record]
else:
    AsyncpgConnection = asyncpg.Connection


_OUTDATED = (asyncpg.OutdatedSchemaCacheError, asyncpg.InvalidCachedStatementError)
"""What asyncpg knows of types or of the statement is not so any more."""


_LOCAL_COMMIT = "SyncRepWaitForLSN"
"""The function of the server that warns that no standby has what was committed."""

POSITION_MESSAGE = "jobu_db position "
"""How a message of ours begins that tells the position of a commit."""

_ONLY_LOCAL = (
    "the server committed, but the wait until a standby has it, too, was cancelled: whether it "
    "survives a failover is unknown"
)


class StatementCache(_StatementCache):  # type: ignore[misc]
    """Prepared statements, by their text and by what it depended on when they were prepared."""

    __slots__ = ("scope",)

    scope: Scope

    @classmethod
    def like(cls, other: Any) -> StatementCache:
        """Return an empty one with the limits of asyncpg's."""
        cache = cls(
            loop=other._loop,
            max_size=other._max_size,
            on_remove=other._on_remove,
            max_lifetime=other._max_lifetime,
        )
        cache.scope = None
        return cache

    def get(self, query: Any, *, promote: bool = True) -> Any:
        """Return the statement that was prepared in the present scope."""
        return super().get((query, self.scope), promote=promote)

    def put(self, query: Any, statement: Any) -> None:
        """Keep a statement that was prepared in the present scope."""
        super().put((query, self.scope), statement)

    def drop_unreachable(self) -> None:
        """Drop what can never be found again, because its scope ends."""
        if self.scope is None:
            return
        for key in [key for key in self._entries if type(key[1]) is object]:
            entry = self._entries.pop(key)
            self._clear_entry_callback(entry)
            self._on_remove(entry._statement)

    def holds(self, statement: Any) -> bool:
        """Say whether it is kept, in whatever scope."""
        return any(kept is statement for kept in self.iter_statements())


_LONGEST_REQUEST = 30.0
"""Seconds that a server may take to hear what it is to stop, once the connection is closed."""


class Connection(AsyncpgConnection):
    """asyncpg's connection, for use inside transactions that were begun by SQL text.

    Attributes:
        prepared_by_sql: A statement's text may hold a PREPARE: a reset must look for what it left.
        beyond_reset: Something was set that no reset can undo.
        without_cursors: It was reset, and no transaction has begun since.
        demoted_to: What its server has become, "standby" or "read-only", once it refused to write
            for that; None otherwise.
        writing: No read-only transaction of ours is open.
        began: A transaction of ours began, be it that its BEGIN is still to be sent, or that its
            answer has not been seen. asyncpg's own flag tells the rest.
        serializable: Transactions are, by default.
        isolation_set: The default may have been changed since the last reset.
        shown: Others see when the open transaction ends.
        flag_is_old: asyncpg's own flag tells of the transaction before, whose end is still to be
            sent, or of which no answer has been seen.
        uncertain: How many reasons there are to think that the open transaction may have failed,
            or that a call on it may be under way, or a portal open.
        has_handles: Prepared statements of its holder may be in use, whose cursors BEGIN must not
            travel with.
        in_doubt: What BEGIN travelled with was cut off: it is not known whether it was run.
        schema: What it shares with the other connections of its pool.
        role: What its server must be.
        altered: A statement may have changed what others return.
        stale: Statements that are closed on the server together with the reset under way.
        committed_locally: The server warned that no standby has what it committed.
        position_told: Where the last commit is in the log, as the server told it; else None.
        address: Where it was opened, or None if that was not by the driver.
        opened_at: When, in seconds on the monotonic clock.
        process: The id of the process that opened it.
    """

    __slots__ = (
        "_known_version",
        "address",
        "altered",
        "began",
        "beyond_reset",
        "committed_locally",
        "demoted_to",
        "flag_is_old",
        "has_handles",
        "in_doubt",
        "isolation_set",
        "opened_at",
        "position_told",
        "prepared_by_sql",
        "process",
        "role",
        "schema",
        "serializable",
        "shown",
        "stale",
        "uncertain",
        "without_cursors",
        "writing",
    )

    if TYPE_CHECKING:  # asyncpg's, and not in its public types
        _aborted: bool
        _addr: Any
        _cancellations: set[InlineTask]
        _listeners: dict[str, set[Any]]
        _log_listeners: set[Any]
        _loop: asyncio.AbstractEventLoop
        _params: Any
        _pool_release_ctr: int
        _protocol: Any
        _query_loggers: set[Any]
        _stmt_cache: StatementCache
        _stmts_to_close: set[Any]
        _stmt_exclusive_section: AbstractContextManager[None]
        _top_xact: Transaction | None
        _transport: Transport

        def _drop_local_statement_cache(self) -> None: ...
        def _drop_local_type_cache(self) -> None: ...
        async def _execute(self, query: str, *args: Any, return_status: bool) -> Any: ...

    def __init__(self, protocol: Any, transport: Any, loop: Any, *rest: Any) -> None:
        if isinstance(loop, ConnectingLoop):
            loop = loop.loop
        super().__init__(protocol, transport, loop, *rest)
        self.began = False
        self.in_doubt = False
        self.flag_is_old = False
        self.uncertain = 0
        self.has_handles = False
        self.serializable = False
        self.isolation_set = False
        self.shown = False
        self.prepared_by_sql = False
        self.beyond_reset = False
        self.without_cursors = False
        self.writing = True
        self.demoted_to: str | None = None
        self.schema = Schema()
        self.role = Role("any", {})
        self.altered = False
        self.stale: tuple[Any, ...] = ()
        self.committed_locally = False
        self.position_told: str | None = None
        self.address: Address | None = None
        self.opened_at = monotonic()
        self.process = os.getpid()
        self._known_version = self.schema.version
        # Empty still, so that nothing is lost by replacing it; asyncpg reads and writes it by this
        # name.
        self._stmt_cache = StatementCache.like(self._stmt_cache)

    def join(self, schema: Schema, role: Role) -> None:
        """Become one of a pool's."""
        self.schema, self.role = schema, role
        self._known_version = schema.version

    # -- a transaction whose BEGIN travels with what is sent first

    def begin_later(self, begin: Begin) -> None:
        """Have BEGIN travel with what is sent first."""
        # asyncpg knows of no transaction until the answer: from here to there, `began` tells.
        self.began, self.shown, self.uncertain = True, False, 0
        self._transport.send_first(begin)

    def begin_behind(self, end: End, begin: Begin) -> None:
        """Have the end of a transaction travel with BEGIN, or alone where nothing follows now."""
        self.began, self.shown, self.uncertain, self.flag_is_old = True, False, 0, True
        self._transport.send_first_behind(end, begin)
        self._loop.call_soon(self._transport.send_end)

    @property
    def may_owe_end(self) -> bool:
        """True if the open transaction is sound, and nothing of it or of its holder is left but
        what COMMIT and the reset's own statements end."""
        return (
            self.is_in_transaction_for_certain()
            and not (self.began or self.in_doubt or self.uncertain or self.has_handles)
            and not (self.prepared_by_sql or self.beyond_reset or self.committed_locally)
            and not (self._listeners or self._log_listeners or self._stmts_to_close)
            and self._stmt_cache.scope is None
        )

    async def end_owed(self) -> None:
        """Nothing will be sent behind the end that is owed, or was sent alone: see that it came
        through."""
        if self.flag_is_old:
            self._transport.drop_begin()
            try:
                await self.command("SELECT")
            except Exception as error:
                self._refuse_end()
                raise ConnectionLostError("the connection was lost", sent=False) from error
            self.flag_is_old = False

    def _refuse_end(self) -> None:
        """Raise if the end of the transaction before failed, so that nothing else was run."""
        lost = self._transport.holds and self.is_closed()
        why = self._transport.end_error or ("the connection was lost" if lost else "")
        if why:
            raise ConnectionLostError(
                f"the transaction before could not be ended: {why}; nothing else was run",
                sent=False,
            )

    async def begin_now(self) -> None:
        """Send the BEGIN alone. If it fails, the connection is terminated."""
        try:
            await self.command("")
        except Exception:
            self._refuse_end()
            if not self.is_in_transaction_for_certain():
                self.terminate()
            raise
        self.began = self.flag_is_old = False

    def ended(self) -> None:
        """The transaction is over, or nothing of it was sent."""
        self.began = self.in_doubt = self.shown = False
        unsent = self._transport.drop_begin()
        if self._transport.end is not None:
            self._transport.end = None
            self.flag_is_old = False  # the one before is open, and its end to be sent
        elif not unsent:
            self.flag_is_old = False

    @property
    def begin_is_unsent(self) -> bool:
        """True from `begin_later` until something is sent."""
        return self._transport.begin is not None

    @property
    def touched(self) -> bool:
        """True if anything was sent, or set here, since `settle`."""
        beyond = self.beyond_reset or self._listeners or self._log_listeners
        return self._transport.touched or bool(beyond)

    def settle(self) -> None:
        """All is as it was at the beginning."""
        self.isolation_set = False
        self._transport.watch()

    @property
    def may_be_serializable(self) -> bool:
        """True unless transactions that do not say so themselves are certainly not."""
        return self.serializable or self.isolation_set

    def is_in_transaction(self) -> bool:
        """Say whether a transaction is open, or will be as soon as something is sent."""
        return self.began or self._protocol.is_in_transaction()

    def is_in_live_transaction(self) -> bool:
        """Say whether a transaction is open, and the connection too.

        Asked after each statement: what `is_closed` and the method above ask in four calls.
        """
        protocol = self._protocol  # None once it was terminated
        return (
            protocol is not None
            and (self.began or protocol.is_in_transaction())
            and protocol.is_connected()
            and not self._aborted
        )

    def is_in_transaction_for_certain(self) -> bool:
        """Say whether the server said last that one is open."""
        return not self.flag_is_old and bool(self._protocol.is_in_transaction())

    @property
    def _has_no_answer(self) -> bool:
        """True if BEGIN was sent, and asyncpg knows of no transaction: it is yet to be told of this
        one, or that is over."""
        sent = self.began and not self.begin_is_unsent
        return sent and not self.is_in_transaction_for_certain()

    def _confirm(self) -> None:
        """What was sent with a Sync came through: asyncpg's flag is right from here on."""
        if self._transport.begin is None:
            self.began = self.flag_is_old = False

    async def take_stock(self, error: BaseException) -> None:
        """See what became of the BEGIN that may have travelled with what failed.

        There must be a transaction afterwards, if a failed one, or none that can be used: what
        its holder sends next would commit by itself. A syntax error in a text keeps all of the
        text from being run, BEGIN included, and so does a failure of BEGIN.
        """
        if isinstance(error, Exception):  # what was cancelled is not to be tried elsewhere
            self._refuse_end()
        if not self.began or self._transport.begin is not None or self.is_closed():
            return
        if isinstance(error, asyncpg.PostgresError):
            self.flag_is_old = False
        if self.is_in_transaction_for_certain():
            self.began = False
        elif not isinstance(error, Exception):
            self.in_doubt = True
        else:
            await self._fail_transaction()

    async def make_sure(self) -> None:
        """Ask the server about a BEGIN that was cut off, or of which asyncpg tells nothing."""
        if self.in_doubt:
            await self._fail_transaction()
        elif self._has_no_answer:
            await self._be_told()
            self.began = False

    async def _be_told(self) -> None:
        """Have the server say whether a transaction is open: asyncpg prepares without a Sync."""
        with suppress(asyncpg.InFailedSQLTransactionError):
            await self.command("SELECT")
        self.flag_is_old = False

    async def _fail_transaction(self) -> None:
        self.in_doubt = True  # and so it stays if this is cut off
        try:
            await self._be_told()
            if not (self.is_in_transaction_for_certain() or self.is_closed()):
                await self.command("BEGIN;SELECT 1/0")
        except asyncpg.DivisionByZeroError:
            pass
        except asyncpg.PostgresError:
            self.terminate()
        except asyncpg.InterfaceError:  # another statement is under way, by which this one failed
            self.in_doubt = False
            raise
        self.began = self.in_doubt = False

    def _check_open(self) -> None:
        super()._check_open()  # type: ignore[misc]
        if self.in_doubt and not self.is_in_transaction_for_certain():
            raise asyncpg.InterfaceError(
                "a statement was cut off while the transaction began: leave its block"
            )

    def transaction(self, **options: Any) -> Transaction:
        """Return a transaction, or a savepoint if a transaction is open, however it began.

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

        Cancelled while it still sends, asyncpg forgets the cancellation and waits endlessly for an
        answer to what it never finished asking. Such a connection is terminated here. The
        `executemany` of a prepared statement takes another way and is not helped.
        """
        self.uncertain += 1
        feed = _Feed(args)
        work = super()._executemany(query, feed.rows(), *rest, **options)  # type: ignore[misc]
        task = asyncio.get_running_loop().create_task(work)
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            if feed.sending:
                self.terminate()
            task.cancel()
            task.add_done_callback(_retrieve)
            await asyncio.wait({task})
            raise
        except Exception as error:
            self._refuse_end()
            self.heed(error)
            if feed.sent and self.is_in_transaction() and not self.is_closed():
                # A row that does not encode behind some that were sent: those count, unless the
                # transaction fails, as it does where the server refuses a row.
                with suppress(asyncpg.DivisionByZeroError, asyncpg.InFailedSQLTransactionError):
                    await self.command("SELECT 1/0")
            raise
        self.uncertain -= 1
        return result

    def command(self, text: str) -> Coroutine[Any, Any, str]:
        """Run SQL that is our own: nothing to note, and not for query loggers to hear.

        Of what became of a BEGIN that travelled with it, the caller takes stock.
        """
        super()._check_open()  # type: ignore[misc]
        work: Coroutine[Any, Any, str] = self._protocol.query(text, None)
        if self._protocol._is_cancelling() and asyncio.current_task() is None:
            # asyncpg waits for the end of that with a time limit, for which it needs a task.
            return _in_a_task(work)
        return work

    def _cancel_current_command(self, sent: asyncio.Future[None], *_: Any) -> None:
        """Have the server told to stop what it does. Called by asyncpg, which waits for `sent`.

        asyncpg's own makes a task. A program that ends cancels all tasks: one that had not begun
        yet would never say that nothing was sent, and what waits for that would never go on.

        In a forked child nothing is to be stopped: it runs on for the parent.
        """
        if self.process != os.getpid() or self._transport.holds:
            self.terminate()
            return
        try:
            task = InlineTask(self._ask_to_cancel(sent), self._cancellations.discard)
            self._cancellations.add(task)
            self._loop.call_soon(task.step)  # asyncpg is not ready yet for what may come of it
        except BaseException:
            self.terminate()  # Ctrl-C struck: whether the server will be told is unknown
            raise

    def _clean_tasks(self) -> None:
        # What is to be stopped on the server is stopped, also where this connection is closed.
        if not self._loop.is_closed():
            for task in self._cancellations:
                self._loop.call_later(_LONGEST_REQUEST, task.cancel)
        self._cancellations.clear()

    async def _ask_to_cancel(self, sent: asyncio.Future[None]) -> None:
        try:
            with suppress(ConnectionResetError):  # how some servers say that they have heard
                await ask_to_cancel(
                    loop=self._loop,
                    addr=self._addr,
                    params=self._params,
                    backend_pid=self._protocol.backend_pid,
                    backend_secret=self._protocol.backend_secret,
                )
        except BaseException as error:
            if not self.is_closed():
                self.terminate()  # whether the server was told is unknown
            if not isinstance(error, (Exception, asyncio.CancelledError)):
                raise
        finally:
            if not sent.done():
                sent.set_result(None)

    async def order(self, text: str) -> str:
        """Run SQL that is our own, and with which a BEGIN may travel."""
        try:
            status = await self.command(text)
        except BaseException as error:
            await self.take_stock(error)
            raise
        self._confirm()
        return status

    async def run(
        self, query: str, args: Sequence[Any], limit: int = 0, return_status: bool = False
    ) -> Any:
        """Do what asyncpg's fetches do, and its `execute` with arguments.

        A statement in the cache needs little of what asyncpg does before it sends it.
        """
        try:
            result = await self._run(query, args, limit, return_status)
        except BaseException as error:
            self.uncertain += 1
            if self.began:
                await self.take_stock(error)
            raise
        self.began = self.flag_is_old = False
        if self.committed_locally:
            self.refuse_local_commit()
        return result

    async def _run(self, query: str, args: Sequence[Any], limit: int, return_status: bool) -> Any:
        self._check_open()
        if type(query) is not str:
            query = _exact_text(query)
        self._note(query, args)  # first, for it may empty the cache
        statement = self._stmt_cache.get((query, asyncpg.Record, False))
        try:
            if statement is None or self._query_loggers:
                result = await self._execute(query, args, limit, None, return_status=return_status)
            else:
                with self._stmt_exclusive_section:
                    try:
                        result = await self._protocol.bind_execute(
                            statement, args, "", limit, return_status, None
                        )
                    except _OUTDATED as error:
                        result = await self._recover(error, query, args, limit, return_status)
        except asyncpg.PostgresError as error:
            if not self.heed(error) or statement is None or self.is_in_transaction():
                raise
            result = await self._execute(query, args, limit, None, return_status=return_status)
        return result

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

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run a statement, or several without arguments, and return the status of the last.

        It is "" where there is nothing to run but comments.
        """
        if type(query) is not str:
            query = _exact_text(query)
        self._note(query, args)
        _refuse_what_cannot_be_sent(query)
        if not args and self.begin_is_unsent and effects.must_go_alone(query):
            self._check_open()
            await self.begin_now()
        begin = None if args else self._transport.begin
        self.uncertain += 1
        try:
            status: str = await super().execute(query, *args, timeout=timeout)
        except BaseException as error:
            if isinstance(error, Exception):
                self.heed(error)
                if is_empty_answer(error):
                    self.uncertain -= 1
                    return ""
            await self._failed_text(error, begin)
            raise
        self.uncertain -= 1
        self._confirm()
        if self.committed_locally:
            self.refuse_local_commit()
        return status

    async def _failed_text(self, error: BaseException, begin: Begin | None) -> None:
        """A text failed, at the beginning of which this BEGIN may have stood."""
        ahead = 0 if begin is None or self.begin_is_unsent else len(begin.text)
        if ahead and isinstance(error, asyncpg.PostgresError) and error.position is not None:
            error.position = str(int(error.position) - ahead)
        await self.take_stock(error)

    async def _copy_in(self, copy_stmt: str, *args: Any) -> Any:
        return await self._copy(super()._copy_in(copy_stmt, *args))  # type: ignore[misc]

    async def _copy_out(self, copy_stmt: str, *args: Any) -> Any:
        return await self._copy(super()._copy_out(copy_stmt, *args))  # type: ignore[misc]

    async def _copy(self, copying: Coroutine[Any, Any, Any]) -> Any:
        begin = self._transport.begin
        self.uncertain += 1
        try:
            result = await copying
        except BaseException as error:
            await self._failed_text(error, begin)
            raise
        self.uncertain -= 1
        self._confirm()
        return result

    async def _do_execute(self, *args: Any, **options: Any) -> Any:
        self.uncertain += 1
        try:
            result = await super()._do_execute(*args, **options)  # type: ignore[misc]
        except BaseException as error:
            if self.began:
                await self.take_stock(error)
            raise
        if self._has_no_answer:
            await self._be_told()  # there were no rows
        self.uncertain -= 1
        self._confirm()
        return result

    async def _prepare(self, query: str, **options: Any) -> Any:
        self.has_handles = True
        return await super()._prepare(query, **options)  # type: ignore[misc]

    async def _get_statement(
        self, query: str, timeout: float | None, *, named: str | bool | None = False, **options: Any
    ) -> Any:
        query = _exact_text(query)
        self.uncertain += bool(named)  # for a portal, or a statement in its holder's hands
        self._note(query, None)
        _refuse_what_cannot_be_sent(query)
        try:
            statement = await super()._get_statement(  # type: ignore[misc]
                query, timeout, named=named, **options
            )
        except BaseException as error:
            self.uncertain += 1
            if self.began:
                await self.take_stock(error)
            raise
        if named and self.begin_is_unsent:
            # asyncpg had it in its cache. What comes next may be a portal of some rows, and to it
            # the answer to BEGIN would look like the end of them.
            await self.begin_now()
        return statement

    def _note(self, query: str, args: Sequence[Any] | None) -> None:
        """Look at a statement before it is sent, once or twice; `args` are None if unknown."""
        if self.schema.version != self._known_version:
            self._learn_anew()
        told = effects.effects_of(query)
        if told is None:
            return
        if told.waits_for_client:
            raise ProgrammingError(effects.COPY_REFUSED)
        if told.forgets_statements:
            # asyncpg would go on using its own, for everybody who gets this connection.
            self._forget_statements()
        if told.scope is not None:
            self._change_scope(told.scope, query, args)
        self.prepared_by_sql |= told.prepares
        self.altered |= told.alters
        self.isolation_set |= told.isolates
        self.shown |= told.shows

    # -- what texts mean

    def _change_scope(self, change: effects.Scope, query: str, args: Sequence[Any] | None) -> None:
        cache = self._stmt_cache
        scope = cache.scope
        if change is effects.Scope.ENDED:
            if scope is not None:
                cache.scope = object()
            return
        if change is effects.Scope.NEW:
            self._drop_local_type_cache()
            cache.scope = object()
            return
        steps: tuple[Step, ...] = () if scope is None else scope if type(scope) is tuple else ()
        if steps and steps[-1][0] == query and args is None:
            return  # noted already
        unknown = args is None or any(type(arg) is not str for arg in args)
        if unknown or (scope is not None and not steps):
            cache.scope = object()
        else:
            cache.scope = (*steps, (query, tuple(args or ())))

    def end_scope(self) -> None:
        """A transaction or savepoint is over: what it changed may be as it was before, or not."""
        if self._stmt_cache.scope is not None:
            self._stmt_cache.scope = object()
        self._tell_others()

    def leave_scope(self) -> None:
        """All is as after a reset, and the stale statements are closed on the server."""
        self._stmt_cache.scope = None
        self._stmts_to_close.difference_update(self.stale)
        self.stale = ()
        self._tell_others()

    def take_stale(self) -> list[str]:
        """Name the statements that are of no use any more, to be closed with a reset.

        asyncpg would close each of them in another round trip.
        """
        self._stmt_cache.drop_unreachable()
        self.stale = tuple(self._stmts_to_close)
        return [statement.name for statement in self.stale]

    def _tell_others(self) -> None:
        if self.altered:
            self.altered = False
            self.schema.changed()

    def _learn_anew(self) -> None:
        self._known_version = self.schema.version
        self._drop_local_statement_cache()
        self._drop_local_type_cache()

    def _forget_statements(self) -> None:
        """The server knows them no more."""
        self._drop_local_statement_cache()
        self._stmts_to_close.clear()
        self._transport.forget_statements()

    def _drop_global_statement_cache(self) -> None:
        """Called by asyncpg when the server, or a type, tells that something has changed."""
        self.schema.changed()
        self._drop_local_statement_cache()

    def _maybe_gc_stmt(self, stmt: Any) -> None:
        # asyncpg's own asks the cache for the text, which may be there in another scope.
        if stmt.refs == 0 and stmt.name and not self._stmt_cache.holds(stmt):
            stmt.mark_closed()
            self._stmts_to_close.add(stmt)

    # -- what the server tells

    def heed(self, error: Exception) -> bool:
        """Note what an error tells of the connection; True if statements were forgotten."""
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            if self.writing and self.role.has_lost_writes(self.get_settings()):
                setattr(error, SERVER_IS_READ_ONLY, True)
                self.demoted_to = role_of(self.get_settings())
                self.terminate()
            return False
        forgotten = isinstance(error, asyncpg.InvalidSQLStatementNameError)
        if forgotten and ASYNCPG_STATEMENT in str(error):
            self._forget_statements()
            return True
        return False

    def _process_log_message(self, fields: Mapping[str, str], last_query: str) -> None:
        message = fields.get("M", "")
        if message.startswith(POSITION_MESSAGE):
            self.position_told = message.removeprefix(POSITION_MESSAGE)
            return
        self.committed_locally |= fields.get("R") == _LOCAL_COMMIT
        super()._process_log_message(fields, last_query)  # type: ignore[misc]

    def refuse_local_commit(self) -> None:
        """Raise if the last commit may not survive the server."""
        if self.committed_locally:
            self.committed_locally = False
            raise CommitOutcomeUnknownError(_ONLY_LOCAL, code="01000")


def _exact_text(query: Any) -> str:
    """Return the text of any kind of str: asyncpg takes no subclasses."""
    if isinstance(query, str):
        return str.__str__(query)
    raise ProgrammingError(f"the SQL must be a str, not a {type(query).__name__}")


def _refuse_what_cannot_be_sent(query: str) -> None:
    """Raise before asyncpg would close the connection over it, or the server would."""
    if "\0" in query:
        raise DataError("the SQL holds a NUL character, which PostgreSQL does not accept")
    if not query.isascii():
        try:
            query.encode()
        except UnicodeEncodeError:
            # Not as the cause: it holds all of the SQL.
            raise DataError("the SQL holds a lone surrogate, which is not a character") from None


class _Feed:
    """Hands rows to asyncpg.

    Attributes:
        sending: asyncpg wants more.
        sent: It had sent some when it took the last one. It takes as many as it will send at
            once, then lets the event loop turn.
    """

    def __init__(self, rows: Iterable[Sequence[Any]]) -> None:
        self._rows = rows
        self._turned = False
        self.sending = False
        self.sent = False

    def rows(self) -> Iterator[Sequence[Any]]:
        return chain(self._begin(), self._each(), self._end())

    def _begin(self) -> Iterator[Sequence[Any]]:
        self.sending = True
        asyncio.get_running_loop().call_soon(self._turn)
        yield from ()

    def _each(self) -> Iterator[Sequence[Any]]:
        for row in self._rows:
            self.sent = self._turned
            yield row

    def _end(self) -> Iterator[Sequence[Any]]:
        self.sending = False
        yield from ()

    def _turn(self) -> None:
        self._turned = True


async def _in_a_task(work: Coroutine[Any, Any, str]) -> str:
    return await asyncio.get_running_loop().create_task(work)


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


class _Outer(Transaction):
    """Stands for a transaction that was begun by SQL text."""

    __slots__ = ()


def socket_of(connection: Connection) -> socket.socket | None:
    """Return the socket of an open connection, or None."""
    peer: socket.socket | None = connection._transport.get_extra_info("socket")
    return peer


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
    connection.has_handles = False


def forget_callbacks(connection: Connection) -> None:
    """Forget notification and log listeners, as asyncpg's own reset does."""
    connection._listeners.clear()
    connection._log_listeners.clear()


def close_cursor(cursor: Cursor[asyncpg.Record]) -> Awaitable[None]:
    """Close the cursor's portal on the server, unread rows included."""
    return cursor._close_portal(None)  # type: ignore[attr-defined,no-any-return]
