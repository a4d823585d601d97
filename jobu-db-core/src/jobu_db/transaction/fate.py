"""How a transaction ends on the server, and what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobu_db.errors import CommitOutcomeUnknownError, ConnectionLostError, TransactionError
from jobu_db.transaction.outcome import COMMITTED, ROLLED_BACK, UNKNOWN
from jobu_db.transaction.session import Session

if TYPE_CHECKING:
    from jobu_db.errors import DatabaseError


class Fate:
    """Commits or rolls back, for whoever has the turn.

    Invariant: `outcome` is never better than what is certain, at whatever point a cancellation
    or an error ends the work.

    Attributes:
        outcome: Of the transaction that is open, or was last; "rolled back" as long as it is open.
        reset: The connection was reset together with the commit or rollback.
        kept: Something that was committed by hand before cannot be undone.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.outcome = ROLLED_BACK
        self.reset = False
        self.kept = False

    def begin_again(self) -> None:
        """Be that of another transaction from now on."""
        self.kept |= self.outcome != ROLLED_BACK
        self.outcome = ROLLED_BACK

    @property
    def undone(self) -> bool:
        """True if certainly nothing was committed: at the end, by hand, or implicitly."""
        return not (self.outcome != ROLLED_BACK or self.kept or self._session.beyond_undo)

    async def commit(self, *, reset: bool) -> None:
        """Commit.

        Raises:
            CommitOutcomeUnknownError: The connection was lost meanwhile.
            DatabaseError: It is not committed, and may still be open.
        """
        session = self._session
        if session.readers:
            await session.close_readers()
        if not self._is_open():
            await self._refuse_if_ended()
        self.outcome = UNKNOWN
        try:
            self.reset = await session.driver.commit(session.connection, reset=reset)
            self.outcome = COMMITTED
        except BaseException as error:
            meaning = session.explain(error, "COMMIT")
            if self._is_unknown(error, meaning):
                session.lose("the connection was lost during COMMIT")
                raise CommitOutcomeUnknownError(
                    "the connection was lost during COMMIT: whether it took place is unknown",
                    database=session.database.name,
                ) from error
            self.outcome = ROLLED_BACK
            if meaning is None or meaning is error:
                raise
            raise meaning from error

    def _is_open(self) -> bool:
        session = self._session
        driver, connection = session.driver, session.connection
        trusted = not session.raw_used  # else errors may have passed that nobody here saw
        return trusted and driver.is_alive(connection) and driver.in_transaction(connection)

    async def _refuse_if_ended(self) -> None:
        """Raise unless the server says that the transaction is still the one that was begun."""
        session, name = self._session, self._session.database.name
        if not session.driver.is_alive(session.connection):
            session.lose("the connection was lost")
        elif session.driver.in_transaction(session.connection) and await session.still_open():
            return
        if session.discard is not None:
            raise ConnectionLostError(f"{session.discard} before COMMIT", sent=False, database=name)
        session.refusal = "the transaction was ended behind the back of its block"
        raise TransactionError(f"not committed: {session.refusal}", database=name)

    def _is_unknown(self, error: BaseException, meaning: DatabaseError | None) -> bool:
        if isinstance(meaning, ConnectionLostError):
            return meaning.sent
        cut_off = not isinstance(error, Exception)
        return cut_off or not self._session.driver.is_alive(self._session.connection)

    async def undo(self, error: BaseException | None = None, *, reset: bool) -> None:
        """Roll back what is open, because of `error`; a failure is logged, the connection lost."""
        session = self._session
        session.give_up(error)
        if session.discard is None:
            await session.clean_up(self._roll_back(reset), "rollback")

    async def _roll_back(self, reset: bool) -> None:
        session = self._session
        await session.quiet()
        if session.discard is None:
            await session.close_readers()
            self.reset = await session.driver.rollback(session.connection, reset=reset)
