"""The suite that every backend must pass: ours, and those of third parties.

A backend's test module is three lines: a fixture `backend` that returns a `Backend`, and

    from jobu_db.testing.conformance import suite

    globals().update(suite())

Nothing is opted in to: a test class that a later version adds runs as soon as it is installed.
Tests are skipped on a declaration in `Capabilities` only; the end of the run counts them, with the
reason given there. What is declared unsupported is tried all the same, and fails if it works.
"""

from __future__ import annotations

from typing import Any

from jobu_db.testing.conformance.backend import Backend
from jobu_db.testing.conformance.cancellation import CancellationConformance
from jobu_db.testing.conformance.declarations import DeclarationConformance
from jobu_db.testing.conformance.decorators import DecoratorConformance
from jobu_db.testing.conformance.errors import ErrorConformance
from jobu_db.testing.conformance.faults import FaultConformance
from jobu_db.testing.conformance.nesting import NestingConformance
from jobu_db.testing.conformance.placeholders import ListConformance, PlaceholderConformance
from jobu_db.testing.conformance.pool import PoolConformance
from jobu_db.testing.conformance.pool_lifetimes import PoolLifetimesConformance
from jobu_db.testing.conformance.pool_network import PoolNetworkConformance
from jobu_db.testing.conformance.readonly import ReadOnlyConformance
from jobu_db.testing.conformance.reset import ResetConformance
from jobu_db.testing.conformance.scripts import (
    RowTypeConformance,
    ScriptConformance,
    TimeLimitConformance,
)
from jobu_db.testing.conformance.sessions import SessionConformance
from jobu_db.testing.conformance.statements import StatementConformance
from jobu_db.testing.conformance.streaming import StreamingConformance
from jobu_db.testing.conformance.tasks import TaskConformance
from jobu_db.testing.conformance.transactions import TransactionConformance
from jobu_db.testing.conformance.two_phase import TwoPhaseConformance
from jobu_db.testing.conformance.units_of_work import UnitOfWorkConformance

__all__ = ["Backend", "suite"]

_CLASSES = (
    CancellationConformance,
    DeclarationConformance,
    DecoratorConformance,
    ErrorConformance,
    FaultConformance,
    ListConformance,
    NestingConformance,
    PlaceholderConformance,
    PoolConformance,
    PoolLifetimesConformance,
    PoolNetworkConformance,
    ReadOnlyConformance,
    ResetConformance,
    RowTypeConformance,
    ScriptConformance,
    SessionConformance,
    StatementConformance,
    StreamingConformance,
    TaskConformance,
    TimeLimitConformance,
    TransactionConformance,
    TwoPhaseConformance,
    UnitOfWorkConformance,
)


def suite() -> dict[str, Any]:
    """Return what a test module needs: the test classes by name, and the plugin that reports."""
    classes = {
        f"Test{base.__name__.removesuffix('Conformance')}": type(
            f"Test{base.__name__}", (base,), {}
        )
        for base in _CLASSES
    }
    return {"pytest_plugins": ["jobu_db.testing.conformance.report"], **classes}
