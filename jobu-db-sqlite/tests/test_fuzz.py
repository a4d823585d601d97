"""Hostile texts, read by SQLite and by our lexer; see `jobu_db.testing.fuzzing`."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing

from jobu_db.testing.fuzzing import NAME, found_by_us, scaled, seeds, texts
from jobu_db_sqlite.driver import SQLiteDriver

TEXTS = 20_000


class Asked(dict[str, int]):
    """Notes which names SQLite asks for, in a subclass: of a dict itself it tells nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __getitem__(self, name: str) -> int:
        self.names.append(name)
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)


def given(names: Iterable[str]) -> set[str]:
    """Take those that a text was given: others come about where what is quoted is read as code."""
    return {name for name in names if NAME.fullmatch(f":{name}")}


def test_names_are_where_sqlite_sees_them() -> None:
    seen: Counter[str] = Counter()
    with closing(sqlite3.connect(":memory:")) as connection:
        for seed in seeds():
            for text in texts(seed, scaled(TEXTS) // 2, brackets=True):
                asked = Asked()
                try:
                    connection.execute(f"EXPLAIN {text.sql}", asked)
                except sqlite3.Error:
                    seen["no SQL"] += 1
                    continue
                ours = found_by_us(text, SQLiteDriver.dialect)
                if ours is None:
                    seen["refused"] += 1
                    continue
                seen["the same"] += 1
                # SQLite takes #x, @x and $x for names as well.
                assert given(ours[1]) == given(asked.names), (seed, text.sql)
    print(seen)
    assert seen["the same"] > seen.total() / 5, seen
