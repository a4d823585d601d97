"""What takes part in a comparison: a driver, a pool or a library, used as its own manual says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

from places import Place

READ = "SELECT id, counter, name FROM items WHERE id = :id"
WRITE = "UPDATE items SET counter = counter + 1 WHERE id = :id"
SET = "UPDATE items SET counter = :counter WHERE id = :id"
MANY = "SELECT id, counter, name FROM items"
INSERT = "INSERT INTO fresh (id, counter, name) VALUES (:id, :counter, :name)"
STREAM = "SELECT a.id, a.counter, a.name FROM items a CROSS JOIN items b WHERE b.id <= :factor"

STYLES = {"qmark": "?", "format": "%s", "numeric": "${number}", "named": ":{name}"}


def spell(sql: str, style: str) -> tuple[str, list[str]]:
    """Write `:name` as a driver wants it; return the text and the names in order."""
    names: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        names.append(match[1])
        return STYLES[style].format(number=len(names), name=match[1])

    return re.sub(r":(\w+)", placeholder, sql), names


@dataclass(frozen=True)
class Size:
    """How much work: `rows` in the table, `factor` times as many to stream, `pool` connections."""

    rows: int
    factor: int
    pool: int


class Changed(NamedTuple):
    """What `execute` of a transaction returns."""

    rowcount: int


class Contestant:
    """One way to use a database. A method that is missing is work that it cannot do.

    Class attributes:
        title: For people.
        style: How its SQL writes placeholders.
        resets: Undoes what one holder set before the next gets the connection.
        skips: Work that it cannot do on a kind of database, as (work, kind).
        limit: Has no pool and no safety: nothing that does more can be expected to be faster.
        floor: Sends the same messages as the contestant of this title, and does nothing else; ""
            for a contestant that is something by itself.

    The work (see works.py), each as a method:
        read(key), write(key), single(key): one row in a transaction, or without one.
        add(key): read a counter and write it back, in one transaction.
        both(key): one row in each of two databases, in one unit of work.
        connection(): borrows a connection, for `async with`.
        fetch_many(), insert_many(rows), stream(): many rows. `stream` returns their number.
        transaction(readonly): gives `execute(sql, values)`, whose result has the number of changed
            rows as `rowcount`, and `fetch_all(sql, values)`, with `:name` placeholders.
    """

    title: str
    style: str = "named"
    resets = False
    limit = False
    floor = ""
    skips: frozenset[tuple[str, str]] = frozenset()

    def __init__(self, place: Place, size: Size) -> None:
        self.place = place
        self.size = size
        self._spelled: dict[str, tuple[str, list[str]]] = {}
        for name, sql in (
            ("READ", READ), ("WRITE", WRITE), ("SET", SET), ("MANY", MANY), ("INSERT", INSERT),
            ("STREAM", STREAM.replace(":factor", str(size.factor))),
        ):  # fmt: skip
            setattr(self, name, spell(sql, self.style)[0])

    def sampling(self) -> AbstractContextManager[None]:
        """Be ready while a sample is taken."""
        return nullcontext()

    READ: str
    WRITE: str
    SET: str
    MANY: str
    INSERT: str
    STREAM: str

    async def open(self) -> None:
        """Connect."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close everything."""
        raise NotImplementedError

    def positional(self, sql: str, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """Return the SQL as the driver wants it, and its values in order."""
        if sql not in self._spelled:
            self._spelled[sql] = spell(sql, self.style)
        text, names = self._spelled[sql]
        return text, [values[name] for name in names]


Block = AbstractAsyncContextManager[Any]
