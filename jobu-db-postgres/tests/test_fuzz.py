"""Hostile texts, read by the server and by our lexer; see `jobu_db.testing.fuzzing`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jobu_db.testing.fuzzing import NAME, found_by_us, scaled, seeds, texts
from jobu_db_postgres import PostgresDatabase

TEXTS = 20_000
AT_ONCE = 1_000

# -1 is no SQL, else the number of parameters; NULL if one of them could be of any type.
READ = """
CREATE FUNCTION pg_temp.read(texts text[]) RETURNS int[] LANGUAGE plpgsql AS $function$
DECLARE one text; counted int; counts int[] := '{}';
BEGIN
    FOREACH one IN ARRAY texts LOOP
        BEGIN
            EXECUTE 'PREPARE read_text AS ' || one;
            SELECT cardinality(parameter_types) INTO counted
            FROM pg_prepared_statements WHERE name = 'read_text';
            DEALLOCATE read_text;
        EXCEPTION
            WHEN indeterminate_datatype THEN counted := NULL;
            WHEN OTHERS THEN counted := -1;
        END;
        counts := counts || counted;
    END LOOP;
    RETURN counts;
END $function$
"""


async def test_names_are_where_the_server_sees_them(db: PostgresDatabase) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds():
        for standard in ("on", "off"):
            async with db.transaction() as ctx:
                await ctx.execute(f"SET LOCAL standard_conforming_strings = {standard}")
                await ctx.execute("SET LOCAL escape_string_warning = off")
                await ctx.execute(READ)
                guard: Any = ctx.connection
                connection = guard._guard_connection
                dialect = db.driver.dialect_of(connection)
                given = list(texts(seed, scaled(TEXTS) // 4))
                for start in range(0, len(given), AT_ONCE):
                    batch = given[start : start + AT_ONCE]
                    ours = [found_by_us(text, dialect) for text in batch]
                    # Where the server takes this for SQL, it must take our translation for it.
                    plain = [NAME.sub("($1::text)", text.sql) for text in batch]
                    translated = ["" if one is None else one[0] for one in ours]
                    sql = "SELECT pg_temp.read($1)"
                    valid = await ctx.fetch_val(sql, plain)
                    counts = await ctx.fetch_val(sql, translated)
                    for text, found, is_sql, count in zip(batch, ours, valid, counts, strict=True):
                        if is_sql < 0 or found is None:
                            seen["no SQL" if is_sql < 0 else "refused"] += 1
                            continue
                        seen["the same"] += 1
                        assert count in (len(found[1]), None), (seed, standard, text.sql)
                await ctx.execute("DROP FUNCTION pg_temp.read")
    print(seen)
    assert seen["the same"] > seen.total() / 5, seen
