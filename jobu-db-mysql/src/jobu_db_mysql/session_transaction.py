"""The transaction of a session: how it begins, and whether it is still the one that was begun.

What a statement needs before it (the access mode, the isolation level, autocommit) is noted when
it is wanted, and sent along with the next statement: see `_owed`.
"""

# asyncmy annotates little.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from asyncmy.constants.CR import CR_SERVER_GONE_ERROR
from asyncmy.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from asyncmy.errors import MySQLError, OperationalError

from jobu_db_mysql import errors
from jobu_db_mysql._private import RELEASE_MARK, Command
from jobu_db_mysql.begun import Begun
from jobu_db_mysql.commands import statement, unless_streaming
from jobu_db_mysql.implicit_commit import (
    commits_implicitly,
    may_end_unseen,
    sets_access,
    stays_inside,
)
from jobu_db_mysql.session_state import SessionState

_READING = SERVER_STATUS_IN_TRANS | 0x2000
"""In a transaction, and (asyncmy has no name for it) a read-only one."""

_NO_SUCH_SAVEPOINT = 1305


class TransactionalSession(SessionState):
    """One session, whose transactions begin with their first statement."""

    def begin_with_next(self, *, readonly: bool, isolation: str | None, xid: str = "") -> bool:
        """Begin with what is sent next; say whether that can be had.

        Args:
            isolation: The statement that sets the level, or None.
            xid: Begins an XA transaction of that name, as SQL writes it.
        """
        if self.autocommit_held or not self.pipelines or self.stale or self._server_has_opened:
            return False
        if super().get_autocommit() or not self.tells_status_behind_rows:
            return False
        self._begin(readonly, isolation, xid)
        self.autocommit_wanted = None
        return True

    async def begin_now(
        self,
        *,
        readonly: bool = False,
        isolation: str | None = None,
        xid: str = "",
        autocommit: bool = False,
    ) -> None:
        """Begin, in one round trip.

        Args:
            isolation, xid: As for `begin_with_next`.
            autocommit: What follows an implicit commit is to commit by itself.
        """
        self._begin(readonly, isolation, xid)
        if not self.autocommit_held:
            self.autocommit_wanted = autocommit or not self.pipelines
        # Behind START TRANSACTION READ WRITE, MySQL would not take it from the session.
        plain = "START TRANSACTION READ ONLY" if readonly else "START TRANSACTION"
        await self._begin_now(f"XA START {xid}" if xid else plain)

    def _begin(self, readonly: bool, isolation: str | None, xid: str) -> None:
        self.begun = Begun(isolation, start=f"XA START {xid}" if xid else "")
        self.xid = xid
        self.committed_by = ""
        self.gtids, self.gtids_dropped = [], False
        # START TRANSACTION READ ONLY alone would let DDL through, and commit.
        self.readonly_wanted = readonly

    @statement
    async def _begin_now(self, statement: str) -> None:
        # Without it, `_owed` leaves out what begins the transaction: that comes behind all of it
        # here.
        begun, self.begun = self.begun, None
        assert begun is not None
        isolation = [] if begun.isolation is None else [begun.isolation]
        owed = [*self._owed(statement), *isolation, statement]
        self.begun = begun
        await self.send_all(*map(self.to_run, owed))
        await self._answers_ahead(len(owed))

    def hold(self) -> None:
        """Let autocommit be on, until the holder sets it otherwise."""
        self.autocommit_held = True
        self.autocommit_wanted = True

    def lend(self) -> None:
        """Be as one is to be that is taken raw from the pool."""
        self.begun = None
        self.xid = ""
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
    def only_reads(self) -> bool:
        """True if a transaction is open which certainly has not written."""
        begun = self.begun
        if not self.alive or self.stale or self.streaming or (begun is not None and begun.marked):
            return False
        if self._server_has_opened:
            return self.server_status & _READING == _READING
        return bool(self.readonly) and self.get_transaction_status()

    def get_transaction_status(self) -> bool:
        """Say whether a transaction is open, as far as the server has told.

        One that this library has begun is open from its beginning.
        """
        begun = self.begun
        if begun is None:
            return self._server_has_opened
        return not begun.ended and (self._server_has_opened or not begun.opened)

    def _note_commit(self, sql: str) -> None:
        if commits_implicitly(sql) and not self.xid:  # XA refuses them: 1399
            self.committed_by = " ".join(sql.split()[:2])

    # -- whether it is still open

    async def confirm(self) -> bool:
        """Say for certain whether the transaction is open, by asking where that is in doubt.

        While rows are unread nothing can be asked: then it is as the server said last.
        """
        if (self.stale or (self.begun is not None and self.begun.marked)) and not self.streaming:
            await self._confirm()
        return self.get_transaction_status()

    @unless_streaming
    async def _confirm(self) -> None:
        await self._ask_for_transaction()

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
        doubtful = (self.stale or begun.marked) and not (begun.ended or self.xid)
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

    # -- what is sent ahead of a statement

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
        if begun is None or begun.ended:
            return owed
        if begun.start or not (self._server_has_opened or self.xid):
            if begun.isolation is not None:
                owed.append(begun.isolation)
            if begun.start or begun.isolation is not None or not stays_inside(sql):
                owed.append(begun.start or "START TRANSACTION")
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
            self.begun.isolation, self.begun.start = None, ""
            if self._server_has_opened:
                self.begun.opened = True

    async def _answers(self, count: int) -> None:
        # Each has its answer, also behind one that failed. One that was left unread, the next
        # command would take for its own.
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

    def _is_to_be_marked(self, sql: str) -> bool:
        begun = self.begun
        if begun is None or begun.ended or begun.marked or super().get_autocommit():
            return False
        if self.xid:  # only XA statements end it
            return False
        return may_end_unseen(sql)
