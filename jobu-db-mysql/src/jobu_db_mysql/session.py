"""The connection that this backend hands out: asyncmy's, made safe to share and to lend on.

Invariants, which asyncmy leaves to its users:

1. Commands take turns.
2. Once the stream may be out of step the connection is not `alive`, and never used again.
3. `get_transaction_status()` is right, or `stale` says that it may not be.
4. No command cuts off the unread rows of an unbuffered cursor silently.
5. Without autocommit, nothing is sent in a transaction of ours while it is unknown whether that is
   still the same one: see `begun`.
"""

# asyncmy annotates little.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import tzinfo
from typing import Any, TypeVar

from asyncmy.constants.CR import CR_COMMANDS_OUT_OF_SYNC, CR_SERVER_GONE_ERROR
from asyncmy.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from asyncmy.errors import MySQLError, OperationalError

from jobu_db.errors import ProgrammingError, TransactionError
from jobu_db.placeholders import Dialect
from jobu_db.settings import Address
from jobu_db_mysql import errors, literals
from jobu_db_mysql._private import (
    AUTOCOMMIT_OFF,
    COMMIT,
    RELEASE_MARK,
    RESET,
    ROLLBACK,
    SESSION_CHANGED,
    SET_MARK,
    SEVERAL_OFF,
    SEVERAL_ON,
    Command,
    OpenConnection,
    Outcome,
    QuietCursor,
    to_query,
)
from jobu_db_mysql.begun import Begun
from jobu_db_mysql.commands import Noting, Turn, command, control, statement, unless_streaming
from jobu_db_mysql.implicit_commit import (
    commits_implicitly,
    may_end_unseen,
    sets_access,
    stays_inside,
    uses_savepoints,
)
from jobu_db_mysql.messages import Origin
from jobu_db_mysql.pipelining import Pipelining
from jobu_db_mysql.reading import (
    ASK,
    changed_variables,
    committed_gtids,
    dialect,
    is_safe,
    may_change_modes,
)

T = TypeVar("T")
logger = logging.getLogger("jobu_db")

_READING = SERVER_STATUS_IN_TRANS | 0x2000
"""In a transaction, and (asyncmy has no name for it) a read-only one."""

_NO_SUCH_SAVEPOINT = 1305


class MySQLConnection(OpenConnection):
    """One session.

    Attributes:
        address: Where it was to go.
        turn: Held while a command runs.
        broken: It is unknown where in the stream we are.
        stale: An error came last, and errors do not tell whether the transaction is still open.
        touched: A command was sent since the last reset.
        begun: The transaction that this library has begun, or None.
        readonly: The session's access mode, as far as this library has set it; None if a reader
            may have changed it.
        readonly_wanted: What it is to be from the next statement on.
        autocommit_wanted: What autocommit is to be from the next statement on; None to leave it.
        autocommit_lent: What a connection taken raw from the pool begins with.
        autocommit_held: Its holder decides whether statements commit by themselves.
        setup: Sets the session up after RESET.
        timezone: The session's, or None if it is not known for certain.
        origin: What runs, before parameters are written into it; None if that is not known.
        committed_by: First words of a statement that committed the open transaction, run by the
            driver's own methods or in a script; "" if none did.
        xid: Name of the XA transaction that is open or prepared on it, as SQL writes it, or "".
        prepared: That one is prepared: it is to be ended here, or the connection closed.
        pipelining: Whether commands may share a write; None for yes.
        is_to_write: Its server is wanted as one that takes writes.
        demoted: The server has said that it takes none any more, or is out of its cluster.
        gtids: Identifiers of what was committed since a transaction or a statement outside of one
            began, as far as it was told; nothing is, without `replicas`.
        gtids_dropped: They may be more, for some of what was told was dropped.
        limit: Called for each statement; what it returns limits its time. None for no limit.
        set_charset, kill: The driver's own methods; refused while rows are streamed.
    """

    server_status: int

    def __init__(self, address: Address, **options: Any) -> None:
        super().__init__(cursor_cls=QuietCursor, **options)
        self.address = address
        self.turn = Turn()
        self.broken = False
        self.stale = False
        self.touched = False
        self.begun: Begun | None = None
        self.readonly: bool | None = False
        self.readonly_wanted = False
        self.autocommit_wanted: bool | None = None
        self.autocommit_lent = True
        self.autocommit_held = False
        self.setup: Sequence[Command] = ()
        self._dialect: Dialect | None = None
        self.timezone: tzinfo | None = None
        self.origin: Origin | None = None
        self._next_origin: Origin | None = None
        self.committed_by = ""
        self.xid = ""
        self.prepared = False
        self.gtids: list[str] = []
        self.gtids_dropped = False
        self.pipelining: Pipelining | None = None
        self.is_to_write = True
        self.demoted = False
        self.limit: Callable[[], AbstractAsyncContextManager[Any]] | None = None

    @property
    def alive(self) -> bool:
        """False if the connection is known to be dead or of no use."""
        return self.open and not self.broken

    @property
    def is_mariadb(self) -> bool:
        """Which of the two products the server is."""
        return "MariaDB" in self.get_server_info()

    @property
    def dialect(self) -> Dialect:
        """How the session reads SQL.

        Raises:
            ProgrammingError: A statement may have changed that, and the server has not told how.
        """
        if self._dialect is None:
            raise ProgrammingError(
                "it is not known how this session reads SQL: after a statement that changes "
                "sql_mode or the character set, read all its results first"
            )
        return self._dialect

    @property
    def only_reads(self) -> bool:
        """True if a transaction is open which certainly has not written."""
        begun = self.begun
        if not self.alive or self.stale or self.streaming or (begun is not None and begun.marked):
            return False
        if self._server_has_opened:
            return self.server_status & _READING == _READING
        return bool(self.readonly) and self.get_transaction_status()

    # -- transactions

    def begin_with_next(self, *, readonly: bool, isolation: str | None) -> bool:
        """Begin with what is sent next; say whether that can be had.

        Args:
            isolation: The statement that sets the level, or None.
        """
        if self.autocommit_held or not self.pipelines or self.stale or self._server_has_opened:
            return False
        if super().get_autocommit() or not self.tells_status_behind_rows:
            return False
        self._begin(readonly, isolation)
        self.autocommit_wanted = None
        return True

    async def begin_now(
        self,
        *,
        readonly: bool = False,
        isolation: str | None = None,
        autocommit: bool = False,
        statement: str = "",
    ) -> None:
        """Begin, in one round trip.

        Args:
            isolation: As for `begin_with_next`.
            autocommit: What follows an implicit commit is to commit by itself.
            statement: Begins, in place of START TRANSACTION.
        """
        self._begin(readonly, isolation)
        if not self.autocommit_held:
            self.autocommit_wanted = autocommit or not self.pipelines
        if not statement:
            # Behind START TRANSACTION READ WRITE, MySQL would not take it from the session.
            statement = "START TRANSACTION READ ONLY" if readonly else "START TRANSACTION"
        await self._begin_now(statement)

    def _begin(self, readonly: bool, isolation: str | None) -> None:
        self.begun = Begun(isolation)
        self.committed_by = ""
        self.gtids, self.gtids_dropped = [], False
        # START TRANSACTION READ ONLY alone would let DDL through, and commit.
        self.readonly_wanted = readonly

    def hold(self) -> None:
        """Let autocommit be on, until the holder sets it otherwise."""
        self.autocommit_held = True
        self.autocommit_wanted = True

    def lend(self) -> None:
        """Be as whoever takes the connection raw from the pool is to find it."""
        self.begun = None
        self.readonly_wanted = False
        if not self.autocommit_held:
            self.autocommit_wanted = self.autocommit_lent

    def forget_unsent(self) -> bool:
        """Be between transactions again if nothing was sent in the one that was begun."""
        if self.begun is None or self.begun.sent:
            return False
        self.lend()
        return True

    @property
    def unattended(self) -> bool:
        """True outside transactions and sessions: a statement is to commit by itself there."""
        return self.begun is None and not self.autocommit_held

    @property
    def _server_has_opened(self) -> bool:
        return bool(self.server_status & SERVER_STATUS_IN_TRANS)

    def get_transaction_status(self) -> bool:
        """Say whether a transaction is open, as far as the server has told.

        One that this library has begun is open from its beginning.
        """
        begun = self.begun
        if begun is None:
            return self._server_has_opened
        return not begun.ended and (self._server_has_opened or not begun.opened)

    def get_autocommit(self) -> bool:
        """Say whether statements commit by themselves."""
        wanted = self.autocommit_wanted
        return bool(super().get_autocommit()) if wanted is None else wanted

    @unless_streaming
    async def autocommit(self, value: bool) -> None:
        """Set whether statements commit by themselves."""
        await self._be_told()  # asyncmy sends nothing if it is so already
        self.autocommit_wanted = None
        await super().autocommit(value)

    async def confirm(self) -> bool:
        """Say for certain whether the transaction is open, by asking where that is in doubt.

        While rows are unread nothing can be asked: then it is as the server said last.
        """
        if (self.stale or (self.begun is not None and self.begun.marked)) and not self.streaming:
            await self._confirm()
        return self.get_transaction_status()

    @control
    async def drop_unread(self) -> None:
        """Read and drop the unread rows of an unbuffered cursor, before its transaction ends."""
        await self.drain()

    @unless_streaming
    async def _confirm(self) -> None:
        await self._ask_for_transaction()

    @unless_streaming
    async def get_ready(self) -> None:
        """Do now what would be done ahead of a statement, for a prepared one: asyncmy sends it."""
        await self._be_told()
        await self._send_ahead("SELECT", alone=True)

    async def _be_told(self) -> None:
        """Ask what an error has not told, before a command whose answer does not tell it either."""
        if self.stale:
            await self._ask_for_transaction()

    async def _dispel_doubt(self) -> None:
        """Ask whether the transaction is still open, if what comes next could begin another."""
        begun = self.begun
        if begun is None:
            return
        self.refresh_status()  # it came behind the rows of asyncmy's own unbuffered cursor
        if self._server_has_opened:
            begun.opened = True
        doubtful = (self.stale or begun.marked) and not begun.ended
        if doubtful and not super().get_autocommit():
            await self._ask_for_transaction()

    async def _ask_for_transaction(self) -> None:
        if self.begun is not None and self.begun.marked:
            await self.send_all(RELEASE_MARK)
            await self._answer_to_release(self.begun)
        else:
            await super().ping(False)
        self._take_status()
        self.stale = False

    async def _answer_to_release(self, begun: Begun) -> None:
        try:
            await self.answer()
        except MySQLError as error:
            if errors.number(error) != _NO_SUCH_SAVEPOINT:
                raise
            begun.ended = True
        begun.marked = False

    def _take_status(self) -> None:
        self.refresh_status()
        if self.begun is not None:
            self.begun.told(is_open=self._server_has_opened)

    # -- what is sent ahead of a statement, and behind it

    def _owed(self, sql: str) -> list[str]:
        """Return what must run before `sql`."""
        owed = []
        wanted = self.autocommit_wanted
        if wanted is not None and wanted != super().get_autocommit():
            owed.append(f"SET autocommit = {wanted:d}")
        if self.readonly_wanted != self.readonly:
            access = "ONLY" if self.readonly_wanted else "WRITE"
            owed.append(f"SET SESSION TRANSACTION READ {access}")
        begun = self.begun
        if begun is not None and not begun.ended and not self._server_has_opened:
            if begun.isolation is not None:
                owed.append(begun.isolation)
            if begun.isolation is not None or not stays_inside(sql):
                owed.append("START TRANSACTION")
        return owed

    async def _send_ahead(self, sql: str, *, alone: bool = False) -> list[Command]:
        """Have run what must be answered before `sql` is sent; return what may share its write.

        Only a statement that stays within its transaction may be sent before it is certain that
        this is the one that was meant: until the COMMIT nothing of it takes effect.
        """
        await self._dispel_doubt()
        commands = list(map(self.to_run, self._owed(sql)))
        if commands and (alone or not self.pipelines or not stays_inside(sql)):
            try:
                await self.send_all(*commands)
                await self._answers_ahead(len(commands))
            except MySQLError as error:
                if errors.is_lost(error):
                    text = "the connection was lost before the statement was sent"
                    raise OperationalError(CR_SERVER_GONE_ERROR, text) from error
                raise
            commands = []
        self._note_access(sql)
        return commands

    def _note_access(self, sql: str) -> None:
        if self.begun is not None and self.readonly_wanted and sets_access(sql):
            self.readonly = None

    async def _answers_ahead(self, count: int, *, owed: bool = True) -> None:
        try:
            await self._answers(count)
        except BaseException:
            self.broken = True  # what is behind it runs in a session that is not as it should be
            raise
        if owed:
            self.autocommit_wanted = None
            self.readonly = self.readonly_wanted
        if self.begun is not None:
            self.begun.isolation = None
            if self._server_has_opened:
                self.begun.opened = True

    def _is_to_be_marked(self, sql: str) -> bool:
        begun = self.begun
        if begun is None or begun.ended or begun.marked or super().get_autocommit():
            return False
        return may_end_unseen(sql)

    def note_failure(self, error: BaseException) -> None:
        """Note what the error of a command means for the connection."""
        errors.note_origin(error, self.origin)
        self._note_demotion(error)
        self._note_refusal(error)
        if errors.from_server(error) and not errors.is_lost(error):
            self.stale = True
            if self.begun is not None and errors.undoes_all(error):
                self.begun.undone = True
        else:
            self.broken = True

    def _note_demotion(self, error: BaseException) -> None:
        if errors.leaves_its_cluster(error):
            self.demoted = True
        elif self.is_to_write and self.readonly is False and errors.refuses_writes(error):
            self.demoted = True
            errors.note_demoted(error)

    @property
    def pipelines(self) -> bool:
        """True if commands may share a write."""
        return self.pipelining is None or self.pipelining.allows(self.address)

    def _note_refusal(self, error: BaseException) -> None:
        unknown = errors.is_unknown_command(error) and self.shared_a_write
        if unknown and self.pipelining is not None:
            self.pipelining.refused(self.address)

    def note_success(self) -> None:
        """Note what the server said of the session at the end of a command."""
        self.stale = False
        self._take_status()
        self._take_told_changes()

    def _take_told_changes(self) -> None:
        if self.server_status & SESSION_CHANGED:
            self.server_status &= ~SESSION_CHANGED
            if changes := self.changes:
                self.take_changes(changes)
            elif changes is None:
                self.gtids_dropped = True

    # -- how the session reads SQL

    def take_changes(self, message: bytes) -> None:
        """Take note of what an answer says was changed in the session.

        Raises:
            ProgrammingError: In its character set text cannot be told from quotes; the connection
                is given up.
            OperationalError: The answer is mangled.
        """
        try:
            variables = changed_variables(message)
            gtids = committed_gtids(message)
        except (ValueError, LookupError) as error:
            self.broken = True
            raise OperationalError(CR_COMMANDS_OUT_OF_SYNC, "an answer is mangled") from error
        if gtids:
            self.gtids.append(gtids)
        if "sql_mode" in variables:
            self._dialect = dialect(variables["sql_mode"])
        if "time_zone" in variables:
            self.timezone = literals.zone(variables["time_zone"])
        self._check_charset(variables.get("character_set_client"))

    def _check_charset(self, charset: str | None) -> None:
        if charset is not None and not is_safe(charset):
            self.broken = True
            raise ProgrammingError(
                f"the session's character set was changed to {charset}, in which part of a "
                "character can be taken for a quote or backslash: the connection is closed; leave "
                "it as options.charset says"
            )

    async def _ask_modes(self) -> None:
        self._dialect = None
        self.timezone = None
        with errors.behind_an_answer():
            ((mode, charset, zone),) = await self.ask(ASK)
        self._dialect = dialect(mode)
        self.timezone = literals.zone(zone)
        self._check_charset(charset)

    async def _learn_modes(
        self, sql: str, error: MySQLError | None = None, *, untold: bool | None = None
    ) -> None:
        """Ask how the session reads SQL, if the server has not told what a statement changed."""
        if error is not None:
            untold = errors.from_server(error) and not errors.is_lost(error)
            untold = untold and may_change_modes(sql)
        elif untold is None:
            untold = self.changes is None
        if untold or (error is None and not self.tells_changes and may_change_modes(sql)):
            await self._ask_modes()

    # -- the commands of asyncmy

    async def query(self, sql: str | bytes, unbuffered: bool = False) -> Any:
        """Send one text and read its first result.

        Raises:
            DataError: It cannot be written in the connection's character set.
        """
        self._take_origin()
        if isinstance(sql, bytes):
            return await self._query(sql, sql.decode("latin-1"), unbuffered)
        return await self._query(self.encoded(sql), sql, unbuffered)

    @unless_streaming
    async def _query(self, sql: bytes, text: str, unbuffered: bool) -> Any:
        was_open = self.get_transaction_status()
        try:
            affected = await self.limited(self._query_in_place(sql, text, unbuffered))
        except MySQLError as error:
            if was_open:  # DDL commits even if it fails; errors do not tell
                self._note_commit(text)
            await self._learn_modes(text, error)
            raise
        self._take_status()
        if was_open and not self.get_transaction_status():
            self._note_commit(text)
        if not self.streaming and not self.has_next:
            await self._learn_modes(text)
        elif may_change_modes(text):
            self._dialect = None
        return affected

    async def _query_in_place(self, sql: bytes, text: str, unbuffered: bool) -> Any:
        along = await self._send_ahead(text)
        marked = self._is_to_be_marked(text)
        try:
            whole = to_query(sql)
        except OverflowError:
            if along:
                await self.send_all(*along)
                await self._answers_ahead(len(along))
            return await super().query(sql, unbuffered)
        if marked:
            await self.send_all(*along, SET_MARK, whole)
            await self._answers_ahead(len(along) + 1, owed=bool(along))
            assert self.begun is not None
            self.begun.marked = True  # its results are read bit by bit: it is asked later
        elif along:
            await self.send_all(*along, whole)
            await self._answers_ahead(len(along))
        else:
            return await super().query(sql, unbuffered)
        return await self.answer_with_rows(unbuffered)

    def _note_commit(self, sql: str) -> None:
        if commits_implicitly(sql) and not self.xid:  # XA refuses them: 1399
            self.committed_by = " ".join(sql.split()[:2])

    @command
    async def next_result(self, unbuffered: bool = False) -> Any:
        """Read the next result of the text sent last."""
        return await self.limited(super().next_result(unbuffered))

    async def limited(self, work: Awaitable[T]) -> T:
        """Await the work, within the time that a statement may take."""
        if self.limit is None:
            return await work
        async with self.limit():
            return await work

    @control
    async def commit(self) -> None:
        """Send COMMIT. Unread rows of an unbuffered cursor are read and dropped."""
        await self._end(COMMIT)
        await self.answer()
        if self.begun is not None:
            self.begun.ended = True

    @control
    async def rollback(self) -> None:
        """Send ROLLBACK. Unread rows of an unbuffered cursor are read and dropped."""
        await self._end(ROLLBACK)
        await self.answer()
        if self.begun is not None:
            self.begun.ended = True

    async def _end(self, *commands: Command) -> None:
        if self.streaming:
            try:
                await self.drain()
            except MySQLError as error:
                # An error of the server's has just ended the rows. What they came from may have
                # been meant to write, so that it must not be committed unseen.
                if not errors.from_server(error) or COMMIT in commands:
                    raise
        await self.send_all(*commands)

    async def ping(self, reconnect: bool = False) -> None:
        """Ask for a sign of life. Never reconnects: that would be another session."""
        touched, begun = self.touched, self.begun
        sent = begun is not None and begun.sent
        await self._ping()
        self.touched = touched
        if begun is not None:
            begun.sent = sent

    @unless_streaming
    async def _ping(self) -> None:
        await super().ping(False)

    @unless_streaming
    async def begin(self) -> None:
        """Send BEGIN."""
        await self._send_ahead("BEGIN")
        await super().begin()

    select_db = unless_streaming(OpenConnection.select_db)
    set_charset = unless_streaming(OpenConnection.set_charset)
    kill = unless_streaming(OpenConnection.kill)

    @unless_streaming
    async def show_warnings(self) -> Any:
        """Return the rows of SHOW WARNINGS."""
        return await self.ask("SHOW WARNINGS")  # asyncmy would drop what it tells of the session

    @unless_streaming
    async def prepare(self, query: str | bytes) -> Any:
        """Prepare a statement.

        Raises:
            ProgrammingError: It may change how the session reads SQL, or end the transaction, which
                would pass unnoticed.
        """
        sql = query if isinstance(query, str) else query.decode("latin-1")
        if may_change_modes(sql) or (self.begun is not None and not stays_inside(sql)):
            raise ProgrammingError(
                "prepare() takes SELECT, INSERT, UPDATE, DELETE and their kin: run this statement "
                "by a cursor"
            )
        await self._be_told()
        await self._send_ahead(sql, alone=True)
        return await super().prepare(query)

    # -- the commands of this library: one turn and one note for a whole text
    #
    # asyncmy alone would leave further results unread, and raise an error in one of them from the
    # next command.

    @statement
    async def run(self, sql: str, alone: bool = False) -> Outcome:
        """Run one statement, and return its first result.

        Args:
            alone: It is to commit by itself, whatever the session's holder finds.
        """
        return await self._run(sql, alone, self._read_outcome)

    async def _read_outcome(self) -> Outcome:
        outcome = self.outcome()
        if self.has_next:
            outcome = Outcome(*outcome[:4], dropped=await self.read_on())
        return outcome

    @statement
    async def run_dicts(self, sql: str, alone: bool = False) -> tuple[list[dict[str, Any]], int]:
        """Run one statement, and return the rows of its first result as dictionaries.

        Returns:
            Also how many results with rows came behind it, and were dropped.
        """
        return await self._run(sql, alone, self._read_dicts)

    async def _read_dicts(self) -> tuple[list[dict[str, Any]], int]:
        rows = await self.dicts()
        return rows, await self.read_on() if self.has_next else 0

    async def _run(self, sql: str, alone: bool, read: Callable[[], Awaitable[T]]) -> T:
        self._take_origin()
        behind: list[Command] = []
        if alone:
            # A COMMIT may share its write; what may begin or end a transaction wants autocommit.
            commits = self.pipelines and stays_inside(sql) and not super().get_autocommit()
            self.autocommit_wanted = None if commits else True
            if self.pipelines:
                behind = [COMMIT] if commits else [AUTOCOMMIT_OFF]
        try:
            along = await self._send_ahead(sql)
            if along or behind or self._is_to_be_marked(sql):
                return await self._run_among_others(along, sql, behind, read)
            try:
                await super().query(self.encoded(sql))
                result = await read()
            except MySQLError as error:
                await self._learn_modes(sql, error)
                raise
            await self._learn_modes(sql)
            return result
        finally:
            if alone:
                self.lend()

    async def _run_among_others(
        self,
        ahead: list[Command],
        sql: str,
        behind: list[Command],
        read: Callable[[], Awaitable[T]],
    ) -> T:
        """Run one statement with what is sent ahead of it, and behind it."""
        if marked := self._is_to_be_marked(sql):
            ahead, behind = [*ahead, SET_MARK], [RELEASE_MARK]
        try:
            await self.send_all(*ahead, self.to_run(sql), *behind)
            together = True
        except OverflowError:  # nothing was sent
            if ahead:
                await self.send_all(*ahead)
            together = False
        if ahead:
            await self._answers_ahead(len(ahead), owed=ahead != [SET_MARK])
        if marked and self.begun is not None:
            self.begun.marked = True
        try:
            if together:
                await self.answer_with_rows()
            else:
                await super().query(self.encoded(sql))
            result = await read()
        except MySQLError as error:
            if errors.from_server(error) and not errors.is_lost(error):
                await self._end_failed(behind, together)
            if self.alive:
                await self._learn_modes(sql, error)
            raise
        self._take_status()
        self._take_told_changes()
        untold = self.changes is None
        if behind:
            with errors.behind_an_answer():
                await self._answer_behind(behind, together)
            self.forget_result()
        await self._learn_modes(sql, untold=untold)
        return result

    async def _answer_behind(self, behind: list[Command], together: bool) -> None:
        if not together:
            await self.send_all(*behind)
        if behind == [RELEASE_MARK] and self.begun is not None:
            await self._answer_to_release(self.begun)
        else:
            await self.answer()

    async def _end_failed(self, behind: list[Command], together: bool) -> None:
        """Read what comes behind a statement that failed: it is the error to be raised."""
        try:
            if behind:
                await self._answer_behind(behind, together)
        except MySQLError:
            self.broken = True

    async def run_out(self) -> int:
        """Read what comes behind the rows of an unbuffered cursor, which is at their end.

        Returns:
            How many results with rows came there, and were dropped.
        """
        async with self.turn:
            with Noting(self):
                dropped = await self.read_on()
                if self._dialect is None:
                    await self._ask_modes()
        return dropped

    @statement
    async def run_all(self, sql: str, alike: bool = False) -> int:
        """Run a text of several statements, and return the affected rows of all of them.

        Only for this text the server takes several. At an error it leaves out the rest.

        Args:
            alike: All of them begin alike.
        """
        self._take_origin()
        was_open = self.get_transaction_status()
        inside = alike and stays_inside(sql)
        await self._send_ahead(sql if inside else "", alone=True)
        self._note_access(sql)
        begun = None if inside or uses_savepoints(sql) or super().get_autocommit() else self.begun
        ahead, behind = ([SET_MARK], [RELEASE_MARK]) if begun is not None else ([], [])
        try:
            commands = [*ahead, SEVERAL_ON, self.to_run(sql), SEVERAL_OFF, *behind]
        except OverflowError:
            return await self._run_large(sql)
        await self.send_all(*commands)
        if begun is not None:
            await self._answers_ahead(1, owed=False)
            begun.marked = True
        await self.answer_to_option()
        try:
            count = await self._read_all(await self.answer_with_rows())
        except MySQLError as error:
            if errors.from_server(error) and not errors.is_lost(error):
                await self.answer_to_option()
                if begun is not None:
                    await self._answer_to_release(begun)
                await self._ask_modes()
            raise
        with errors.behind_an_answer():
            await self.answer_to_option()
            if begun is not None:
                await self._answer_to_release(begun)
            if self._dialect is None:
                await self._ask_modes()
        if was_open and not self.get_transaction_status():
            self._note_commit(sql)
        return count

    async def _run_large(self, sql: str) -> int:
        """The same for a text of more than 16 MiB."""
        await self.send_all(SEVERAL_ON)
        await self.answer_to_option()
        try:
            count = await self._read_all(await super().query(self.encoded(sql)))
        finally:
            if self.alive:
                await self.send_all(SEVERAL_OFF)
                await self.answer_to_option()
                await self._ask_modes()
        return count

    async def _read_all(self, affected: int) -> int:
        """Read all results behind the first; what is changed by each is told with it."""
        while True:
            self._take_status()
            changes = self.changes
            if changes:
                self.take_changes(changes)
            elif changes is None or not self.tells_changes:
                self._dialect = None
            if not self.has_next:
                return affected
            affected += await super().next_result()

    @statement
    async def order(self, sql: Sequence[str]) -> None:
        """Run statements in one round trip, none of which has rows.

        They do not depend on each other: at an error the rest runs nevertheless. The first error
        is raised.
        """
        await self._dispel_doubt()
        owed = self._owed("")
        await self.send_all(*map(self.to_run, [*owed, *sql]))
        if owed:
            await self._answers_ahead(len(owed))
        await self._answers(len(sql))

    async def _answers(self, count: int) -> None:
        failure: MySQLError | None = None
        for _ in range(count):
            try:
                await self.answer()
            except MySQLError as error:
                if not errors.from_server(error):
                    raise
                failure = failure or error
        if failure is not None:
            raise failure

    @statement
    async def _begin_now(self, statement: str) -> None:
        begun, self.begun = self.begun, None
        assert begun is not None
        isolation = [] if begun.isolation is None else [begun.isolation]
        owed = [*self._owed(statement), *isolation, statement]
        self.begun = begun
        await self.send_all(*map(self.to_run, owed))
        await self._answers_ahead(len(owed))

    # -- resetting

    @control
    async def reset(self) -> None:
        """Make the session what it was after login, and set it up; also roll back.

        Raises:
            TransactionError: A prepared XA transaction is attached: MariaDB would lose sight of it
                until the server restarts.
        """
        if self.prepared:
            raise TransactionError(
                "a prepared XA transaction is attached: it is ended here, or the connection closed"
            )
        await self._end(RESET, *self.setup)
        try:
            await self._answers_to_reset()
        except BaseException:
            self.broken = True
            raise

    @control
    async def commit_and_reset(self) -> bool:
        """Commit, and reset in the same round trip; say whether the session is reset as well.

        If not, the connection is `broken`.
        """
        await self._end(COMMIT, RESET, *self.setup)
        try:
            await self.answer()
        except MySQLError as error:
            if errors.from_server(error):
                await self._is_reset()
            raise
        return await self._is_reset()

    async def _is_reset(self) -> bool:
        try:
            await self._answers_to_reset()
        except Exception as error:
            logger.info("a connection could not be reset: %r", error)
            self._note_refusal(error)
            self.broken = True
            return False
        return True

    async def _answers_to_reset(self) -> None:
        self._dialect = self.timezone = None
        await self.answer_to_reset()
        for _ in self.setup:
            await self.answer()
        if self._dialect is None:
            await self._ask_modes()
        self.readonly = self.touched = self.autocommit_held = False
        self.lend()
        self.committed_by = ""

    # -- values

    literal = literals.literal

    def escape(self, obj: Any, mapping: Any = None) -> str:
        """Write a value as SQL: for asyncmy's own calls, which know no other list of types."""
        return self.literal(obj)

    def note_text(self, sql: str, *, filled_in: bool) -> None:
        """Note what is to run next.

        Args:
            sql: As it was before its parameters were written into it.
            filled_in: It has parameters.

        Raises:
            DataError: It cannot be written in the connection's character set.
        """
        literals.check_encodable(sql, self, "the SQL")
        self._next_origin = Origin(sql, filled_in)

    def _take_origin(self) -> None:
        self.origin, self._next_origin = self._next_origin, None
