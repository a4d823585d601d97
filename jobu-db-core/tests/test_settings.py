"""Settings of pools and databases, given as mappings."""

from __future__ import annotations

import traceback
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, SecretStr, ValidationError

from jobu_db.errors import ConfigurationError
from jobu_db.interpolation import Interpolated
from jobu_db.setting_types import FilePath, MillisecondsOrOff, PoolSize
from jobu_db.settings import DatabaseSettings, PoolConfig, Settings


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


def pool(**values: Any) -> FilePool:
    return parse(pool=values).pool


def problems(**values: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(**values)
    prefix = "db.yaml: databases.main."
    assert all(line.startswith(prefix) for line in caught.value.problems), caught.value.problems
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [line.removeprefix(prefix) for line in caught.value.problems]


def pool_problems(**values: Any) -> list[str]:
    return [line.removeprefix("pool.") for line in problems(pool=values)]


# -- the pool


def test_defaults_are_those_of_the_documentation() -> None:
    assert PoolConfig().model_dump() == {
        "min_size": 0,
        "max_size": 10,
        "timeout": 30.0,
        "max_waiting": None,
        "max_idle": 300.0,
        "max_lifetime": 1800.0,
        "check_after": 30.0,
        "leak_after": None,
        "cleanup_timeout": 5.0,
        "reset": "always",
        "lazy": False,
        "on_connect": None,
    }


def test_a_backend_changes_defaults_and_adds_aliases() -> None:
    assert FilePool().max_size == 5
    assert pool(pool_size=7).model_dump(include={"min_size", "max_size"}) == {
        "min_size": 7,
        "max_size": 7,
    }


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("minsize", "min_size"),
        ("maxsize", "max_size"),
        ("pool_timeout", "timeout"),
        ("max_idle_time", "max_idle"),
        ("max_inactive_connection_lifetime", "max_idle"),
        ("pool_recycle", "max_idle"),
    ],
)
def test_an_alias_means_its_setting_and_contradicts_it(alias: str, name: str) -> None:
    assert getattr(pool(**{alias: 4}), name) == 4
    assert pool_problems(**{name: 4, alias: 4}) == [
        f"{alias}: sets the same as {name}: give only one of them"
    ]


def test_two_aliases_of_one_setting_contradict_each_other() -> None:
    assert pool_problems(pool_recycle=1, max_idle_time=1) == [
        "max_idle_time: sets the same as pool_recycle: give only one of them"
    ]
    assert pool_problems(pool_size=1, max_size=1) == [
        "max_size: sets the same as pool_size: give only one of them"
    ]


def test_aliases_work_in_python_too() -> None:
    assert FilePool(**{"pool_size": 3, "pool_timeout": 2}).timeout == 2.0


@pytest.mark.parametrize(
    "name", ["max_waiting", "max_idle", "max_lifetime", "check_after", "leak_after"]
)
@pytest.mark.parametrize("off", [0, None])
def test_zero_and_null_are_off_where_off_makes_sense(name: str, off: object) -> None:
    assert getattr(pool(**{name: off}), name) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("min_size", None, "must be a whole number from 0 to 100000, not null"),
        ("min_size", -1, "must be a whole number from 0 to 100000, not -1"),
        ("max_size", 0, "must be a whole number from 1 to 100000, not 0"),
        ("max_size", None, "must be a whole number from 1 to 100000, not null"),
        ("max_size", 2.5, "must be a whole number from 1 to 100000, not 2.5"),
        ("max_size", "5", "must be a whole number from 1 to 100000, not '5'"),
        ("max_size", True, "must be a whole number from 1 to 100000, not true"),
        ("max_size", [5], "must be a whole number from 1 to 100000, not a list"),
        ("max_size", 2**64, "must be a whole number from 1 to 100000, not a huge number"),
        ("timeout", 0, "must be a number above 0, not 0"),
        ("timeout", None, "must be a number above 0, not null"),
        ("timeout", -1.5, "must be a number above 0, not -1.5"),
        ("timeout", True, "must be a number above 0, not true"),
        ("timeout", float("nan"), "must be a number above 0, not nan"),
        ("timeout", float("inf"), "must be a number above 0, not inf"),
        ("timeout", 10**400, "must be a number above 0, not a huge number"),
        ("cleanup_timeout", 0, "must be a number above 0, not 0"),
        ("max_waiting", -1, "must be a whole number from 0 to 2147483647 or null, not -1"),
        ("max_idle", -1, "must be a number of at least 0 or null, not -1"),
        ("max_idle", float("inf"), "must be a number of at least 0 or null, not inf"),
        ("max_lifetime", {}, "must be a number of at least 0 or null, not a mapping"),
        ("leak_after", False, "must be a number of at least 0 or null, not false"),
        ("reset", "Always", "must be always or never, not 'Always'"),
        ("reset", None, "must be always or never, not null"),
        ("reset", True, "must be always or never, not true"),
        ("lazy", "yes", "must be true or false, not 'yes'"),
        ("lazy", 1, "must be true or false, not 1"),
        ("lazy", None, "must be true or false, not null"),
        ("on_connect", "f", "must be an async function, which only Python code can give"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(name: str, value: object, message: str) -> None:
    assert pool_problems(**{name: value}) == [f"{name}: {message}"]


def test_a_number_too_long_to_print_is_told_without_it() -> None:
    assert pool_problems(max_waiting=10**6000)[0].endswith("not a huge number")
    assert pool_problems(timeout=10**6000)[0].endswith("not a huge number")


def test_min_size_above_max_size_is_a_contradiction() -> None:
    told = "max_size: must not be below min_size: 5 is below 6"
    assert pool_problems(min_size=6) == [told]
    assert pool_problems(min_size=6, max_size=5, timeout=0) == [
        told,
        "timeout: must be a number above 0, not 0",
    ]
    assert pool(min_size=5).max_size == 5


def test_on_connect_is_a_function_and_not_in_the_schema() -> None:
    async def on_connect(connection: object) -> None:
        raise NotImplementedError

    assert pool(on_connect=on_connect).on_connect is on_connect
    assert pool(on_connect=None).on_connect is None
    assert "on_connect" not in PoolConfig.model_json_schema()["properties"]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        PoolConfig().max_size = 3  # type: ignore[misc]


def test_the_constructor_tells_all_problems_in_the_same_words() -> None:
    with pytest.raises(ValidationError) as caught:
        FilePool(**{"pool_size": 0, "timeout": 0, "max_szie": 1})
    told = {(each["loc"], each["msg"]) for each in caught.value.errors()}
    assert (("pool_size",), "must be a whole number from 1 to 100000, not 0") in told
    assert (("timeout",), "must be a number above 0, not 0") in told
    assert len(told) == 3


def test_a_pattern_and_a_single_choice_are_told_as_what_is_allowed() -> None:
    class Narrow(DatabaseSettings):
        type: Literal["file"]
        mode: Annotated[str, Field(pattern="^[a-z]+$")]

    with pytest.raises(ConfigurationError) as caught:
        Narrow.parse("main", {"type": "dog", "mode": "5"})
    assert caught.value.problems == (
        "databases.main.type: must be file, not 'dog'",
        "databases.main.mode: must be text matching ^[a-z]+$, not '5'",
    )


# -- a database


def test_all_problems_are_told_at_once_each_with_its_key() -> None:
    told = problems(
        path="",
        init_sql=3,
        pool={"maxsize": "many", "max_szie": 1, "reset": "no", "pool_recycle": -1, "max_idle": 1},
        options={"busy_timeout": -1, "journal_mode": "wall", "parameters": 5},
        pasword="hunter2",
    )
    keys = sorted(line.split(":")[0] for line in told)
    assert keys == sorted(
        [
            "path",
            "init_sql",
            "pool.maxsize",
            "pool.max_szie",
            "pool.reset",
            "pool.max_idle",
            "pool.pool_recycle",
            "options.busy_timeout",
            "options.journal_mode",
            "options.parameters",
            "pasword",
        ]
    )


def test_an_unknown_key_is_told_with_the_nearest_and_the_allowed_ones() -> None:
    assert problems(options={"bussy_timeout": 1}) == [
        "options.bussy_timeout: unknown key; did you mean busy_timeout? "
        "allowed: busy_timeout, journal_mode, parameters"
    ]
    assert problems(options={"colour": 1}) == [
        "options.colour: unknown key; allowed: busy_timeout, journal_mode, parameters"
    ]


def test_a_key_one_level_too_high_is_told_where_it_belongs() -> None:
    assert "did you mean options.busy_timeout?" in problems(busy_timeout=1)[0]
    assert "did you mean pool.pool_size?" in problems(pool_size=1)[0]


def test_what_is_missing_is_told_with_what_it_would_be() -> None:
    with pytest.raises(ConfigurationError) as caught:
        FileSettings.parse("main", {})
    assert caught.value.problems == (
        "databases.main.type: is required: non-empty text",
        "databases.main.path: is required: a path",
    )


@pytest.mark.parametrize("value", [None, 5, "text", [], True])
def test_a_database_and_its_parts_are_mappings(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^databases\.main: must be a mapping"):
        FileSettings.parse("main", value)
    assert problems(pool=value)[0].startswith("pool: must be a mapping, not ")


@pytest.mark.parametrize("key", [5, None, True, 2.5, ("a",)])
def test_a_key_that_is_no_text_is_refused(key: object) -> None:
    assert any("a key must be text" in line for line in problems(pool={key: 1, "max_size": 3}))


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (False, False), ("a/b.sql", "a/b.sql")]
)
def test_init_sql_is_a_boolean_or_a_path(value: object, expected: object) -> None:
    found = parse(init_sql=value).init_sql
    assert found is expected or str(found) == expected


def test_a_word_that_yaml_takes_for_a_boolean_is_the_word() -> None:
    assert parse(options={"journal_mode": False}).options.journal_mode == "OFF"
    assert problems(options={"journal_mode": True}) == [
        "options.journal_mode: must be WAL or OFF, not true"
    ]


def test_a_number_where_text_is_wanted_needs_quotes() -> None:
    assert problems(type=5) == ["type: must be non-empty text, not 5; put it in quotes"]
    assert problems(password=123456) == ["password: must be text or null; put it in quotes"]


def test_text_from_a_variable_takes_the_type_of_the_setting() -> None:
    parsed = parse(
        path=Interpolated("5"),
        password=Interpolated("0123"),
        init_sql=Interpolated("true"),
        pool={
            "max_size": Interpolated("7"),
            "timeout": Interpolated("2.5"),
            "lazy": Interpolated("on"),
        },
        options={"journal_mode": Interpolated("OFF"), "parameters": {"a": Interpolated("1")}},
    )
    assert parsed.password is not None
    assert parsed.password.get_secret_value() == "0123"
    assert (str(parsed.path), parsed.init_sql) == ("5", True)
    assert (parsed.pool.max_size, parsed.pool.timeout, parsed.pool.lazy) == (7, 2.5, True)
    assert (parsed.options.journal_mode, parsed.options.parameters) == ("OFF", {"a": "1"})


def test_text_from_a_variable_that_is_no_number_is_told() -> None:
    assert pool_problems(max_size=Interpolated("tcp://10.0.0.1:5432")) == [
        "max_size: must be a whole number from 1 to 100000, not 'tcp://10.0.0.1:5432'"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [("a\0b", "contains a NUL character"), ("a\ud800b", "is not valid Unicode text")],
)
def test_text_that_would_break_a_wire_protocol_is_refused(text: str, told: str) -> None:
    assert f"type: {told}" in problems(type=text)
    assert f"password: {told}" in problems(password=text)
    assert f"options.parameters: {told}" in problems(options={"parameters": {"work_mem": text}})
    assert f"options.parameters: {told}" in problems(options={"parameters": {text: 1}})
    assert f"a…: {told}" in problems(**{text: 1})


# -- what is never shown


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


def test_every_problem_is_one_line() -> None:
    assert len(problems(**{"a\nb": 1})) == 1
    assert all("\n" not in line for line in problems(**{"a\nb": 1, "type": 5, "init_sql": 1.5}))


def test_a_long_value_is_cut() -> None:
    (told,) = pool_problems(max_size="x" * 1000)
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
@given(st.dictionaries(NAMES | st.text(max_size=8), JSON | st.dictionaries(NAMES, JSON)))
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
    st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON)),
    st.sampled_from(["pasword", "password", "z"]),
)
def test_no_error_ever_shows_a_secret(values: dict[str, Any], key: str) -> None:
    told = outcome({**values, "path": 5, key: ["hunter2"]})
    assert told
    assert "hunter2" not in "".join(told)
