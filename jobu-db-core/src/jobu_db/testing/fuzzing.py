"""Hostile SQL and values for the tests, from seeds: one that is always the same, and a fresh one.

`JOBU_TEST_FUZZ=10` runs ten times as many; `JOBU_TEST_FUZZ_SEED=N` takes N for the fresh seed, to
see again what failed.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from unittest import mock

from jobu_db.errors import QueryExecutionError
from jobu_db.placeholders import Dialect, bind

FIXED_SEED = 20_240_229

NAME = re.compile(r":(b[0-9]+_)")
"""The names in the texts, wherever they stand; none is part of another."""

_HOSTILE = [
    *"'\"`[]$\\/*-#:%?;()=, \t\n\r\v\f1xé",
    "''", '""', "\\'", "\\\\", "/*", "*/", "--", "-- ", "$$", "$x$", "E'", "\x01", "::", ":=", "縷",
]  # fmt: skip


class Text(NamedTuple):
    """A text with names in code, and names in what may be quoted."""

    sql: str
    names: tuple[str, ...]


def seeds() -> tuple[int, int]:
    """Return the fixed seed and a fresh one, which is printed, to be shown if a test fails."""
    given = os.environ.get("JOBU_TEST_FUZZ_SEED")
    fresh = int(given) if given else random.SystemRandom().randrange(10**9)
    print(f"fresh seed: JOBU_TEST_FUZZ_SEED={fresh}")  # pytest shows it with a failure
    return FIXED_SEED, fresh


def scaled(count: int) -> int:
    """Return how many to try, for a usual number."""
    return max(1, int(count * float(os.environ.get("JOBU_TEST_FUZZ", "1"))))


def texts(seed: int, count: int, *, brackets: bool = False) -> Iterator[Text]:
    """Write SELECTs of strings, quoted names, comments and placeholders.

    Each is valid in at least one reading; for other settings of a server, what is quoted may be
    something else, and the text valid or not.
    """
    chance = random.Random(seed)
    for _ in range(count):
        yield _Writer(chance, brackets).text()


def values(seed: int, count: int, alphabet: Sequence[str] = _HOSTILE) -> Iterator[str]:
    """Write values that would like to be SQL."""
    chance = random.Random(seed)
    for _ in range(count):
        yield "".join(chance.choices(alphabet, k=chance.randrange(12)))


def found_by_us(text: Text, dialect: Dialect) -> tuple[str, tuple[str, ...] | None] | None:
    """Translate a text with each name as its own value; None if that is refused."""
    try:
        return bind(text.sql, _Everything(), dialect) or (text.sql, ())
    except QueryExecutionError:
        return None


class _Everything(Mapping[str, str]):
    """Has just the names that it is asked for."""

    def __getitem__(self, name: str) -> str:
        return name

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def keys(self) -> Any:
        # Equal to the names of any text: `bind` finds none missing and none surplus.
        return mock.ANY

    def values(self) -> Any:
        return ()


class _Writer:
    def __init__(self, chance: random.Random, brackets: bool) -> None:
        self._chance = chance
        self._brackets = brackets
        self._names: list[str] = []

    def text(self) -> Text:
        chance = self._chance
        sql = "SELECT " + self._blank() + self._item()
        for _ in range(chance.randrange(5)):
            sql += self._blank() + "," + self._blank() + self._item()
        return Text(sql + chance.choice(["", "", self._blank()]), tuple(self._names))

    def _item(self) -> str:
        kind = self._chance.randrange(8)
        if kind < 3:
            return self._name()
        if kind < 5:
            return self._quoted("'")
        if kind == 5:
            return f"1 AS {self._quoted(self._chance.choice(self._identifier_quotes()))}"
        if kind == 6:
            return f"1 {self._chance.choice(['--', '- -', '+', '/', '*'])}{self._name()}"
        return f"({self._blank()}{self._name()}{self._blank()})"

    def _identifier_quotes(self) -> str:
        return '"`[' if self._brackets else '""`'

    def _name(self) -> str:
        self._names.append(f"b{len(self._names)}_")
        return f":{self._names[-1]}"

    def _content(self) -> str:
        pieces = self._chance.choices(_HOSTILE, k=self._chance.randrange(6))
        if self._chance.random() < 0.5:
            pieces.insert(self._chance.randrange(len(pieces) + 1), f" {self._name()} ")
        return "".join(pieces)

    def _quoted(self, quote: str) -> str:
        content, end = self._content(), "]" if quote == "[" else quote
        if self._chance.random() < 0.5:
            content = content.replace("\\", "\\\\").replace(end, "\\" + end)
        else:
            content = content.replace(end, end * 2)
        prefix = self._chance.choice(["", "", "", "E", "N"]) if quote == "'" else ""
        return f"{prefix}{quote}{content}{end}"

    def _blank(self) -> str:
        chance = self._chance
        kind = chance.randrange(12)
        if kind < 6:
            return chance.choice([" ", "\n", "\t", "\r\n", " \v\f "])
        line = self._content().replace("\n", " ")
        if kind < 8:
            end = chance.choice(["\n", "\n", "\r\n", "\r"])
            mark = chance.choice(["-- ", "--", "--\t", "#", "--\x01"])
            return f" {mark}{line}{end}"
        mark = chance.choice(["/*", "/*", "/*", "/*!", "/*!99999 ", "/*M!", "/*+", "/**"])
        content = self._content().replace("*/", "* /")
        if mark in ("/*!", "/*!99999 ", "/*M!"):  # where a name is never a placeholder
            content = content.replace(":b", "b")
        return f" {mark}{content}*/ "
