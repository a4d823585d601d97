"""`:name` placeholders in SQL that nobody thought of, with SQLite itself as one of the judges."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobu_db.errors import QueryExecutionError
from jobu_db.placeholders import Dialect, bind

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

VALUES = {"a": 1, "b": "two", "größe": 3.5}
PLACEHOLDER = st.sampled_from([f":{name}" for name in VALUES])
FLAGS = [field.name for field in fields(Dialect) if field.name != "placeholder"]
DIALECTS = st.sets(st.sampled_from(FLAGS)).map(
    lambda flags: Dialect("format", **dict.fromkeys(flags, True))
)
SQLITE = Dialect("qmark", backticks=True, brackets=True)

# What a careless lexer trips over: all that begins or ends something, and names.
HOSTILE = st.lists(st.sampled_from([*"'\"`[]$\\/*-#:%?é 1", "$x$", ":a", ":b", "%s", "$1"]))
CONTENT = HOSTILE.map("".join)
TOKENS = [*"'\"`[]$\\#%?()=,x1é \n\r", "''", "$$", "$x$", "/*", "*/", "--", "-- ", "E'", "%s", "$1"]
COLONS = [":", "::", ":1", ":a", " :a", " :b", "(:größe", ":a:b"]
TEXTS = st.lists(st.sampled_from(TOKENS + COLONS)).map("".join)


def _quoted(quote: str, *, escapes: bool) -> st.SearchStrategy[str]:
    doubled = CONTENT.map(lambda text: text.replace(quote, quote * 2))
    if not escapes:
        return doubled.map(lambda text: f"{quote}{text}{quote}")
    escaped = CONTENT.map(lambda text: text.replace("\\", "\\\\").replace(quote, f"\\{quote}"))
    both = doubled.map(lambda text: text.replace("\\", "\\\\"))
    return (escaped | both).map(lambda text: f"{quote}{text}{quote}")


def _dollar_quoted(tag: str) -> st.SearchStrategy[str]:
    fits = CONTENT.filter(lambda text: f"{text}{tag}".index(tag) == len(text))
    return fits.map(lambda text: f"{tag}{text}{tag}")


def strings(dialect: Dialect) -> st.SearchStrategy[str]:
    """Strings and quoted identifiers, closed, with anything in them."""
    escapes = dialect.backslash_escapes
    kinds = [
        _quoted("'", escapes=escapes),
        _quoted('"', escapes=escapes and dialect.double_quoted_strings),
    ]
    if dialect.escape_strings:
        kinds.append(_quoted("'", escapes=True).map(lambda text: f"E{text}"))
    if dialect.dollar_quotes:
        kinds += [_dollar_quoted("$$"), _dollar_quoted("$x$")]
    if dialect.backticks:
        kinds.append(_quoted("`", escapes=False))
    if dialect.brackets:
        kinds.append(CONTENT.map(lambda text: f"[x{text.replace(']', '')}]"))
    return st.one_of(kinds)


def comments(dialect: Dialect) -> st.SearchStrategy[str]:
    """Comments, closed, with anything in them."""
    harmless = CONTENT.map(lambda text: text.replace("*", "").replace("/", ""))
    kinds = [
        CONTENT.map(lambda text: f"-- {text}\n"),
        harmless.map(lambda text: f"/*{text}*/"),
    ]
    if dialect.hash_comments:
        kinds.append(CONTENT.map(lambda text: f"#{text}\n"))
    if dialect.nested_comments:
        kinds.append(harmless.map(lambda text: f"/*{text}/*{text}*/{text}/**/{text}*/"))
    return st.one_of(kinds)


def bound_to_its_names(sql: str, dialect: Dialect) -> tuple[str, tuple[Any, ...]] | None:
    """Give each name that the SQL has its own placeholder as its value."""
    try:
        return bind(sql, {}, dialect)
    except QueryExecutionError as error:
        if "missing" not in str(error):
            return None
        missing = str(error).split("missing ")[1].split(" (")[0].split(", ")
        return bind(sql, {name[1:]: name for name in missing}, dialect)


@given(st.data(), DIALECTS)
def test_closed_strings_and_comments_hide_all_and_only_their_content(
    data: st.DataObject, dialect: Dialect
) -> None:
    pieces = data.draw(st.lists(strings(dialect) | comments(dialect) | PLACEHOLDER))
    used = [piece[1:] for piece in pieces if piece.startswith(":")]
    bound = bind(" , ".join(pieces), {name: VALUES[name] for name in used}, dialect)
    if not used:
        assert bound is None
        return
    expected = ("%s" if piece.startswith(":") else piece.replace("%", "%%") for piece in pieces)
    assert bound == (" , ".join(expected), tuple(VALUES[name] for name in used))


@given(TEXTS, DIALECTS)
@example("E'\\'\n' :a", Dialect("format", escape_strings=True))
def test_formatting_any_translation_with_the_placeholders_restores_the_text(
    sql: str, dialect: Dialect
) -> None:
    bound = bound_to_its_names(sql, dialect)
    if bound is not None:
        assert bound[0] % bound[1] == sql


@given(TEXTS.filter(lambda text: not {"%", "?", "$"} & set(text)), DIALECTS)
def test_all_styles_find_the_same_placeholders(sql: str, dialect: Dialect) -> None:
    bound = bound_to_its_names(sql, dialect)
    if bound is None:
        return
    text, names = bound
    numbers = {name: f"${number}" for number, name in enumerate(dict.fromkeys(names), start=1)}
    qmark = bound_to_its_names(sql, replace(dialect, placeholder="qmark"))
    numeric = bound_to_its_names(sql, replace(dialect, placeholder="numeric_dollar"))
    assert qmark == (text % (("?",) * len(names)), names)
    assert numeric == (text % tuple(numbers[name] for name in names), tuple(numbers))


@given(st.data())
def test_sqlite_reads_the_translation_as_it_reads_its_own_names(data: st.DataObject) -> None:
    column = st.tuples(PLACEHOLDER, comments(SQLITE), strings(SQLITE))
    columns = data.draw(st.lists(column, min_size=1))
    sql = "SELECT " + ", ".join(f"{name} {comment} AS {alias}" for name, comment, alias in columns)
    used = {name[1:] for name, _, _ in columns}
    with closing(sqlite3.connect(":memory:")) as connection:
        named = connection.execute(sql, VALUES)
        expected = named.description, named.fetchall()
        bound = bind(sql, {name: VALUES[name] for name in used}, SQLITE)
        assert bound is not None
        translated = connection.execute(*bound)
        assert (translated.description, translated.fetchall()) == expected


@pytest.mark.parametrize(
    "piece",
    [
        "'\\",
        "E'' -- ",
        "E''\n",
        "E'' ",
        "$",
        " $a",
        "$a$b",
        "/*",
        "*/",
        "x:a",
        ":",
        "[",
        "\\",
        " --\n",
    ],
)
@pytest.mark.parametrize("escapes", [False, True])
def test_time_is_linear_in_the_text(piece: str, *, escapes: bool) -> None:
    """Quadratic time would take minutes here, exponential time for ever."""
    dialect = Dialect(
        "format",
        backslash_escapes=escapes,
        escape_strings=True,
        dollar_quotes=True,
        nested_comments=escapes,
    )
    assert bind(piece * 300_000, {}, dialect) is None
