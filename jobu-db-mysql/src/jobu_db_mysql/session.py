"""The connection that this backend hands out: asyncmy's, made safe to share and to lend on.

Invariants, which asyncmy leaves to its users:

1. Commands take turns.
2. Once the stream may be out of step the connection is not `alive`, and never used again.
3. `get_transaction_status()` is right, or `stale` says that it may not be.
4. No command cuts off the unread rows of an unbuffered cursor silently.
"""

# asyncmy annotates little.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import tzinfo
from typing import Any, TypeVar

from asyncmy.constants.CR import CR_COMMANDS_OUT_OF_SYNC
from asyncmy.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from asyncmy.errors import MySQLError, OperationalError

from jobu_db.errors import ProgrammingError, TransactionError
from jobu_db.placeholders import Dialect
from jobu_db.settings import Address
from jobu_db_mysql import errors, literals
from jobu_db_mysql._private import (
    COMMIT,
    RESET,
    ROLLBACK,
    SESSION_CHANGED,
    SEVERAL_OFF,
    SEVERAL_ON,
    Command,
    OpenConnection,
    Outcome,
    QuietCursor,
)
from jobu_db_mysql.commands import Noting, Turn, command, control, statement, unless_streaming
from jobu_db_mysql.implicit_commit import commits_implicitly
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


class MySQLConnection(OpenConnection):
    """One session.

    Attributes:
        address: Where it was to go.
        turn: Held while a command runs.
        broken: It is unknown where in the stream we are.
        stale: An error came last, and errors do not tell whether the transaction is still open.
        touched: A command was sent since the last reset.
        readonly: The session's access mode, as far as this library has set it, once what is
            pending is sent.
        autocommit_held: Its holder decides whether statements commit by themselves.
        pending: Statements to send ahead of the next one, in the same round trip.
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
        autocommit, set_charset, kill: The driver's own methods; refused while rows are streamed.
    """

    def __init__(self, address: Address, **options: Any) -> None:
        super().__init__(cursor_cls=QuietCursor, **options)
        self.address = address
        self.turn = Turn()
        self.broken = False
        self.stale = False
        self.touched = False
        self.readonly = False
        self.autocommit_held = False
        self.pending: list[str] = []
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
        """True if the server has just said that a transaction is open which cannot write."""
        sound = self.alive and not self.stale and not self.streaming
        return sound and self.server_status & _READING == _READING

    def note_failure(self, error: BaseException) -> None:
        """Note what the error of a command means for the connection."""
        errors.note_origin(error, self.origin)
        self._note_demotion(error)
        self._note_refusal(error)
        if errors.from_server(error) and not errors.is_lost(error):
            self.stale = True
        else:
            self.broken = True

    def _note_demotion(self, error: BaseException) -> None:
        if errors.leaves_its_cluster(error):
            self.demoted = True
        elif self.is_to_write and not self.readonly and errors.refuses_writes(error):
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
        self.refresh_status()
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
        ((mode, charset, zone),) = await self.ask(ASK)
        self._dialect = dialect(mode)
        self.timezone = literals.zone(zone)
        self._check_charset(charset)

    async def _learn_modes(self, sql: str, error: MySQLError | None = None) -> None:
        """Ask how the session reads SQL, if the server has not told what a statement changed."""
        if error is None:
            untold = self.changes is None
        else:
            untold = errors.from_server(error) and not errors.is_lost(error)
            untold = untold and may_change_modes(sql)
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
            affected = await self.limited(super().query(sql, unbuffered))
        except MySQLError as error:
            if was_open:  # DDL commits even if it fails; errors do not tell
                self._note_commit(text)
            await self._learn_modes(text, error)
            raise
        if was_open and not self.get_transaction_status():
            self._note_commit(text)
        if not self.streaming and not self.has_next:
            await self._learn_modes(text)
        elif may_change_modes(text):
            self._dialect = None
        return affected

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

    @control
    async def rollback(self) -> None:
        """Send ROLLBACK. Unread rows of an unbuffered cursor are read and dropped."""
        await self._end(ROLLBACK)
        await self.answer()

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
        touched = self.touched
        await self._ping()
        self.touched = touched

    @unless_streaming
    async def _ping(self) -> None:
        await super().ping(False)

    begin = unless_streaming(OpenConnection.begin)
    autocommit = unless_streaming(OpenConnection.autocommit)
    select_db = unless_streaming(OpenConnection.select_db)
    set_charset = unless_streaming(OpenConnection.set_charset)
    show_warnings = unless_streaming(OpenConnection.show_warnings)
    kill = unless_streaming(OpenConnection.kill)

    @unless_streaming
    async def prepare(self, query: str | bytes) -> Any:
        """Prepare a statement.

        Raises:
            ProgrammingError: It may change how the session reads SQL, which would pass unnoticed.
        """
        if may_change_modes(query if isinstance(query, str) else query.decode("latin-1")):
            raise ProgrammingError(
                "prepare() takes SELECT, INSERT, UPDATE, DELETE and their kin: run this statement "
                "by a cursor"
            )
        return await super().prepare(query)

    # -- the commands of this library: one turn and one note for a whole text
    #
    # asyncmy alone would leave further results unread, and raise an error in one of them from the
    # next command.

    @statement
    async def run(self, sql: str) -> Outcome:
        """Run one statement, and return its first result."""
        try:
            await self._start(sql)
            outcome = self.outcome()
            if self.has_next:
                outcome = Outcome(*outcome[:4], dropped=await self.read_on())
        except MySQLError as error:
            await self._learn_modes(sql, error)
            raise
        await self._learn_modes(sql)
        return outcome

    @statement
    async def run_dicts(self, sql: str) -> tuple[list[dict[str, Any]], int]:
        """Run one statement, and return the rows of its first result as dictionaries.

        Returns:
            Also how many results with rows came behind it, and were dropped.
        """
        try:
            await self._start(sql)
            rows = await self.dicts()
            dropped = await self.read_on() if self.has_next else 0
        except MySQLError as error:
            await self._learn_modes(sql, error)
            raise
        await self._learn_modes(sql)
        return rows, dropped

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
    async def run_all(self, sql: str) -> int:
        """Run a text of several statements, and return the affected rows of all of them.

        Only for this text the server takes several. At an error it leaves out the rest.
        """
        self._take_origin()
        was_open = self.get_transaction_status()
        try:
            commands = [SEVERAL_ON, self.to_run(sql), SEVERAL_OFF]
        except OverflowError:
            return await self._run_large(sql)
        await self.send_all(*commands)
        await self.answer_to_option()
        try:
            count = await self._read_all(await self.answer_with_rows())
        except MySQLError as error:
            if errors.from_server(error) and not errors.is_lost(error):
                await self.answer_to_option()
                await self._ask_modes()
            raise
        await self.answer_to_option()
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
        await self.send_all(*map(self.to_run, sql))
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

    async def _start(self, sql: str) -> None:
        self._take_origin()
        ahead, self.pending = self.pending, []
        if not ahead:
            await super().query(self.encoded(sql))
            return
        try:
            await self.send_all(*map(self.to_run, ahead), self.to_run(sql))
        except OverflowError:  # nothing was sent
            await self.send_all(*map(self.to_run, ahead))
            await self._answers(len(ahead))
            await super().query(self.encoded(sql))
            return
        try:
            await self._answers(len(ahead))
        except BaseException:
            self.broken = True  # the statement ran in a session that was not as it should be
            raise
        await self.answer_with_rows()

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
        self.pending = []
        self.readonly = self.touched = self.autocommit_held = False
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
