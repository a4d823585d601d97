"""Settings of databases, given as mappings: what is taken, and how problems are told."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, SecretStr

from jobu_db.errors import ConfigurationError
from jobu_db.settings import DatabaseSettings, PoolConfig, Settings
from jobu_db.settings.types import FilePath, MillisecondsOrOff, PoolSize
from jobu_db.settings.variables import Interpolated


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
    assert parse().init_sql is False
    found = parse(init_sql=value).init_sql
    assert found is expected or str(found) == expected


def test_a_word_that_yaml_takes_for_a_boolean_is_the_word() -> None:
    assert parse(options={"journal_mode": False}).options.journal_mode == "OFF"
    assert problems(options={"journal_mode": True}) == [
        "options.journal_mode: must be WAL or OFF, not true"
    ]


def test_a_foreign_object_is_told_by_its_type_alone() -> None:
    told = "init_sql: must be true or false or a path, not a value of type object"
    assert problems(init_sql=object()) == [told]


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


@pytest.mark.parametrize("value", ["hunter2", "70000000", "-5", "1e9", "true", ""])
def test_what_came_from_a_variable_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """`max_size: ${PASSWORD}`, where ${POOL_SIZE} was meant."""
    monkeypatch.setenv("PASSWORD", value)
    assert problems(pool={"max_size": "${PASSWORD}"}) == [
        "pool.max_size: must be a whole number from 1 to 100000, not what the variable holds"
    ]
    assert problems(pool={"reset": "${PASSWORD:-x}${PASSWORD:-x}"}) == [
        "pool.reset: must be always or never, not what the variable holds"
    ]


@pytest.mark.parametrize("key", ["pool", "options"])
def test_what_came_from_a_variable_is_not_shown_in_place_of_a_mapping(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    assert problems(**{key: "${PASSWORD}"}) == [
        f"{key}: must be a mapping, not what the variable holds"
    ]


def test_a_contradiction_shows_no_value_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "4711")
    (told,) = problems(pool={"min_size": "${PASSWORD}", "max_size": 3})
    assert "4711" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [("a\0b", "contains a NUL character"), ("a\ud800b", "is not valid Unicode text")],
)
def test_text_that_would_break_a_wire_protocol_is_refused(text: str, told: str) -> None:
    assert f"type: {told}" in problems(type=text)
    assert f"password: {told}" in problems(password=text)
    assert f"options.parameters.work_mem: {told}" in problems(
        options={"parameters": {"work_mem": text}}
    )
    assert f"options.parameters: {told}" in problems(options={"parameters": {text: 1}})
    assert f"a…: {told}" in problems(**{text: 1})


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
