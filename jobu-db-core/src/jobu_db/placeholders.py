"""One SQL for every database: `:name` placeholders become what the driver takes.

A lexer, not a parser: it tells SQL code from strings, quoted identifiers and comments, and
looks for `:name` in the code alone. What is not closed reaches to the end of the text, for
the server to report.

`:name` is a placeholder if `name.isidentifier()` and the colon does not follow the end of an
operand (a word, a number, a closing quote, `)` or `]`) or another colon. So `x::text`, `a[l:h]`,
`a[f(1):h]`, `x := 1` and `JSON_OBJECT('k':v)` keep their colons, and `a[:x:h]` has one
placeholder, x. For a slice up to a column write `a[: h]`, up to a placeholder `a[1: :h]`.

MySQL's `/*! ... */` counts as a comment: a server of another version skips it, and a value
formatted into it could then end the comment. Where it is not certain how a server reads a text,
that is refused: see `Dialect.version_dependent`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, Literal

from jobu_db.errors import QueryExecutionError

_LONGEST_CACHED = 20_000
"""Longer texts (characters) are built by programs and rarely come twice: they would fill memory."""

_TOLD = 10
"""Names that a message lists."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database writes placeholders, strings and comments; the defaults are standard SQL.

    Attributes:
        placeholder: What the driver takes: `?`, `$1`, or `%s` with `%%` for a percent sign.
        backslash_escapes: A quote behind a backslash does not end a string.
        double_quoted_strings: "x" is a string, with backslash escapes where 'x' has them.
        escape_strings: E'x' is a string with backslash escapes, even where 'x' has none.
        dollar_quotes: $$x$$ and $tag$x$tag$ are strings.
        backticks: `x` is an identifier.
        brackets: [x] is an identifier, not a subscript.
        nested_comments: Each /* in a comment needs a */ of its own.
        hash_comments: # begins a comment.
        spaced_dash_comments: -- begins a comment only before a space or control character.
        return_ends_comments: A carriage return ends a comment that began with --.
        arrays: A list is a value: `x IN (:list)` can be written `x = ANY (:list)`.
        version_dependent: /*! ... */ is code or a comment, and $$x$$ a string or an identifier,
            as the server's version says. A comment that does not end at the same place either
            way, and a $$, make the reading uncertain.
    """

    placeholder: Literal["qmark", "numeric_dollar", "format"]
    _: KW_ONLY
    backslash_escapes: bool = False
    double_quoted_strings: bool = False
    escape_strings: bool = False
    dollar_quotes: bool = False
    backticks: bool = False
    brackets: bool = False
    nested_comments: bool = False
    hash_comments: bool = False
    spaced_dash_comments: bool = False
    return_ends_comments: bool = False
    arrays: bool = False
    version_dependent: bool = False

    def __hash__(self) -> int:
        # Taken at every statement, to find it in the cache: the generated one visits all fields.
        return hash(self.placeholder)


@dataclass(frozen=True, slots=True)
class Expanded:
    """The values of a list, each of which takes a place of its own; see `expand`."""

    values: tuple[Any, ...]


def expand(values: Iterable[Any]) -> Expanded:
    """Give all these values in the place of one: `WHERE id IN (:ids)` with
    `{"ids": expand([1, 2, 3])}`.

    The placeholder stands alone in the parentheses of IN or NOT IN. An empty list is right too:
    nothing is in it. `executemany` does not take it.

    Raises:
        TypeError: A str or bytes is one value, no list of them.
    """
    if isinstance(values, (str, bytes, bytearray)):
        raise TypeError(f"expand() takes a list of values, not a {type(values).__name__}")
    return Expanded(tuple(values))


def bind(
    sql: str, values: Mapping[str, Any], dialect: Dialect
) -> tuple[str, tuple[Any, ...] | None] | None:
    """Translate `:name` placeholders and put the values in their order.

    Returns:
        The SQL for the driver and its positional parameters, None where empty lists were all;
        None if the SQL has no `:name`.

    Raises:
        QueryExecutionError: A name has no value, a value has no name, the SQL has the driver's
            own placeholders as well, or it is not certain what in it is quoted.
    """
    translate = _translate_cached if len(sql) <= _LONGEST_CACHED else _translate
    statement = translate(sql, dialect)
    if statement is None:
        return None
    if values.keys() != statement.names:
        raise _mismatch(sql, statement.names, values)
    # Written as a text with more names, which is translated and cached as any: once for each number
    # of values, not for each call.
    if Expanded in map(type, values.values()):
        written, given = _expanded(sql, values, dialect)
        return bind(written, given, dialect) if given else (written, None)
    return statement.sql, statement.pick(values)


def check_percent(sql: str, given: int | None = None) -> None:
    """Say why `%` formatting of `sql` with positional parameters fails, if it does.

    Args:
        given: How many parameters there are; None leaves the number of `%s` unchecked.

    Raises:
        QueryExecutionError: A `%` is neither `%s` nor `%%`, or there are more or fewer `%s`
            than parameters.
    """
    wanted = 0
    for percent in re.finditer("%(.?)", sql):
        if percent[1] not in ("s", "%"):
            raise QueryExecutionError(
                f"{percent[0]!r} at {_place(sql, percent.start())} is no placeholder: "
                "when parameters are given, write a literal % as %%",
                statement=sql,
            )
        wanted += percent[1] == "s"
    if given is not None and given != wanted:
        raise QueryExecutionError(
            f"the number of %s in the SQL is {wanted}, the number of parameters {given}: "
            "give one for each; write a literal %s, in a string or comment too, as %%s",
            statement=sql,
        )


@dataclass(frozen=True, slots=True)
class _Statement:
    """A translated text.

    Attributes:
        names: Each name once, in the order of first use.
        pick: Takes the values that `sql` needs out of a mapping that has all the names.
    """

    sql: str
    names: KeysView[str]
    pick: Callable[[Mapping[str, Any]], tuple[Any, ...]]


def _translate(sql: str, dialect: Dialect) -> _Statement | None:
    tokens = list(_placeholders(sql, dialect))
    used = [token["name"] for token in tokens if token.lastgroup == "name"]
    if not used:
        return None
    for token in tokens:
        if token.lastgroup == "own":
            raise _mixture(sql, token, used)
    # PostgreSQL's are numbered: a name that is used twice is one parameter, sent once. The others
    # go by position, and take a value for each use.
    names = {name: f"${number}" for number, name in enumerate(dict.fromkeys(used), start=1)}
    literals = _literals(sql, tokens)
    if dialect.placeholder == "numeric_dollar":
        marks = [names[name] for name in used]
        text = "".join(chain.from_iterable(zip(literals, [*marks, ""], strict=True)))
        return _Statement(text, names.keys(), _picker(*names))
    if dialect.placeholder == "format":
        # The driver formats the whole text, strings and comments included.
        text = "%s".join(literal.replace("%", "%%") for literal in literals)
    else:
        text = "?".join(literals)
    return _Statement(text, names.keys(), _picker(*used))


def _expanded(sql: str, values: Mapping[str, Any], dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """Write each expanded name as a list of names, and each of its values under one of them."""
    counts = tuple((name, len(it.values)) for name, it in values.items() if type(it) is Expanded)
    write = _with_lists_cached if len(sql) <= _LONGEST_CACHED else _with_lists
    given: dict[str, Any] = {}
    for name, value in values.items():
        if type(value) is not Expanded:
            given[name] = value
        elif dialect.arrays:
            given[name] = list(value.values)
        else:
            given.update(zip(_names_in_list(name, len(value.values)), value.values, strict=True))
    return write(sql, dialect, counts), given


def _with_lists(sql: str, dialect: Dialect, counts: tuple[tuple[str, int], ...]) -> str:
    written, end, lengths = [], 0, dict(counts)
    code = _without_comments(sql, dialect)
    for token in _placeholders(sql, dialect):
        name = token["name"]
        if name not in lengths:
            continue
        # The pattern ends with \Z, which here is the beginning of the placeholder.
        before, after = _IN.search(code, end, token.start()), _CLOSING.match(code, token.end())
        if before is None or after is None:
            raise QueryExecutionError(
                f":{name} at {_place(sql, token.start())} is given as expand(): it must stand "
                f"alone in the parentheses of IN, as in `IN (:{name})`",
                statement=sql,
            )
        if dialect.arrays:
            operator = "<> ALL" if before["no"] else "= ANY"
            written += [sql[end : before.start()], f"{operator} (:{name})"]
            end = after.end()
        else:
            names = _names_in_list(name, lengths[name])
            inside = ", ".join(f":{each}" for each in names) or _NOTHING
            written += [sql[end : token.start()], inside]
            end = token.end()
    return "".join([*written, sql[end:]])


_with_lists_cached = lru_cache(maxsize=512)(_with_lists)

_IN = re.compile(r"\b(?P<no>NOT\s+)?IN\s*\(\s*\Z", re.IGNORECASE)
_CLOSING = re.compile(r"\s*\)")

_NOTHING = "SELECT NULL FROM (SELECT 1 AS one) AS no_rows WHERE 1 = 0"
"""A list without an element, which IN () cannot be everywhere."""


def _names_in_list(name: str, length: int) -> list[str]:
    # The dot may be part of an identifier, and stands in none that is written by hand.
    return [f"{name}·{number}" for number in range(1, length + 1)]


_translate_cached = lru_cache(maxsize=512)(_translate)


def _placeholders(sql: str, dialect: Dialect) -> Iterator[re.Match[str]]:
    """Find `:name` (group "name") and the driver's own placeholders (group "own") in the code."""
    for token, _ in _tokens(sql, dialect):
        if token.lastgroup == "own" or (token["name"] or "").isidentifier():
            yield token


def _without_comments(sql: str, dialect: Dialect) -> str:
    """Return the text with spaces for its comments, so that all else stays where it is."""
    pieces, end = [], 0
    for token, after in _tokens(sql, dialect):
        if sql[token.start()] in "-#/":
            pieces += [sql[end : token.start()], " " * (after - token.start())]
            end = after
    return "".join([*pieces, sql[end:]])


def _tokens(sql: str, dialect: Dialect) -> Iterator[tuple[re.Match[str], int]]:
    """Find strings, comments and placeholders; yield how each begins, and where it ends."""
    search, position = _lexer(dialect).search, 0
    while token := search(sql, position):
        position = token.end()
        match token.lastgroup:
            case "nested":
                position = end_of_nested_comment(sql, position)
            case "version":
                end = end_of_version_comment(sql, position, dialect)
                if end is None:
                    _refuse_uncertain(sql, token)
                position = end or position
            case "uncertain":
                _refuse_uncertain(sql, token)
        yield token, position


def end_of_nested_comment(sql: str, position: int) -> int:
    """Return where a comment ends whose /* ends at `position`."""
    depth = 1
    for mark in re.compile(r"/\*|\*/").finditer(sql, position):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)


def end_of_version_comment(sql: str, position: int, dialect: Dialect) -> int | None:
    """Return where a comment ends that only some versions of the server take for one.

    Args:
        position: Behind `/*!`.

    Returns:
        None if it does not end at the same place for all versions.
    """
    end = sql.find("*/", position)
    # With the asterisk: it may close the comment, or open another one inside it, /*/.
    rest = _closed_strings(dialect).sub("", sql[position : end + 1])
    if end < 0 or re.search(r"['\"`#\[$]|--|/\*", rest):
        return None
    return end + 2


def _refuse_uncertain(sql: str, token: re.Match[str]) -> None:
    # What has no placeholder anyway is left to the server.
    if re.search(_NAME, sql):
        raise QueryExecutionError(
            f"{token[0]!r} at {_place(sql, token.start())}: what is quoted from there on depends "
            "on the server's version, so that :name cannot be told from text: take it out of this "
            "statement, or give the parameters by position",
            statement=sql,
        )


def _literals(sql: str, tokens: list[re.Match[str]]) -> list[str]:
    """Return the text between the placeholders: one piece more than there are placeholders."""
    starts = [0, *(token.end() for token in tokens)]
    ends = [*(token.start() for token in tokens), len(sql)]
    return [sql[start:end] for start, end in zip(starts, ends, strict=True)]


def _picker(*names: str) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    (name,) = names
    return lambda values: (values[name],)


# The tokens. A server takes any character beyond ASCII for a letter, so the lexer does too.
# Each pattern for a string or comment succeeds once it has begun, at the end of the text if
# need be: the lexer never backtracks out of one, and its time is linear in the text.

_LETTER = r"A-Za-z_\x80-\U0010ffff"
_WORD = _LETTER + "0-9"
_NOT_IN_WORD = rf"(?<![{_WORD}$])"
_NAME = rf"""(?<![{_WORD}$)\]'"`:]):(?P<name>[{_WORD}]+)"""
_OWN = {
    "qmark": r"\?[0-9]*",
    "numeric_dollar": rf"{_NOT_IN_WORD}\$[0-9]+",
    "format": r"%s|%\([^()]*\)s",
}

# A doubled quote needs no rule: it ends one string and begins another of the same kind.
_QUOTED = "{0}[^{0}]*{0}?"
_ESCAPED = r"{0}[^{0}\\]*(?:\\.[^{0}\\]*)*{0}?"
_SINGLE = _ESCAPED.format("'")
# Except here: what follows E'x' directly, or on another line, continues it without an E.
_E_STRING = rf"{_NOT_IN_WORD}[eE]{_SINGLE}(?:(?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*{_SINGLE})*"
_DOLLAR_QUOTED = rf"{_NOT_IN_WORD}\$(?P<tag>(?:[{_LETTER}][{_WORD}]*)?)\$.*?(?:\$(?P=tag)\$|\Z)"


@lru_cache(maxsize=64)
def _lexer(dialect: Dialect) -> re.Pattern[str]:
    own = f"(?P<own>{_OWN[dialect.placeholder]})"
    return re.compile(
        "|".join([*string_patterns(dialect), *_comments(dialect), _NAME, own]), re.DOTALL
    )


def string_patterns(dialect: Dialect) -> Iterator[str]:
    """Return patterns, for DOTALL, of strings and quoted identifiers."""
    string = _ESCAPED if dialect.backslash_escapes else _QUOTED
    yield string.format("'")
    yield (string if dialect.double_quoted_strings else _QUOTED).format('"')
    if dialect.escape_strings:
        yield _E_STRING
    if dialect.dollar_quotes:
        yield _DOLLAR_QUOTED
    if dialect.backticks:
        yield _QUOTED.format("`")
    if dialect.brackets:
        # MariaDB doubles the bracket inside; to SQLite two in a row are an error anyway.
        yield r"\[[^\]]*(?:\]\][^\]]*)*\]?"


def statements_of(script: str, dialect: Dialect) -> Iterator[str]:
    """Yield the statements of a script: what semicolons separate that are neither in a string nor
    in a comment. One of nothing but comments is left out."""
    match = _splitter(dialect).match
    start = position = 0
    something = False
    while token := match(script, position):
        position = token.end()
        if token.lastgroup == "nested":
            position = end_of_nested_comment(script, position)
        elif token.lastgroup == "end":
            if something:
                yield script[start : token.start()]
            start, something = position, False
        elif token.lastgroup is not None:
            something = True
    if something:
        yield script[start:]


@lru_cache(maxsize=64)
def _splitter(dialect: Dialect) -> re.Pattern[str]:
    # In this order: what begins a comment is code if it stands alone.
    code = "|".join([*string_patterns(dialect), rf"[{_WORD}$]+", "."])
    return re.compile(
        "|".join([r"\s+", *_comments(dialect), "(?P<end>;)", f"(?P<code>{code})"]), re.DOTALL
    )


@lru_cache(maxsize=64)
def _closed_strings(dialect: Dialect) -> re.Pattern[str]:
    patterns = (pattern.removesuffix("?") for pattern in string_patterns(dialect))
    return re.compile("|".join(patterns), re.DOTALL)


def _comments(dialect: Dialect) -> Iterator[str]:
    yield line_comment(dialect)
    if dialect.version_dependent:
        yield r"(?P<version>/\*(?:M?!|\+))"
        yield rf"(?P<uncertain>{_NOT_IN_WORD}\$[{_WORD}]*\$)"
    yield r"(?P<nested>/\*)" if dialect.nested_comments else r"/\*.*?(?:\*/|\Z)"


def line_comment(dialect: Dialect) -> str:
    """Return a pattern for the comments that reach to the end of a line."""
    # MySQL looks one character beyond the dashes, and finds a NUL at the end of the text.
    dashes = r"--(?=[\x00-\x20\x7f]|\Z)" if dialect.spaced_dash_comments else "--"
    marks = f"(?:{dashes}|#)" if dialect.hash_comments else dashes
    return marks + (r"[^\n\r]*" if dialect.return_ends_comments else r"[^\n]*")


def _mismatch(sql: str, names: KeysView[str], values: Mapping[str, Any]) -> QueryExecutionError:
    missing = [f":{name}" for name in names if name not in values]
    surplus = [f":{name}" for name in values if name not in names]
    mentioned = set(re.findall(rf":[{_WORD}]+", sql))
    hidden = [name for name in surplus if name in mentioned]
    problems = []
    if missing:
        problems.append(
            f"missing {_list(missing)} (add it to the parameters, or put a space behind a "
            "colon that begins no placeholder)"
        )
    if surplus:
        problems.append(f"surplus {_list(surplus)} (take it out of the parameters)")
    if hidden:
        problems.append(
            f"{_list(hidden)} is in the SQL, but in a string, quoted identifier or comment, "
            "or directly behind a word, quote or bracket, where no placeholder begins"
        )
    told = "; ".join(problems)
    return QueryExecutionError(f"the parameters do not fit the SQL: {told}", statement=sql)


def _list(names: list[str]) -> str:
    told = ", ".join(names[:_TOLD])
    return told if len(names) <= _TOLD else f"{told} and {len(names) - _TOLD} more"


def _mixture(sql: str, token: re.Match[str], used: list[str]) -> QueryExecutionError:
    names = _list([f":{name}" for name in dict.fromkeys(used)])
    return QueryExecutionError(
        f"the SQL mixes {names} with {token[0]} at {_place(sql, token.start())}: "
        "write every placeholder as :name",
        statement=sql,
    )


def _place(sql: str, index: int) -> str:
    lines = sql[:index].split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"
