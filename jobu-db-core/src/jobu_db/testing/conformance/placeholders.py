"""Placeholders: values arrive as they are, and SQL that only looks like a placeholder is none."""

from __future__ import annotations

from typing import Any

import pytest

from jobu_db.errors import QueryExecutionError
from jobu_db.placeholders import expand
from jobu_db.testing.conformance.backend import INSERT, Backend, ids, insert, reading, with_items

VALUES = (
    "",
    "it's",
    'say "hello"',
    "back\\slash \\' \\n",
    "100% %s %(name)s %%",
    "? $1 :id ::text",
    "'; DROP TABLE items; --",
    "/* x */ -- y",
    "two\nlines\tand a tab",
    "한국어 ☃ 😀",
)
TEXTS = {
    "SELECT ':id'": ":id",
    "SELECT 'it''s :id'": "it's :id",
    "SELECT '100% :id %s ?'": "100% :id %s ?",
    "SELECT ':id' -- :id isn't one\n": ":id",
    "SELECT /* :id isn't one */ ':id'": ":id",
    "SELECT ':id' /* ' */": ":id",
}
"""SQL that gives a text, with what it gives; none has a placeholder until `WHERE` is added."""


class PlaceholderConformance:
    async def test_values_arrive_as_they_are(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        for number, value in enumerate(VALUES):
            await insert_exactly(db, number, value)
            sql = "SELECT name FROM items WHERE id = :id AND name = :name"
            assert await db.fetch_val(sql, {"id": number, "name": value}) == value
        assert await ids(db) == list(range(len(VALUES)))

    async def test_what_stands_in_strings_and_comments_is_no_placeholder(
        self, backend: Backend
    ) -> None:
        db: Any = await with_items(backend)
        await insert(db, 1)
        for sql, text in TEXTS.items():
            assert await db.fetch_val(sql) == text
            assert await db.fetch_val(f"{sql} FROM items WHERE id = :id", {"id": 1}) == text

    async def test_a_name_may_come_again_and_in_any_order(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        for number in range(1, 5):
            await insert(db, number)
        sql = "SELECT id FROM items WHERE (id=:b OR id>=:a AND id<=:a) AND id<>:none ORDER BY id"
        rows = await db.fetch_all(sql, {"none": 0, "a": 3, "b": 1})
        assert [row["id"] for row in rows] == [1, 3]

    async def test_nothing_is_given_as_null(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        await db.execute("CREATE TABLE gaps (id INTEGER PRIMARY KEY, value INTEGER)")
        await db.execute(
            "INSERT INTO gaps (id, value) VALUES (:id, :value)", {"id": 1, "value": None}
        )
        row = await db.fetch_one("SELECT id, value FROM gaps")
        assert dict(row) == {"id": 1, "value": None}

    async def test_the_drivers_own_placeholders_work_by_position(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        for number in range(3):
            await insert(db, number)
        marks = {"qmark": ("?", "?"), "format": ("%s", "%s"), "numeric_dollar": ("$1", "$2")}
        first, second = marks[db.driver.dialect.placeholder]
        sql = f"SELECT name FROM items WHERE id = {first} AND name <> {second}"
        values = (1, "nobody")
        given = values if db.driver.variadic else (values,)
        assert await db.fetch_val(sql, *given) == "item 1"
        async with db.transaction() as ctx:
            assert await ctx.fetch_val(sql, *given) == "item 1"
            if db.driver.capabilities.server_side_cursors:
                assert [row["name"] async for row in ctx.iterate(sql, *given)] == ["item 1"]

    async def test_rows_by_name_go_in_together(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        await db.executemany(
            INSERT, [{"name": value, "id": number} for number, value in enumerate(VALUES)]
        )
        rows = await db.fetch_all("SELECT name FROM items ORDER BY id")
        assert [row["name"] for row in rows] == list(VALUES)

    async def test_two_styles_in_one_statement_are_refused(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        mark = {"qmark": "?", "format": "%s", "numeric_dollar": "$1"}[db.driver.dialect.placeholder]
        with pytest.raises(QueryExecutionError):
            await db.fetch_all(f"SELECT id FROM items WHERE id = :id OR id = {mark}", {"id": 1})


async def insert_exactly(db: Any, id: int, name: str) -> None:
    await db.execute(INSERT, {"id": id, "name": name})


class ListConformance:
    @pytest.mark.parametrize("chosen", [[], [2], [3, 1, 3], [None], [2, None]])
    async def test_in_and_not_in_mean_what_they_say(
        self, backend: Backend, chosen: list[int | None]
    ) -> None:
        db: Any = await with_items(backend)
        for number in (1, 2, 3):
            await insert(db, number)
        inside = [number for number in (1, 2, 3) if number in chosen]
        outside = [] if None in chosen else [n for n in (1, 2, 3) if n not in chosen]
        for word, expected in (("IN", inside), ("not  in", outside)):
            sql = f"SELECT id FROM items WHERE id {word} ( :ids ) ORDER BY id"
            rows = await db.fetch_all(sql, {"ids": expand(chosen)})
            assert [row["id"] for row in rows] == expected, sql
            async with reading(db) as ctx:
                if db.driver.capabilities.server_side_cursors:
                    rows = [row async for row in ctx.iterate(sql, {"ids": expand(chosen)})]
                    assert [row["id"] for row in rows] == expected, sql

    async def test_an_empty_list_says_so_of_null_too(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        await db.execute("CREATE TABLE gaps (id INTEGER PRIMARY KEY, value VARCHAR(10))")
        await db.execute("INSERT INTO gaps (id) VALUES (1)")
        for word, count in (("IN", 0), ("NOT IN", 1)):
            sql = f"SELECT count(*) FROM gaps WHERE value {word} (:values)"
            assert await db.fetch_val(sql, {"values": expand([])}) == count

    async def test_lists_stand_beside_other_values(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        for number in range(1, 7):
            await insert(db, number)
        sql = (
            "DELETE FROM items WHERE id > :least AND name NOT IN (:names) "
            "AND (id IN (:ids) OR id IN (:ids) OR ':ids' = 'IN (:ids)')"
        )
        values = {"ids": expand(range(1, 6)), "least": 1, "names": expand({"item 4"})}
        async with db.transaction() as ctx:
            await ctx.execute(sql, values)
        assert await ids(db) == [1, 4, 6]

    @pytest.mark.parametrize("chosen", [[], [2], [2, None]])
    async def test_it_stands_wherever_in_stands(
        self, backend: Backend, chosen: list[int | None]
    ) -> None:
        db: Any = await with_items(backend)
        for number in (1, 2, 3):
            await insert(db, number)
        inside = [number for number in (1, 2, 3) if number in chosen]
        outside = [] if None in chosen else [n for n in (1, 2, 3) if n not in chosen]
        for where, expected in {
            "id /* :ids */ IN -- IN (:ids)\n (/* the */ :ids -- list\n)": inside,
            "id < 9 -- AND NOT\n AND id IN (:ids)": inside,
            "id + 0 NOT /* all of */ IN (:ids)": outside,
            "NOT id IN (:ids)": outside,
            "((id IN (:ids)))": inside,
            "CASE WHEN id IN (:ids) THEN 1 ELSE 0 END = 1": inside,
            "id IN (SELECT i.id FROM items i WHERE i.id IN (:ids) AND i.id IN (:ids))": inside,
            "name <> 'IN (:ids' AND id IN (:ids) AND name <> ':ids)'": inside,
            "EXISTS (SELECT 1 FROM items i WHERE i.id = items.id AND i.id NOT IN (:ids))": outside,
        }.items():
            sql = f"SELECT id FROM items WHERE {where} ORDER BY id"
            rows = await db.fetch_all(sql, {"ids": expand(chosen)})
            assert [row["id"] for row in rows] == expected, sql
        await db.execute("UPDATE items SET name = name WHERE id IN (:ids)", {"ids": expand(chosen)})

    async def test_a_long_list_is_no_trouble(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        await insert(db, 700)
        sql = "SELECT count(*) FROM items WHERE id IN (:ids)"
        assert await db.fetch_val(sql, {"ids": expand(range(900))}) == 1

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT id FROM items WHERE id = :ids",
            "SELECT id FROM items WHERE id IN (:ids, 7)",
            "SELECT id FROM items WHERE id IN (7, :ids)",
            "SELECT id FROM items WHERE id IN :ids",
        ],
    )
    async def test_elsewhere_it_is_refused(self, backend: Backend, sql: str) -> None:
        db: Any = await with_items(backend)
        with pytest.raises(QueryExecutionError, match=r"alone in the parentheses of IN") as caught:
            await db.fetch_all(sql, {"ids": expand(["secret"])})
        assert "secret" not in str(caught.value)

    async def test_executemany_refuses_it(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        with pytest.raises(QueryExecutionError, match=r"expand\(\) is not for executemany"):
            await db.executemany("DELETE FROM items WHERE id IN (:ids)", [{"ids": expand([1])}])

    async def test_a_missing_name_is_told_as_ever(self, backend: Backend) -> None:
        db: Any = await with_items(backend)
        with pytest.raises(QueryExecutionError, match="missing :id "):
            await db.fetch_all("SELECT id FROM items WHERE id IN (:id)", {"ids": expand([1])})
