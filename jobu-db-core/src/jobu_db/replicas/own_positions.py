"""Where the running task's writes are in what the primary has written.

A task's first use of the database gives it a cell, in a context variable: the tasks that it begins
afterwards have the same one, so that either sees what the other has committed. A task that was
begun before has its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any

from jobu_db.errors import TransactionError
from jobu_db.pool.pool import AsyncConnectionPool
from jobu_db.replication import AnyReplication, Position

logger = logging.getLogger("jobu_db")

_cells: ContextVar[Mapping[OwnPositions, Cell]] = ContextVar("jobu_db_positions", default={})  # noqa: B039 never mutated


class Cell:
    """What one family of tasks has committed.

    Attributes:
        position: What is to be reached; None before the first commit.
        untold: How many commits there may have been whose position was not told.
        asked: How many of those an answer of the primary covers.
    """

    __slots__ = ("asked", "position", "untold")

    def __init__(self) -> None:
        self.position: Position | None = None
        self.untold = 0
        self.asked = 0

    def saw(self, position: Position, untold: int) -> None:
        """Take note of a position that was read on the primary after so many untold commits."""
        self.position = position if self.position is None else position.after(self.position)
        self.asked = max(self.asked, untold)


class OwnPositions:
    """The positions of one database.

    Args:
        name: The database's name.
        replication: What its driver knows of positions.
    """

    def __init__(self, name: str, replication: AnyReplication) -> None:
        self._name = name
        self._replication = replication

    def cell(self) -> Cell:
        """Return the running task's cell, which it has from now on."""
        cells = _cells.get()
        cell = cells.get(self)
        if cell is None:
            cell = Cell()
            _cells.set({**cells, self: cell})
        return cell

    # -- what a pool tells

    def committed(self, connection: Any) -> None:
        """A writing transaction was committed on a connection just now."""
        cell, position = self.cell(), self._replication.committed(connection)
        if position is None:
            cell.untold += 1
        else:
            cell.saw(position, cell.asked)

    def lost(self) -> None:
        """Something may have been committed whose position was not told."""
        self.cell().untold += 1

    async def ask(self, connection: Any) -> None:
        """Ask for the position of what a statement outside a transaction may have committed.

        The statement took effect, so a failure here is none of its caller's: the primary is asked
        again before the next read from a replica.
        """
        cell = self.cell()
        # Before it is asked: if that is cut off, it is asked again before the next read. What is
        # counted while we wait is not covered by the answer.
        cell.untold += 1
        untold = cell.untold
        try:
            position = await self._replication.written(connection)
        except Exception as error:
            logger.info("%s: the position of a write is not known yet: %r", self._name, error)
        else:
            cell.saw(position, untold)

    # -- what readers ask

    async def present(self, primary: AsyncConnectionPool[Any]) -> Position | None:
        """Return what the running task must find where it reads; None if it has written nothing.

        Args:
            primary: The pool of the primary.

        Raises:
            DatabaseError: The primary is to be asked for it, and does not answer.
        """
        cell = self.cell()
        if cell.untold > cell.asked:
            await self._ask(primary, cell)
        return cell.position

    async def token(self, primary: AsyncConnectionPool[Any]) -> str:
        """Return the same as a text; where nothing was written, where the primary is now.

        Raises:
            DatabaseError: The primary is to be asked for it, and does not answer.
        """
        cell = self.cell()
        if cell.position is None or cell.untold > cell.asked:
            await self._ask(primary, cell)
        return str(cell.position)

    async def _ask(self, primary: AsyncConnectionPool[Any], cell: Cell) -> None:
        # Those of now: what is committed while the primary is asked may come after its answer.
        untold = cell.untold
        cell.saw(await ask_primary(primary, self._replication), untold)

    def read(self, token: str) -> Position:
        """Read what `token` gave, here or in another process.

        Raises:
            TransactionError: It is no position of such a database.
        """
        try:
            position: Position = self._replication.parse(token)
        except ValueError as error:
            raise TransactionError(
                f"replica={token!r}: not a position: {error}; pass what db.position() "
                "returned, or True",
                database=self._name,
            ) from None
        return position


async def ask_primary(pool: AsyncConnectionPool[Any], replication: AnyReplication) -> Position:
    """Ask how far the primary has written.

    Raises:
        DatabaseError: It does not answer.
    """
    async with pool.connection() as lease:
        lease.expect_answer(monotonic())
        try:
            with pool.translating(None):
                position: Position = await replication.position(lease.connection)
        finally:
            lease.expect_answer(None)
    return position
