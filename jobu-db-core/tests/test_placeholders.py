"""`:name` placeholders: what is one, what is not, and what reaches the driver."""

from __future__ import annotations

from collections import UserDict, defaultdict
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from jobu_db.errors import QueryExecutionError
from jobu_db.placeholders import Dialect, bind, expand, statements_of

SQLITE = Dialect("qmark", backticks=True, brackets=True)
POSTGRES = Dialect(
    "numeric_dollar",
    escape_strings=True,
    dollar_quotes=True,
    nested_comments=True,
    return_ends_comments=True,
)
MYSQL = Dialect(
    "format",
    backslash_escapes=True,
    double_quoted_strings=True,
    backticks=True,
    hash_comments=True,
    spaced_dash_comments=True,
    version_dependent=True,
)
MYSQL_NO_BACKSLASH_ESCAPES = replace(MYSQL, backslash_escapes=False)
MYSQL_ANSI_QUOTES = replace(MYSQL, double_quoted_strings=False)
EVERY = pytest.mark.parametrize("dialect", [SQLITE, POSTGRES, MYSQL], ids=["?", "$1", "%s"])


def translated(sql: str, dialect: Dialect, **values: Any) -> str | None:
    bound = bind(sql, values, dialect)
    return None if bound is None else bound[0]


def problem(sql: str, dialect: Dialect, values: dict[Any, Any]) -> str:
    with pytest.raises(QueryExecutionError) as raised:
        bind(sql, values, dialect)
    assert raised.value.statement == sql
    return str(raised.value)


# Each text is followed by a placeholder, so a lexer that loses its place is caught by it.
CODE_BEFORE_B = [
    # strings and quoted identifiers
    (POSTGRES, "':a'"),
    (POSTGRES, "'it''s :a'"),
    (POSTGRES, '":a"'),
    (POSTGRES, '"x""y:a"'),
    (POSTGRES, "'http://h:80/:a'"),
    (POSTGRES, '\'{"k":true, "v": :a}\'::jsonb'),
    (POSTGRES, "'12:30'"),
    (POSTGRES, r"'C:\'"),
    (POSTGRES, r"E'it\'s :a'"),
    (POSTGRES, r"e'it''s \' :a\\'"),
    (POSTGRES, "E'x'\n  '\\' :a'"),
    (POSTGRES, "E'x' -- it's :a\n '\\' :a'"),
    (POSTGRES, r"nameE'C:\'"),
    (POSTGRES, r"U&':a \0441'"),
    (POSTGRES, r"U&'\' UESCAPE '!'"),
    (POSTGRES, "$$ :a it's $$"),
    (POSTGRES, "$$\n:a\n$$"),
    (POSTGRES, "$x$ $$ :a it's $y$ $x$"),
    (POSTGRES, "$größe$ :a $größe$"),
    (POSTGRES, "a$$"),
    (SQLITE, "[x:a it's]"),
    (SQLITE, "`x:a it's`"),
    (SQLITE, r"'C:\'"),
    (MYSQL, "`x:a it's`"),
    (MYSQL, r"'it\'s :a'"),
    (MYSQL, r"'it''s \' :a \\'"),
    (MYSQL, r'"it\"s :a"'),
    (MYSQL, "'x\\\n:a'"),
    (MYSQL, '"it\'s :a"'),
    (MYSQL_NO_BACKSLASH_ESCAPES, r"'C:\'"),
    (MYSQL_NO_BACKSLASH_ESCAPES, r'"C:\"'),
    (MYSQL_ANSI_QUOTES, r'"C:\"'),
    (MYSQL_ANSI_QUOTES, r"'it\'s :a'"),
    # comments
    (POSTGRES, "-- :a don't\n"),
    (POSTGRES, "/* :a it's */"),
    (POSTGRES, "/* x /* y */ :a it's */"),
    (POSTGRES, "--:a\n"),
    (SQLITE, "/* x /* :a */"),
    (MYSQL, "# :a it's\n"),
    (MYSQL, "-- :a it's\r\n"),
    (MYSQL, "--\t:a it's\n"),
    (MYSQL, "/* x /*\n:a */"),
    (MYSQL, "/*! :a */"),
    (MYSQL, "/*+ MAX_EXECUTION_TIME(:a) */"),
    # colons of the database's own
    (POSTGRES, "x::text"),
    (POSTGRES, "a[1:2]"),
    (POSTGRES, "a[l:h]"),
    (POSTGRES, "a[b[1]:h]"),
    (POSTGRES, "a[f(1):h]"),
    (POSTGRES, 'a["l":h]'),
    (POSTGRES, "a[: h]"),
    (POSTGRES, "f(x := 1)"),
    (POSTGRES, "JSON_OBJECT('k':v)"),
    (POSTGRES, "größe:h"),
    (POSTGRES, "a$:h"),
    (MYSQL, "`l`:h"),
    (MYSQL, "@x := 1"),
    # operators that look like placeholders or comments elsewhere
    (POSTGRES, "j ? 'k'"),
    (POSTGRES, "j ?| k"),
    (POSTGRES, "j ?& k"),
    (POSTGRES, "j @? '$.a ? (@ > 1)'"),
    (POSTGRES, "j #>> '{a}'"),
    (POSTGRES, "a$1"),
    (SQLITE, "'$.a'"),
    (MYSQL, "j->>'$.a'"),
    # no names
    (POSTGRES, ":1"),
    (POSTGRES, ":1a"),
    (SQLITE, ":€"),
    (SQLITE, "a:"),
]


@pytest.mark.parametrize(("dialect", "code"), CODE_BEFORE_B)
def test_what_is_no_placeholder_stays_untouched(dialect: Dialect, code: str) -> None:
    mark = {"qmark": "?", "numeric_dollar": "$1", "format": "%s"}[dialect.placeholder]
    assert bind(f"{code} {{:b}}", {"b": 7}, dialect) == (f"{code} {{{mark}}}", (7,))
    assert bind(code, {"b": 7}, dialect) is None


@pytest.mark.parametrize(
    ("dialect", "sql", "expected"),
    [
        (POSTGRES, ":b", "$1"),
        (POSTGRES, "a[:b:2]", "a[$1:2]"),
        (POSTGRES, "a[:b:h]", "a[$1:h]"),
        (POSTGRES, "a[:b::int]", "a[$1::int]"),
        (POSTGRES, "a[1: :b]", "a[1: $1]"),
        (POSTGRES, "a[:b]", "a[$1]"),
        (POSTGRES, ":b::int", "$1::int"),
        (POSTGRES, "f(x:=:b)", "f(x:=$1)"),
        (POSTGRES, "j->:b", "j->$1"),
        (POSTGRES, "j ?:b", "j ?$1"),
        (POSTGRES, "x/* c */:b", "x/* c */$1"),
        (POSTGRES, "-- it's\r\n:b", "-- it's\r\n$1"),
        (POSTGRES, "E'\\\\' || :b || 'x'", "E'\\\\' || $1 || 'x'"),
        (POSTGRES, "$x$ :a $x$ || :b", "$x$ :a $x$ || $1"),
        (SQLITE, "x--y\n:b", "x--y\n?"),
        (SQLITE, "(:b,'%')", "(?,'%')"),
        (MYSQL, "1--:b", "1--%s"),
        (MYSQL, "@x:=:b", "@x:=%s"),
        (MYSQL_NO_BACKSLASH_ESCAPES, r"'\' || :b || '\'", r"'\' || %s || '\'"),
    ],
)
def test_a_placeholder_is_found_next_to_anything_that_ends_no_operand(
    dialect: Dialect, sql: str, expected: str
) -> None:
    assert bind(sql, {"b": 7}, dialect) == (expected, (7,))


@EVERY
@pytest.mark.parametrize("code", ["' :b", '" :b', "/* :b", "-- :b", "/* x"])
def test_what_is_not_closed_reaches_to_the_end(dialect: Dialect, code: str) -> None:
    assert bind(code, {"b": 7}, dialect) is None
    assert bind(f":a {code}", {"a": 1}, dialect) is not None


@pytest.mark.parametrize(
    ("dialect", "code"),
    [
        (POSTGRES, "$$ :b"),
        (POSTGRES, "$x$ :b $y$"),
        (POSTGRES, r"E'\' :b"),
        (POSTGRES, "E'x'\n' :b"),
        (POSTGRES, "/* /* */ :b"),
        (SQLITE, "[ :b"),
        (SQLITE, "` :b"),
    ],
)
def test_what_only_one_database_has_and_is_not_closed_reaches_to_the_end(
    dialect: Dialect, code: str
) -> None:
    assert translated(code, dialect, b=7) is None


def test_a_trailing_backslash_is_no_trap() -> None:
    assert translated(":a || '\\", MYSQL, a=1) == "%s || '\\"


def test_repeated_names_share_a_number_or_repeat_their_value() -> None:
    sql, values = "f(:b, :a, :b)", {"a": 1, "b": 2}
    assert bind(sql, values, POSTGRES) == ("f($1, $2, $1)", (2, 1))
    assert bind(sql, values, SQLITE) == ("f(?, ?, ?)", (2, 1, 2))
    assert bind(sql, values, MYSQL) == ("f(%s, %s, %s)", (2, 1, 2))
    assert bind(":a, :a", {"a": 1}, SQLITE) == ("?, ?", (1, 1))
    assert bind(":a, :a", {"a": 1}, POSTGRES) == ("$1, $1", (1,))


def test_names_are_python_identifiers_ascii_or_not() -> None:
    assert bind("a = :größe", {"größe": 7}, POSTGRES) == ("a = $1", (7,))
    assert bind("a = :名前 AND :_x1", {"名前": 7, "_x1": 8}, MYSQL) == ("a = %s AND %s", (7, 8))
    assert translated("e = :e\u0301", SQLITE, **{"e\u0301": 7}) == "e = ?"


def test_percent_signs_are_doubled_everywhere_for_format_and_nowhere_else() -> None:
    sql = "SELECT a % 2, '%s 5%' /* 5% */ FROM t WHERE DATE_FORMAT(d, '%H') = :h -- 5%"
    result = bind(sql, {"h": "12"}, MYSQL)
    assert result is not None
    assert result[0] % ("'12'",) == sql.replace(":h", "'12'")
    assert translated(sql, SQLITE, h="12") == sql.replace(":h", "?")
    assert translated(sql, POSTGRES, h="12") == sql.replace(":h", "$1")


def test_values_are_passed_on_as_they_are() -> None:
    value = object()
    bound = bind(":a", {"a": value}, MYSQL)
    assert bound is not None
    assert bound[1][0] is value
    assert bind(":a, :b", {"a": (1, 2), "b": None}, POSTGRES) == ("$1, $2", ((1, 2), None))


@EVERY
def test_any_mapping_will_do(dialect: Dialect) -> None:
    bound = bind(":a, :b", UserDict(a=1, b=2), dialect)
    assert bound is not None
    assert bound[1] == (1, 2)


@EVERY
def test_without_a_name_the_mapping_is_left_to_the_driver(dialect: Dialect) -> None:
    for sql in ("", "SELECT 1", "x = ?", "x = $1", "x = %s", "x = %(a)s", "x::jsonb"):
        assert bind(sql, {"a": 1}, dialect) is None
        assert bind(sql, {}, dialect) is None


@EVERY
def test_missing_and_surplus_names_are_listed_and_values_are_not(dialect: Dialect) -> None:
    text = problem(":b, :a, :c", dialect, {"a": "s3cret", "z": "s3cret", 5: "s3cret"})
    assert "missing :b, :c (" in text
    assert "surplus :z, :5 (" in text
    assert "s3cret" not in text
    assert "missing :a (" in problem(":a", dialect, {})
    assert "missing" not in problem(":a", dialect, {"a": 1, "b": 2})


def test_a_default_of_the_mapping_does_not_stand_in_for_a_missing_name() -> None:
    values: defaultdict[str, int] = defaultdict(int, b=1)
    assert "missing :a" in problem("SELECT :a", SQLITE, values)
    assert dict(values) == {"b": 1}


def test_a_surplus_name_that_stands_where_it_does_not_count_is_explained() -> None:
    assert ":h is in the SQL, but" in problem("a[:l:h]", POSTGRES, {"l": 1, "h": 2})
    assert "is in the SQL, but" not in problem(":l, ':hh'", POSTGRES, {"l": 1, "h": 2})


@pytest.mark.parametrize(
    ("dialect", "own"),
    [(SQLITE, "?"), (SQLITE, "?2"), (POSTGRES, "$1"), (MYSQL, "%s"), (MYSQL, "%(b)s")],
)
def test_a_mix_with_the_drivers_own_placeholders_is_refused(dialect: Dialect, own: str) -> None:
    for sql in (f"x = :a\nAND y = {own}", f"x =\n    {own} AND y = :a"):
        assert f"mixes :a with {own} at line 2, column " in problem(sql, dialect, {"a": "s3cret"})
    assert translated(f":a, '{own}' -- {own}", dialect, a=1) is not None


@pytest.mark.parametrize(
    ("dialect", "other"), [(SQLITE, "$1"), (SQLITE, "%s"), (MYSQL, "$1"), (POSTGRES, "%s")]
)
def test_another_drivers_placeholders_are_code(dialect: Dialect, other: str) -> None:
    text = translated(f":a, {other}", dialect, a=1)
    assert text is not None
    assert text.replace("%%", "%").endswith(f", {other}")


def test_one_text_means_what_each_dialect_says_and_the_cache_keeps_them_apart() -> None:
    sql = r"'\' || :a || '\'"
    for _ in range(2):
        assert translated(sql, MYSQL, a=1) is None
        assert translated(sql, MYSQL_NO_BACKSLASH_ESCAPES, a=1) == r"'\' || %s || '\'"
        assert translated(sql, Dialect("qmark"), a=1) == r"'\' || ? || '\'"


def test_a_translation_is_cached_unless_the_text_is_very_long() -> None:
    short, long = "SELECT :a", f"SELECT :a -- {'x' * 20_000}"
    assert translated(short, SQLITE, a=1) is translated(short, replace(SQLITE), a=2)
    assert translated(long, SQLITE, a=1) is not translated(long, SQLITE, a=1)
    assert translated(long, SQLITE, a=1) == translated(long, SQLITE, a=2)


@pytest.mark.parametrize("code", ["-- it's\r", "E'x' -- it's\r '\\' :a'", "-- it's\r\n"])
def test_a_carriage_return_ends_a_comment_on_postgresql(code: str) -> None:
    assert translated(f"{code} :b", POSTGRES, b=1) == f"{code} $1"


def test_a_carriage_return_ends_no_comment_elsewhere() -> None:
    assert translated("-- it's\r :a\n :b", MYSQL, b=1) == "-- it's\r :a\n %s"
    assert translated("-- it's\r :a\n :b", SQLITE, b=1) == "-- it's\r :a\n ?"


@pytest.mark.parametrize(
    "code",
    [
        "/*!40101 SET NAMES 'utf8' */",
        "/*!50003 CREATE TRIGGER `a:b` */",
        "/*M!100100 x = 'it''s :a' */",
        "/*! 2 **/",
        "/*+ INDEX(`t` `i:a`) */",
    ],
)
def test_a_comment_for_some_versions_that_ends_at_one_place_is_passed_over(code: str) -> None:
    assert translated(f"SELECT {code} :b", MYSQL, b=1) == f"SELECT {code} %s"


@pytest.mark.parametrize(
    "code",
    [
        "/*! '*/",
        "/*!99999 don't */",
        "/*!40101 x /* y */",
        "/*!99999 /*/ x /* */ */",
        "/*! x -- y */",
        "/*!50003 x # y */",
        "/*M! `a */",
        '/*M!100100 "a */',
        "/*! 'it\\' */",
        "/*! never closed",
        "$$ it's $$",
        "$js$ it's $js$",
    ],
)
def test_what_only_some_versions_take_for_quoted_is_refused(code: str) -> None:
    text = problem(f"SELECT {code}, :b", MYSQL, {"b": 1})
    assert "quoted from there on depends on the server's version" in text
    assert "line 1, column 8" in text


@pytest.mark.parametrize("code", ["/*! '*/", "$$ it's $$"])
def test_what_has_no_name_is_left_to_the_server_however_it_is_read(code: str) -> None:
    assert bind(f"SELECT {code}, %(b)s", {"b": 1}, MYSQL) is None


def test_identifiers_with_dollars_are_certain() -> None:
    assert translated("SELECT a$b, $c, x$$y, :b", MYSQL, b=1) == "SELECT a$b, $c, x$$y, %s"


def test_twenty_thousand_surplus_names_are_told_at_once_and_briefly() -> None:
    started = monotonic()
    values = {f"name_{number}": number for number in range(20_000)}
    text = problem("SELECT ':name_7', :b", MYSQL, {"b": 1, **values})
    assert monotonic() - started < 5
    assert "surplus :name_0, " in text
    assert "and 19990 more" in text
    assert ":name_7 is in the SQL, but in a string" in text
    assert len(text) < 1000


SCRIPT = """
-- begins; with a comment
SELECT 'a;b'';', "c;d"; ; /* e;f */
SELECT 2 -- g;
"""


@EVERY
def test_a_script_is_split_at_semicolons_that_separate(dialect: Dialect) -> None:
    found = [" ".join(one.split()) for one in statements_of(SCRIPT, dialect)]
    first = """-- begins; with a comment SELECT 'a;b'';', "c;d\""""
    assert found == [first, "/* e;f */ SELECT 2 -- g;"]
    assert list(statements_of(" -- nothing;\n;;", dialect)) == []


def test_a_script_is_split_as_the_dialect_reads_it() -> None:
    assert list(statements_of("DO $a$ x; $$; $a$; /* /* ; */ ; */ y", POSTGRES)) == [
        "DO $a$ x; $$; $a$",
        " /* /* ; */ ; */ y",
    ]
    assert list(statements_of("a$1;b", POSTGRES)) == ["a$1", "b"]


@pytest.mark.parametrize(
    ("dialect", "expected", "values"),
    [
        (SQLITE, "a IN (?, ?) AND b = ?", (1, 2, 3)),
        (MYSQL, "a IN (%s, %s) AND b = %s", (1, 2, 3)),
        (replace(POSTGRES, arrays=True), "a = ANY ($1) AND b = $2", ([1, 2], 3)),
    ],
)
def test_a_list_takes_as_many_places_as_it_has_values(
    dialect: Dialect, expected: str, values: tuple[Any, ...]
) -> None:
    given = {"ids": expand([1, 2]), "b": 3}
    assert bind("a IN (:ids) AND b = :b", given, dialect) == (expected, values)


def test_what_is_one_value_is_no_list() -> None:
    assert expand(n for n in (1, 2)).values == (1, 2)
    for one in ("abc", b"abc"):
        with pytest.raises(TypeError, match="expand"):
            expand(one)


def test_operators_of_lists_are_written_as_those_of_arrays() -> None:
    dialect = replace(POSTGRES, arrays=True)
    found = bind("x NOT\tIN (\n:ids )::text", {"ids": expand([])}, dialect)
    assert found == ("x <> ALL ($1)::text", ([],))


def test_comments_among_the_words_of_a_list_do_not_count() -> None:
    dialect = replace(POSTGRES, arrays=True)
    for sql, expected in {
        "x -- done, or NOT\n IN (:ids)": "x -- done, or NOT\n = ANY ($1)",
        "x /* NOT */ IN (:ids)": "x /* NOT */ = ANY ($1)",
        "x NOT /* a /* b */ :c */ IN (:ids)": "x <> ALL ($1)",
        "x IN -- a\n(/* b */ :ids -- c\n) -- :d": "x = ANY ($1) -- :d",
    }.items():
        assert bind(sql, {"ids": expand([1])}, dialect) == (expected, ([1],))
    for sql in ("x = (-- IN (\n:ids)", "x IN (1, -- IN (\n:ids)", "x IN (:ids /*)*/ , 1)"):
        assert "alone in the parentheses" in problem(sql, dialect, {"ids": expand([1])})
    mysql = "x IN # NOT\n(:ids /* b */) AND y = ':ids'"
    assert translated(mysql, MYSQL, ids=expand([1, 2])) == mysql.replace(":ids ", "%s, %s ")
