from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml

from jobu_db.settings.variables import Interpolated, interpolate, unresolved

ENVIRONMENT = {"HOST": "db.example", "EMPTY": "", "PORT": "5432"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${HOST}", "db.example"),
        ("${HOST}:${PORT}", "db.example:5432"),
        ("${NONE:-spare}", "spare"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b $HOME {x}", "a:-b $HOME {x"),
        ("${EMPTY:-spare}", "spare"),
        ("${EMPTY}", ""),
        ("${HOST:-spare}", "db.example"),
        ("$${HOST}", "${HOST}"),
        ("$$${HOST}", "$${HOST}"),
        ("$HOST pa$$word $", "$HOST pa$$word $"),
    ],
)
def test_variables_are_replaced(text: str, expected: str) -> None:
    once = interpolate({"key": text}, ENVIRONMENT)
    assert once == {"key": expected}
    assert interpolate(once, {"B": "again"}) == once, "what a variable held is not searched"


def test_the_value_of_a_variable_is_not_searched_for_variables() -> None:
    assert interpolate("${A}", {"A": "${B} $${C}"}) == "${B} $${C}"


def test_keys_and_other_scalars_are_left_alone() -> None:
    data = {"${HOST}": [1, 2.5, True, None, {"deep": ["${PORT}"]}]}
    expected = {"${HOST}": [1, 2.5, True, None, {"deep": ["5432"]}]}
    assert interpolate(data, ENVIRONMENT) == expected


def test_all_missing_variables_are_told_with_their_keys() -> None:
    given = {"a": "${X}${Y}", "b": ["${HOST}", "${Z}"]}
    problems = list(unresolved(interpolate(given, ENVIRONMENT)))
    assert problems == list(unresolved(interpolate(interpolate(given, ENVIRONMENT), ENVIRONMENT)))
    assert [(path, message.split(" is not set")[0]) for path, message in problems] == [
        (("a",), "the environment variable X"),
        (("a",), "the environment variable Y"),
        (("b", 1), "the environment variable Z"),
    ]


@pytest.mark.parametrize("text", ["${", "a${hunter2", "${1A}", "${A B}", "${}", "${A:-${B}}"])
def test_what_is_no_variable_is_refused_without_being_repeated(text: str) -> None:
    problems = list(unresolved(interpolate({"password": text}, {"A": "a", "B": "b"})))
    assert [path for path, _ in problems] == [("password",)]
    assert "write $${ for a literal ${" in problems[0][1]
    assert "hunter2" not in problems[0][1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5432", 5432),
        ("-7", -7),
        ("+7", 7),
        ("2.5", 2.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("007", 7),
        ("true", True),
        ("No", False),
        ("OFF", False),
        ("", ""),
        ("null", "null"),
        ("nan", "nan"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        (" 5", " 5"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_only_what_is_wholly_a_number_or_boolean_is_one(text: str, value: object) -> None:
    typed = Interpolated(text).typed()
    assert (typed, type(typed)) == (value, type(value))


@pytest.mark.parametrize("word", ["true", "yes", "on", "false", "no", "off"])
@pytest.mark.parametrize("write", [str.lower, str.upper, str.capitalize])
def test_a_word_is_the_boolean_that_it_is_in_yaml(word: str, write: Callable[[str], str]) -> None:
    assert Interpolated(write(word)).typed() is yaml.safe_load(write(word))
