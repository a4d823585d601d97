"""A program that moves money in atomic units until it is killed, and writes down what it was told.

    python atomic_program.py SETTINGS BOOK NUMBER SEED

SETTINGS is a JSON file with the databases by name; BOOK gets a line for each transfer that begins,
and one for what its end told; numbers are NUMBER, NUMBER + 1, ….
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import sys
from pathlib import Path
from typing import IO, Any

from jobu_db import (
    CommitOutcomeUnknownError,
    DatabaseError,
    DatabaseRegistry,
    PartialCommitError,
    get_connection,
    transactional,
)

TASKS = 6
ACCOUNTS = 50


class OnPurposeError(Exception):
    """Raised by a transfer that thinks better of it."""


class Transfers:
    """What the tasks share."""

    def __init__(self, names: list[str], book: IO[str], first: int) -> None:
        self._names = names
        self._book = book
        self._numbers = itertools.count(first)

    async def go_on(self, chance: random.Random) -> None:
        while True:
            number = next(self._numbers)
            task = asyncio.create_task(self._transfer(number, chance))
            if chance.random() < 0.1:
                asyncio.get_running_loop().call_later(chance.uniform(0, 0.2), task.cancel)
            await asyncio.wait({task})
            if not task.cancelled() and task.result():
                await asyncio.sleep(chance.uniform(0, 0.1))  # a server is down: no use in haste

    async def _transfer(self, number: int, chance: random.Random) -> bool:
        sqlite, *servers = self._names  # the first one prepares nothing, so that it decides
        names = chance.sample(servers, len(servers))
        if chance.random() < 0.4:
            names = [sqlite, *names[: chance.randint(1, len(names))]]
        self._write(number, names, "begun")
        told, failed = "committed", False
        try:
            await transactional(*names, atomic=True, retries=chance.choice((0, 2)))(self._move)(
                number, names, chance
            )
        except CommitOutcomeUnknownError:
            told, failed = "unknown", True
        except PartialCommitError:
            told, failed = "partial", True
        except OnPurposeError:
            told = "rolled back"
        except DatabaseError:
            told, failed = "rolled back", True
        except asyncio.CancelledError as error:
            self._write(number, names, _told_by(error, names[0]))
            raise
        self._write(number, names, told)
        return failed

    async def _move(self, number: int, names: list[str], chance: random.Random) -> None:
        """The first one pays what the others get."""
        amounts = {name: chance.randint(1, 100) for name in names[1:]}
        amounts[names[0]] = -sum(amounts.values())
        for name in names:
            ctx = get_connection(name)
            account = chance.randrange(ACCOUNTS)
            values = {"id": number, "account": account, "amount": amounts[name]}
            await ctx.execute(
                "UPDATE accounts SET balance = balance + :amount WHERE id = :account",
                {"amount": amounts[name], "account": account},
            )
            await ctx.execute("INSERT INTO transfers VALUES (:id, :account, :amount)", values)
        if chance.random() < 0.05:
            raise OnPurposeError

    def _write(self, number: int, names: list[str], told: str) -> None:
        self._book.write(json.dumps([number, names, told]) + "\n")
        self._book.flush()


def _told_by(error: asyncio.CancelledError, decider: str) -> str:
    begin = f"{decider}: "
    notes = [note.removeprefix(begin) for note in getattr(error, "__notes__", ())]
    for note, told in (("committed", "committed"), ("outcome unknown", "unknown")):
        if note in notes:
            return told
    return "rolled back"


async def main(databases: dict[str, Any], book: IO[str], first: int, seed: str) -> None:
    """Make transfers for ever, on these databases by name."""
    config = {"databases": databases}
    async with DatabaseRegistry.lifespan(config, wait=300.0, recover_every=0.5):
        transfers = Transfers(list(databases), book, first)
        async with asyncio.TaskGroup() as group:
            for each in range(TASKS):
                group.create_task(transfers.go_on(random.Random(f"{seed} {each}")))


if __name__ == "__main__":
    logging.getLogger("jobu_db").setLevel(logging.CRITICAL)
    settings, path, number, chosen = sys.argv[1:]
    with Path(path).open("a") as written:
        asyncio.run(main(json.loads(Path(settings).read_text()), written, int(number), chosen))
