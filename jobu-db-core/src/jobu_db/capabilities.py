"""What a backend can do, declared once: for the runtime's errors, the documentation, the tests.

`Driver.capabilities` is read by the core, which refuses what is declared unsupported with the
reason given; by `table`, which writes the documentation's table; and by the conformance suite,
which skips on such a declaration only, and fails if the feature works all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from jobu_db.errors import TransactionError


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

    def demand(self, what: str, database: str) -> None:
        """Raise unless the feature can be had.

        Raises:
            TransactionError: `what` is refused, with the reason.
        """
        if not self:
            raise TransactionError(f"{what}: {self.because}", database=database)


SUPPORTED = Capability(Support.SUPPORTED)


def emulated(because: str) -> Capability:
    """Declare a feature that the backend provides by other means."""
    return Capability(Support.EMULATED, because)


def unsupported(because: str) -> Capability:
    """Declare a feature that is missing, with a reason that a user can act on."""
    return Capability(Support.UNSUPPORTED, because)


_NO_TWO_PHASE = unsupported("the backend does not prepare transactions")
_NO_REPLICAS = unsupported("the backend does not read from replicas")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The features that differ between databases, as `FEATURES` describes them.

    What is not declared counts as supported: a backend must say what it lacks. Only `two_phase`
    and `replicas` must be declared where they are there, together with `Driver.two_phase` and
    `Driver.replication`.
    """

    savepoints: Capability = SUPPORTED
    readonly: Capability = SUPPORTED
    nested_readonly: Capability = SUPPORTED
    independent_writes: Capability = SUPPORTED
    transactional_ddl: Capability = SUPPORTED
    deferred_constraints: Capability = SUPPORTED
    returning: Capability = SUPPORTED
    server_side_cursors: Capability = SUPPORTED
    concurrent_cursors: Capability = SUPPORTED
    statement_timeout: Capability = SUPPORTED
    cancellation: Capability = SUPPORTED
    sessions: Capability = SUPPORTED
    decides: Capability = SUPPORTED
    two_phase: Capability = _NO_TWO_PHASE
    replicas: Capability = _NO_REPLICAS
    # Hashable, as all of it: types that declare the same are shown together.
    isolation_levels: frozenset[str] = field(default_factory=frozenset)


FEATURES = {
    "savepoints": "a nested transaction fails on its own",
    "readonly": "the server refuses writes in a read-only transaction",
    "nested_readonly": "the same for one nested in a writing transaction",
    "independent_writes": "a second writing transaction runs beside an open one",
    "transactional_ddl": "CREATE, ALTER and DROP roll back",
    "deferred_constraints": "a constraint can wait for COMMIT to be checked",
    "returning": "INSERT … RETURNING gives rows",
    "server_side_cursors": "`iterate` reads piece by piece",
    "concurrent_cursors": "other statements run while `iterate` reads",
    "statement_timeout": "`options.statement_timeout` stops any statement",
    "cancellation": "a cancelled statement is stopped",
    "sessions": "a connection is a session that the server can end",
    "decides": "comes first in atomic units: an INSERT waits for another one of the same key",
    "two_phase": "takes part in atomic units in any place, not the first alone",
    "replicas": "`replicas` answer reads, one's own writes included",
}
"""What each of `Capabilities` means, but for `isolation_levels`: standard names, in lower case."""


def table(backends: Mapping[str, Capabilities]) -> str:
    """Write the declarations of several backends, by title, in Markdown: a table and its notes."""
    notes: list[str] = []
    rows = [["", *backends], ["---"] * (len(backends) + 1)]
    for name, says in FEATURES.items():
        rows.append([says, *(_cell(getattr(each, name), notes) for each in backends.values())])
    levels = (", ".join(sorted(each.isolation_levels)) for each in backends.values())
    rows.append(["`isolation=` takes", *levels])
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    reasons = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([*lines, "", *reasons]) + "\n"


def _cell(feature: Capability, notes: list[str]) -> str:
    if feature.support is Support.SUPPORTED:
        return "yes"
    # One note for a reason that several features or backends give.
    if feature.because not in notes:
        notes.append(feature.because)
    word = "emulated" if feature else "no"
    return f"{word} ({notes.index(feature.because) + 1})"
