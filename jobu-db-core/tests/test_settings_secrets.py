"""What a settings error never shows, whatever was given."""

from __future__ import annotations

import traceback
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from jobu_db.errors import ConfigurationError
from jobu_db.settings import DatabaseSettings, PoolConfig, Settings
from jobu_db.settings.types import FilePath, MillisecondsOrOff, PoolSize


class Options(Settings):
    busy_timeout: MillisecondsOrOff = 5000
    journal_mode: Literal["WAL", "OFF"] = "WAL"
    parameters: dict[str, str | int] = Field(default_factory=dict)


class FilePool(PoolConfig):
    aliases: ClassVar = {**PoolConfig.aliases, "pool_size": ("min_size", "max_size")}

    max_size: PoolSize = 5


class FileSettings(DatabaseSettings):
    path: FilePath
    password: SecretStr | None = None
    pool: FilePool = FilePool()
    options: Options = Options()


def parse(**values: Any) -> FileSettings:
    return FileSettings.parse("main", {"type": "file", "path": "x.db", **values}, "db.yaml")


def problems(**values: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(**values)
    prefix = "db.yaml: databases.main."
    assert all(line.startswith(prefix) for line in caught.value.problems), caught.value.problems
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [line.removeprefix(prefix) for line in caught.value.problems]


@pytest.mark.parametrize(
    "values",
    [
        {"pasword": "hunter2"},
        {"pasword": {"deep": ["hunter2"]}},
        {"pool": {"pasword": "hunter2"}},
        {"password": ["hunter2"]},
        {"password": {"value": "hunter2"}},
        {"path": {"password": "hunter2"}},
        {"path": ["hunter2"]},
        {"pool": ["hunter2"]},
        {"password:hunter2": None},
        {"password=hunter2": None},
        {"password hunter2": None},
        {"password\nhunter2": None},
        {"options": {"parameters": {"password": ["hunter2"]}}},
        {"options": {"busy_timeout": "mysql://root:hunter2@db:3306/jobu"}},
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(**values)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_a_value_under_a_free_key_is_not_told() -> None:
    assert problems(options={"parameters": {"work_mem": ["hunter2"]}}) == [
        "options.parameters.work_mem: must be text or a whole number"
    ]


def test_an_attempt_to_change_a_setting_does_not_show_it() -> None:
    parsed = parse()
    with pytest.raises(AttributeError, match="cannot be changed: password") as caught:
        setattr(parsed, "password", "hunter2")  # noqa: B010
    assert "hunter2" not in str(caught.value)


def test_every_problem_is_one_line() -> None:
    assert len(problems(**{"a\nb": 1})) == 1
    assert all("\n" not in line for line in problems(**{"a\nb": 1, "type": 5, "init_sql": 1.5}))


def test_a_long_value_is_cut() -> None:
    (told,) = problems(pool={"max_size": "x" * 1000})
    assert len(told) < 200


def test_repr_and_dump_keep_the_secret() -> None:
    parsed = parse(password="hunter2")
    assert "hunter2" not in f"{parsed} {parsed!r} {parsed.model_dump()} {parsed.model_dump_json()}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [*PoolConfig.model_fields, *PoolConfig.aliases, *FileSettings.model_fields, "busy_timeout"]
)


def outcome(values: dict[str, Any]) -> tuple[str, ...]:
    try:
        FileSettings.parse("main", values, "db.yaml")
    except ConfigurationError as error:
        return error.problems
    return ()


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        NAMES | st.text(max_size=8), JSON | st.dictionaries(NAMES, JSON, max_size=3), max_size=6
    )
)
def test_whatever_is_given_the_answer_is_settings_or_problems_in_plain_words(
    values: dict[str, Any],
) -> None:
    for line in outcome(values):
        assert line.startswith("db.yaml: databases.main")
        assert "Input should" not in line
        assert "Value error" not in line
        assert line.encode()


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON, max_size=3), max_size=6),
    st.sampled_from(["pasword", "password", "z"]),
)
def test_no_error_ever_shows_a_secret(values: dict[str, Any], key: str) -> None:
    told = outcome({**values, "path": 5, key: ["hunter2"]})
    assert told
    assert "hunter2" not in "".join(told)
