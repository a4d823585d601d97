"""Settings of the pool: names, defaults, and what is refused."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from jobu_db.errors import ConfigurationError
from jobu_db.settings import DatabaseSettings, PoolConfig
from jobu_db.settings.types import PoolSize


class FilePool(PoolConfig):
    aliases: ClassVar = {**PoolConfig.aliases, "pool_size": ("min_size", "max_size")}

    max_size: PoolSize = 5


class FileSettings(DatabaseSettings):
    pool: FilePool = FilePool()


def pool(**values: Any) -> FilePool:
    return FileSettings.parse("main", {"type": "file", "pool": values}).pool


def pool_problems(**values: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        pool(**values)
    prefix = "databases.main.pool."
    assert all(line.startswith(prefix) for line in caught.value.problems), caught.value.problems
    return [line.removeprefix(prefix) for line in caught.value.problems]


def test_defaults_are_those_of_the_documentation() -> None:
    assert PoolConfig().model_dump() == {
        "min_size": 0,
        "max_size": 10,
        "timeout": 30.0,
        "max_waiting": None,
        "max_idle": 300.0,
        "max_lifetime": 1800.0,
        "check_after": 5.0,
        "check_timeout": 1.0,
        "commit_timeout": 30.0,
        "commit_limit": 300.0,
        "silence_timeout": 20.0,
        "leak_after": None,
        "slow_acquire": 2.0,
        "slow_statement": None,
        "slow_transaction": None,
        "cleanup_timeout": 5.0,
        "reset": "always",
        "lazy": False,
        "values_in_causes": True,
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
    given: dict[str, Any] = {"pool_size": 3, "pool_timeout": 2}
    assert FilePool(**given).timeout == 2.0


@pytest.mark.parametrize(
    "name",
    ["max_waiting", "max_idle", "max_lifetime", "check_after", "silence_timeout", "leak_after"],
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
        ("check_timeout", 0, "must be a number above 0, not 0"),
        ("commit_timeout", None, "must be a number above 0, not null"),
        ("commit_limit", 0, "must be a number above 0, not 0"),
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


def test_the_limit_of_a_commit_is_not_below_the_time_after_which_it_is_asked_after() -> None:
    assert pool(commit_timeout=400, commit_limit=400).commit_limit == 400
    assert pool_problems(commit_timeout=400) == [
        "commit_limit: must not be below commit_timeout; its default is 300"
    ]
    assert pool_problems(commit_timeout=20, commit_limit=10) == [
        "commit_limit: must not be below commit_timeout"
    ]


def test_a_number_too_long_to_print_is_told_without_it() -> None:
    assert pool_problems(max_waiting=10**6000)[0].endswith("not a huge number")
    assert pool_problems(timeout=10**6000)[0].endswith("not a huge number")


def test_min_size_above_max_size_is_a_contradiction() -> None:
    told = "max_size: must not be below min_size; its default is 5"
    assert pool_problems(min_size=6) == [told]
    assert pool_problems(min_size=6, max_size=5, timeout=0) == [
        "max_size: must not be below min_size",
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
    with pytest.raises(AttributeError, match="PoolConfig cannot be changed: max_size"):
        PoolConfig().max_size = 3  # type: ignore[misc]


def test_the_constructor_tells_all_problems_in_the_same_words() -> None:
    given: dict[str, Any] = {"pool_size": 0, "timeout": 0, "max_szie": 1}
    with pytest.raises(ValidationError) as caught:
        FilePool(**given)
    told = {(each["loc"], each["msg"]) for each in caught.value.errors()}
    assert (("pool_size",), "must be a whole number from 1 to 100000, not 0") in told
    assert (("timeout",), "must be a number above 0, not 0") in told
    assert len(told) == 3
