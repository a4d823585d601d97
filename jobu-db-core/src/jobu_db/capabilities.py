"""What a backend can do, declared once: for the runtime's errors, the documentation, the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Support(Enum):
    """How far a feature goes."""

    SUPPORTED = "supported"
    EMULATED = "emulated"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Capability:
    """One feature: how far it goes, and because of what it goes no further."""

    support: Support
    because: str = ""

    def __bool__(self) -> bool:
        return self.support is not Support.UNSUPPORTED


SUPPORTED = Capability(Support.SUPPORTED)


def emulated(because: str) -> Capability:
    """Declare a feature that the backend provides by other means."""
    return Capability(Support.EMULATED, because)


def unsupported(because: str) -> Capability:
    """Declare a feature that is missing, with a reason that a user can act on."""
    return Capability(Support.UNSUPPORTED, because)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The features that differ between databases.

    Attributes:
        savepoints: A nested transaction can fail on its own.
        readonly: The server refuses writes in a read-only transaction.
        nested_readonly: The same for a read-only transaction inside a writing one.
        independent_writes: A second writing transaction may run beside an open one.
        server_side_cursors: `iterate` reads rows piece by piece.
        concurrent_cursors: Other statements may run while a cursor is open.
        transactional_ddl: CREATE, ALTER and DROP can be rolled back.
        statement_timeout: The `statement_timeout` option stops any statement.
        isolation_levels: The standard names accepted by `isolation=`.
    """

    savepoints: Capability = SUPPORTED
    readonly: Capability = SUPPORTED
    nested_readonly: Capability = SUPPORTED
    independent_writes: Capability = SUPPORTED
    server_side_cursors: Capability = SUPPORTED
    concurrent_cursors: Capability = SUPPORTED
    transactional_ddl: Capability = SUPPORTED
    statement_timeout: Capability = SUPPORTED
    isolation_levels: frozenset[str] = field(default_factory=frozenset)
