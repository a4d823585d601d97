"""What is known of a session: whether it is of use, how it reads SQL, what it has committed.

It is learnt from how each command ended (`note_success`, `note_failure`) and from what answers say
was changed in the session; where the server does not tell, it is asked.
"""

# asyncmy annotates little.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import tzinfo
from typing import Any

from asyncmy.constants.CR import CR_COMMANDS_OUT_OF_SYNC
from asyncmy.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from asyncmy.errors import MySQLError, OperationalError

from jobu_db.errors import ProgrammingError
from jobu_db.placeholders import Dialect
from jobu_db.settings import Address
from jobu_db_mysql import errors, literals
from jobu_db_mysql._private import SESSION_CHANGED, Command, OpenConnection, QuietCursor
from jobu_db_mysql.begun import Begun
from jobu_db_mysql.commands import Turn
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


class SessionState(OpenConnection):
    """One session, as far as the server has told.

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
        committed_alone: The last statement that was to commit by itself, once it has, and how many
            rows it changed, or None if it returned rows.
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
        self.committed_alone: tuple[str, int | None] | None = None
        self._changed: int | None = None

    @property
    def alive(self) -> bool:
        """False if the connection is known to be dead or of no use."""
        return self.open and not self.broken

    @property
    def is_mariadb(self) -> bool:
        """Which of the two products the server is."""
        return "MariaDB" in self.get_server_info()

    @property
    def pipelines(self) -> bool:
        """True if commands may share a write."""
        return self.pipelining is None or self.pipelining.allows(self.address)

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
    def _server_has_opened(self) -> bool:
        return bool(self.server_status & SERVER_STATUS_IN_TRANS)

    # -- how a command ended

    def note_failure(self, error: BaseException) -> None:
        """Note what the error of a command means for the connection."""
        errors.note_origin(error, self.origin)
        self._note_demotion(error)
        self._note_refusal(error)
        # An error of the server's is a whole answer, and the next one will be in its place; it
        # carries no status. After any other error it is not known where in the stream we are.
        if errors.from_server(error) and not errors.is_lost(error):
            self.stale = True
            if self.begun is not None and errors.undoes_all(error):
                self.begun.undone = True
        else:
            self.broken = True

    def _note_demotion(self, error: BaseException) -> None:
        if errors.leaves_its_cluster(error):
            self.demoted = True
        # Within a read-only transaction of ours, a refusal says nothing of the server.
        elif self.is_to_write and self.readonly is False and errors.refuses_writes(error):
            self.demoted = True
            errors.note_demoted(error)

    def _note_refusal(self, error: BaseException) -> None:
        unknown = errors.is_unknown_command(error) and self.shared_a_write
        if unknown and self.pipelining is not None:
            self.pipelining.refused(self.address)

    def note_success(self) -> None:
        """Note what the server said of the session at the end of a command."""
        self.stale = False
        self._take_status()
        self._take_told_changes()

    def _take_status(self) -> None:
        self.refresh_status()
        if self.begun is not None:
            self.begun.told(is_open=self._server_has_opened)

    def _take_told_changes(self) -> None:
        if self.server_status & SESSION_CHANGED:
            # asyncmy keeps the status of the last answer: left on, the flag would be taken for one
            # of the next answer, whose message is another.
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
                is closed.
            OperationalError: The answer is mangled.
        """
        try:
            variables = changed_variables(message)
            gtids = committed_gtids(message)
        except (ValueError, LookupError) as error:
            self.broken = True
            raise OperationalError(CR_COMMANDS_OUT_OF_SYNC, "malformed answer") from error
        if gtids:
            self.gtids.append(gtids)
        if "sql_mode" in variables:
            self._dialect = dialect(variables["sql_mode"])
        if "time_zone" in variables:
            self.timezone = literals.zone(variables["time_zone"])
        self._check_charset(variables.get("character_set_client"))

    def _check_charset(self, charset: str | None) -> None:
        if charset is not None and not is_safe(charset):
            # Before it is told: the text that comes next could be read as something else.
            self.broken = True
            raise ProgrammingError(
                f"the session's character set was changed to {charset}, in which part of a "
                "character can be taken for a quote or backslash: the connection is closed; leave "
                "it as options.charset says"
            )

    async def _ask_modes(self) -> None:
        # Unknown until the answer is there: cut off in between, no text may be taken apart.
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
