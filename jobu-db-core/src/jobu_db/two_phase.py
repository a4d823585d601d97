"""The seam of atomic units: what a database must do to take part in one, or to decide it.

One database decides: it writes a row for the unit in its own transaction, and commits. All others
prepare before that: from then on their *branches* outlive the connection and the server, and can
be committed or rolled back by anybody. `transaction.atomic` does so while all goes well,
`recovery` after it did not.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from jobu_db.errors import TransactionError

C = TypeVar("C")

CLAIM_SECONDS = 1
"""How long recovery waits for a decider whose transaction is still open."""

UNITS, IDENTITY = "jobu_db_units", "jobu_db_identity"
"""Tables of a database that decides: the units that were decided, and who it is."""

_PREFIX = "jobu_db"
_HEX = "[0-9a-f]{32}"
_NAME = re.compile(rf"{_PREFIX}_({_HEX})({_HEX})_({_HEX})")
_ID = re.compile(_HEX)


def new_id() -> str:
    """Return a random identifier: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def participant_of(fingerprint: str) -> str:
    """Return under which name a database takes part in units: 32 hexadecimal digits."""
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Branch:
    """The part of an atomic unit in one database that prepares. All names are ASCII.

    Attributes:
        decider: Identity of the database that decides, 32 hexadecimal digits.
        unit: The unit, likewise.
        participant: The database that prepares, likewise; see `participant_of`.
    """

    decider: str
    unit: str
    participant: str

    def __post_init__(self) -> None:
        # Names go into the text of statements: neither PREPARE TRANSACTION nor XA takes parameters,
        # and what is read back was written by any user who may prepare on that server.
        for part in (self.decider, self.unit, self.participant):
            if not _ID.fullmatch(part):
                raise ValueError(f"{part!r}: not 32 hexadecimal digits")

    @property
    def gtrid(self) -> str:
        """The global part of an XA name: 64 bytes."""
        # All that XA has room for: 64 bytes for either part. PostgreSQL has 199 for the whole name.
        return self.decider + self.unit

    @property
    def bqual(self) -> str:
        """The branch's part of an XA name."""
        return self.participant

    @property
    def name(self) -> str:
        """One name for all of it: 105 bytes."""
        return f"{_PREFIX}_{self.gtrid}_{self.participant}"

    @classmethod
    def from_name(cls, name: str) -> Branch | None:
        """Read what `name` wrote; None if it is somebody else's."""
        found = _NAME.fullmatch(name)
        return None if found is None else cls(*found.groups())

    @classmethod
    def from_xid(cls, gtrid: str, bqual: str) -> Branch | None:
        """Read an XA name; None if it is somebody else's."""
        return cls.from_name(f"{_PREFIX}_{gtrid}_{bqual}")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A branch that waits for its end.

    Attributes:
        age: Seconds since it was prepared; None if the server does not say.
    """

    branch: Branch
    age: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection leads.

    Attributes:
        fingerprint: Tells this database from its copies; "" if the backend cannot.
        prefix: What stands before the name of a table here, quoted and with its dot, or "".
        writable: It is a primary that takes writes.
    """

    fingerprint: str
    prefix: str
    writable: bool


class End(Enum):
    """What became of an order to end a prepared branch.

    Attributes:
        DONE: It is committed, or rolled back, as ordered.
        EMPTY: It is gone, and had written nothing.
        UNKNOWN: No such branch can be ended here: it is gone, or attached to a living session.
        BUSY: Somebody else is about to end it.
    """

    DONE = "done"
    EMPTY = "empty"
    UNKNOWN = "unknown"
    BUSY = "busy"


class TwoPhase(ABC, Generic[C]):
    """How a database prepares: what a backend implements that declares `two_phase`.

    What is to be prepared begins as any transaction does, with `TransactionMode.branch`.
    """

    @abstractmethod
    async def check(self, connection: C) -> None:
        """Raise unless branches can be prepared durably, listed and ended here.

        Raises:
            TransactionError: They cannot, as the server is set up or for want of a privilege.
        """

    @abstractmethod
    async def prepare(self, connection: C, branch: Branch) -> None:
        """Prepare the open transaction; it is over on this connection then.

        Raise unless the server says that it is prepared. After an error of the server's it
        certainly is not, and `Driver.rollback` ends what is open.
        """

    @abstractmethod
    async def end(self, connection: C, branch: Branch, *, commit: bool) -> End:
        """Commit or roll back a branch, prepared on whatever connection."""

    @abstractmethod
    async def prepared(self, connection: C) -> list[Prepared]:
        """Return the prepared branches of this database, also those that are attached to a living
        session; names that are not ours are left out."""

    async def beside(self, connection: C) -> set[str]:
        """Return the fingerprints of the databases whose branches `prepared` shows as well, with
        its own among them."""
        return set()


class Deciding(Generic[C]):
    """How a database decides. What is here works wherever plain SQL does.

    Args:
        driver: The `Driver` whose database it is.

    Attributes:
        options: What stands behind the columns in CREATE TABLE.
    """

    options = ""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    async def place(self, connection: C) -> Place:
        """Say where the connection leads; no transaction is open."""
        return Place("", "", writable=True)

    async def check(self, connection: C) -> None:
        """Raise unless what commits here survives a crash.

        Raises:
            TransactionError: It may not, and what to set.
        """

    async def enter(self, connection: C, sql: str) -> int:
        """Write the unit's row in the open transaction, after raising whatever a commit would.

        Returns:
            How many rows were inserted.
        """
        # Before the row: once it is there, the others prepare, and count on this transaction to
        # commit.
        await self.driver.prepare_commit(connection)
        return rowcount(await self.driver.execute(connection, sql, None))

    async def claim(self, connection: C, sql: str) -> int:
        """Run recovery's INSERT, which commits by itself.

        It waits at most `CLAIM_SECONDS` for a transaction that has inserted the same key.

        Returns:
            How many rows were inserted.

        Raises:
            UniqueViolationError: The key is there.
            LockTimeoutError: The other transaction is still open.
            DeadlockError, SerializationError: Try again.
        """
        self.driver.autocommit(connection, readonly=False)
        return rowcount(await self.driver.execute(connection, sql, None))

    async def settle(self, connection: C) -> bool:
        """Say whether everything that can be seen here will survive as commits do.

        It is waited for, `CLAIM_SECONDS` at most: a standby may not have heard of it yet, or a
        commit was cut short that waited for one.
        """
        return True

    def script(self, prefix: str) -> str:
        """Return the statements that create the two tables."""
        return (
            # A row without participants is recovery's: it stands for a unit that will never be
            # decided. 33 characters for each participant are enough for 121 of them.
            f"CREATE TABLE IF NOT EXISTS {prefix}{UNITS} (unit VARCHAR(32) NOT NULL PRIMARY KEY, "
            f"participants VARCHAR(4000)){self.options};\n"
            f"CREATE TABLE IF NOT EXISTS {prefix}{IDENTITY} (one INTEGER NOT NULL PRIMARY KEY, "
            f"id VARCHAR(32) NOT NULL, fingerprint VARCHAR(1000) NOT NULL){self.options};\n"
        )


def rowcount(result: Any) -> int:
    """Return how many rows a statement affected, from what a backend's `execute` returns."""
    return int(getattr(result, "rowcount", result))


def refuse(problem: str, fix: str) -> TransactionError:
    """Make the error that says why a database cannot take part, and what to do about it."""
    return TransactionError(f"atomic=True: {problem}: {fix}")
