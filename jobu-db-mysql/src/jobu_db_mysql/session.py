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
from typing import Any, TypeVar

from asyncmy.errors import MySQLError

from jobu_db.errors import ProgrammingError, TransactionError
from jobu_db_mysql import errors, literals
from jobu_db_mysql._private import (
    AUTOCOMMIT_OFF,
    COMMIT,
    RELEASE_MARK,
    RESET,
    ROLLBACK,
    SET_MARK,
    SEVERAL_OFF,
    SEVERAL_ON,
    Command,
    OpenConnection,
    Outcome,
    to_query,
)
from jobu_db_mysql.commands import Noting, command, control, statement, unless_streaming
from jobu_db_mysql.implicit_commit import stays_inside, uses_savepoints
from jobu_db_mysql.messages import Origin
from jobu_db_mysql.reading import may_change_modes
from jobu_db_mysql.session_transaction import TransactionalSession

T = TypeVar("T")
logger = logging.getLogger("jobu_db")


class MySQLConnection(TransactionalSession):
    """One session, and the commands that run in it.

    Attributes:
        set_charset, kill: The driver's own methods; refused while rows are streamed.
    """

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
            # 16 MiB or more: asyncmy cuts it into packets itself, so that it cannot share a write.
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

    @control
    async def drop_unread(self) -> None:
        """Read and drop the unread rows of an unbuffered cursor, before its transaction ends."""
        await self.drain()

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

    async def ping(self, reconnect: bool = False) -> None:
        """Ask for an answer. Never reconnects: that would be another session."""
        # It changes nothing: after it, there is as little to reset, and to commit, as before.
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
                "prepare() takes SELECT, INSERT, UPDATE, DELETE and similar statements: run this "
                "one by a cursor"
            )
        await self._be_told()
        await self._send_ahead(sql, alone=True)
        return await super().prepare(query)

    @unless_streaming
    async def get_ready(self) -> None:
        """Do now what would be done ahead of a statement, for a prepared one: asyncmy sends it."""
        await self._be_told()
        await self._send_ahead("SELECT", alone=True)

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
        self._changed = self.changed()
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
        self._changed = self.changed()
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
                result = await self._run_among_others(along, sql, behind, read)
            else:
                try:
                    await super().query(self.encoded(sql))
                    result = await read()
                except MySQLError as error:
                    await self._learn_modes(sql, error)
                    raise
                await self._learn_modes(sql)
            if alone:
                self.committed_alone = sql, self._changed
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
        unmarked = inside or uses_savepoints(sql) or super().get_autocommit() or self.xid
        begun = None if unmarked else self.begun
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
                # The server leaves out the rest of the text, but not the commands behind it. Their
                # answers are read here, or the next command would take them for its own.
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
            # RESET was sent with it: its answer is read whatever became of the COMMIT.
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
