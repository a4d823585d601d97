"""Double-entry books over several databases: what was told of each transfer, and what is there.

Invariant, checked by `audit`: a database that was told to have committed a transfer has it, once;
one that was told to have rolled it back has not; only where the outcome was told as unknown may it
be either. So databases that disagree on a transfer are always told of.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jobu_db import CommitOutcomeUnknownError, PartialCommitError

COMMITTED, ROLLED_BACK, UNKNOWN = "committed", "rolled back", "outcome unknown"
OUTCOMES = (COMMITTED, ROLLED_BACK, UNKNOWN)
TABLES = (
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)",
    "CREATE TABLE transfers (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, "
    "amount INTEGER NOT NULL)",
)
ACCOUNTS = 500
"""In each database; all begin with nothing."""


async def open_accounts(database: Any) -> None:
    for table in TABLES:
        await database.execute(table)
    async with database.transaction() as ctx:
        for number in range(ACCOUNTS):
            await ctx.execute("INSERT INTO accounts VALUES (:id, 0)", {"id": number})


async def book(ctx: Any, number: int, account: int, amount: int) -> None:
    """Write a transfer's part in one database."""
    values = {"id": number, "account": account, "amount": amount}
    await ctx.execute(
        "UPDATE accounts SET balance = balance + :amount WHERE id = :account",
        {"amount": amount, "account": account},
    )
    await ctx.execute("INSERT INTO transfers VALUES (:id, :account, :amount)", values)


def outcomes(names: Sequence[str], error: BaseException | None) -> dict[str, str]:
    """What a unit of work over these databases told of each, by how it ended."""
    if error is None:
        return dict.fromkeys(names, COMMITTED)
    told = dict.fromkeys(names, ROLLED_BACK)
    if isinstance(error, PartialCommitError):
        parts = (error.committed, error.failed, error.rolled_back, error.unknown)
        assert sorted(sum(parts, ())) == sorted(names), f"not each once: {error}"
        told |= dict.fromkeys(error.committed, COMMITTED) | dict.fromkeys(error.unknown, UNKNOWN)
    elif isinstance(error, CommitOutcomeUnknownError):
        assert names == [error.database], f"of several, but no PartialCommitError: {error}"
        told[names[0]] = UNKNOWN
    elif isinstance(error, asyncio.CancelledError):
        notes = getattr(error, "__notes__", [])
        told |= {name: end for name in names for end in OUTCOMES if f"{name}: {end}" in notes}
    return told


@dataclass
class Books:
    """What was told of every transfer."""

    told: dict[int, dict[str, str]] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)

    def record(self, number: int, names: Sequence[str], error: BaseException | None) -> None:
        assert number not in self.told
        self.told[number] = outcomes(names, error)
        if error is not None:
            self.errors[number] = error

    async def audit(self, databases: Sequence[Any]) -> str:
        """Compare with what is there; return the figures, or fail with every fault."""
        found = {database.name: await _transfers(database) for database in databases}
        faults = [fault for name in found for fault in self._faults(name, found[name])]
        faults += self._untold(found)
        assert not faults, "\n".join(faults)
        assert all(found.values()), "a database has no transfer at all: nothing was tested"
        return self._figures(found)

    def _faults(self, name: str, there: set[int]) -> list[str]:
        faults = [f"{name}: {number} was never reported" for number in there - self.told.keys()]
        for number, told in self.told.items():
            expected = {COMMITTED: True, ROLLED_BACK: False}.get(told.get(name, ROLLED_BACK))
            if expected is not None and expected != (number in there):
                is_there = "there" if number in there else "not there"
                error = self.errors.get(number)
                faults.append(f"{name}: {number} is {is_there}, but told: {told} {error!r}")
        return faults

    def _untold(self, found: dict[str, set[int]]) -> list[str]:
        """Transfers on which the databases disagree, and no error said that they may."""
        return [
            f"{number}: the databases disagree, but the error was {self.errors.get(number)!r}"
            for number in self._disagreed(found)
            if not any(
                isinstance(error, (PartialCommitError, CommitOutcomeUnknownError))
                for error in (self.errors.get(number), _cause(self.errors.get(number)))
            )
        ]

    def _disagreed(self, found: dict[str, set[int]]) -> list[int]:
        return [
            number
            for number, told in self.told.items()
            if len({number in found[name] for name in told}) > 1
        ]

    def _figures(self, found: dict[str, set[int]]) -> str:
        kinds = Counter(
            " and ".join(end for end in OUTCOMES if end in told.values())
            for told in self.told.values()
        )
        unknown = [
            number in found[name]
            for number, told in self.told.items()
            for name in told
            if told[name] == UNKNOWN
        ]
        errors = Counter(type(error).__name__ for error in self.errors.values())
        lines = [
            f"{len(self.told)} transfers: {_listed(kinds)}",
            f"databases that disagree: {len(self._disagreed(found))}, all told; of {len(unknown)} "
            f"unknown outcomes {sum(unknown)} took place",
            f"errors: {_listed(errors)}",
        ]
        return "\n".join(lines)


async def _transfers(database: Any) -> set[int]:
    """The numbers of the transfers that are there, once the balances add up."""
    rows = await database.fetch_all("SELECT id, account, amount FROM transfers")
    sums = Counter[int]()
    for row in rows:
        sums[row["account"]] += row["amount"]
    balances = await database.fetch_all("SELECT id, balance FROM accounts")
    wrong = [row["id"] for row in balances if row["balance"] != sums[row["id"]]]
    assert not wrong, f"{database.name}: the balances of {wrong} are not the sums of the transfers"
    return {row["id"] for row in rows}


def _cause(error: BaseException | None) -> BaseException | None:
    """What a cancellation hides."""
    return error.__cause__ if isinstance(error, asyncio.CancelledError) else None


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common()) or "none"
