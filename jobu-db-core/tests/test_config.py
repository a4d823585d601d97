"""From a file or mapping to the checked settings of the databases chosen."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from jobu_db.errors import (
    BackendLoadError,
    BackendNotFoundError,
    ConfigurationError,
    DatabaseNotFoundError,
)
from jobu_db.settings import DatabaseSettings
from jobu_db.settings.loader import load_config, parse_databases
from jobu_db.settings.types import FilePath


class FileSettings(DatabaseSettings):
    path: FilePath
    password: SecretStr | None = None


def settings_class_for(kind: str) -> type[DatabaseSettings]:
    if kind != "file":
        raise BackendNotFoundError(f"no backend for {kind}")
    return FileSettings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "database.yaml"


def load(file: Path, content: str) -> dict[str, Any]:
    file.write_text(content)
    return load_config(file)


def problems(file: Path, content: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(file, content)
    assert all(line.startswith(f"{file}: ") for line in caught.value.problems)
    return [line.removeprefix(f"{file}: ") for line in caught.value.problems]


TWO = """
databases:
  one: {type: file, path: a.db, pool: {max_size: "${SIZE:-3}"}}
  two: {type: file, path: b.db, password: "${PASSWORD}"}
"""


# -- load_config


def test_the_example_file_is_read_as_written() -> None:
    example = Path(__file__).parents[2] / "config" / "database.yaml"
    assert load_config(example) == {
        "databases": {
            "default": {
                "type": "sqlite",
                "path": "data/jobu.db",
                "pool": {"pool_size": 5, "pool_timeout": 30.0, "max_idle_time": 300.0},
                "options": {"busy_timeout": 5000, "journal_mode": "WAL"},
            },
            "postgres_main": {
                "type": "postgres",
                "host": "localhost",
                "port": 5432,
                "database": "jobu",
                "user": "jobu",
                "password": "jobu_dev",
                "pool": {
                    "min_size": 2,
                    "max_size": 10,
                    "max_inactive_connection_lifetime": 300.0,
                },
                "options": {"statement_timeout": 30000, "timezone": "UTC"},
            },
            "mysql_main": {
                "type": "mysql",
                "host": "localhost",
                "port": 3306,
                "database": "jobu",
                "user": "jobu",
                "password": "jobu_dev",
                "pool": {"minsize": 2, "maxsize": 10, "pool_recycle": 300},
                "options": {"charset": "utf8mb4", "autocommit": False},
            },
        }
    }


def test_variables_are_replaced_from_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "0123")
    config = load(file, TWO)
    assert config["databases"]["two"]["password"] == "0123"
    assert json.loads(json.dumps(config)) == config
    parsed = parse_databases(config, None, settings_class_for)
    assert parsed["one"].pool.max_size == 3


def test_all_missing_variables_are_told_with_their_keys(file: Path) -> None:
    content = "databases: {a: {type: x, b: '${NONE_1}', c: ['${NONE_2}']}, d: {type: '${NONE_3}'}}"
    fix = "is not set; set it, or write ${"
    told = problems(file, content)
    assert [line.split(fix)[0] for line in told] == [
        "databases.a.b: the environment variable NONE_1 ",
        "databases.a.c[0]: the environment variable NONE_2 ",
        "databases.d.type: the environment variable NONE_3 ",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("5", "must be a mapping with the key databases"),
        ("[a]", "must be a mapping with the key databases"),
        ("databases:", "databases: is required: a mapping of each database's name"),
        ("databases: []", "databases: is required: a mapping of each database's name"),
        ("x-y: 1", "databases: is required: a mapping of each database's name"),
        ("databses: {}", "databases: is required: a mapping of each database's name"),
        ("databses: {}", "to its settings; did you misspell it as databses?"),
        ("DATABASES: {}", "did you misspell it as DATABASES?"),
        ("logging: {}\ndatabase: {}", "did you misspell it as database?"),
        ("database hunter2: {}", "did you misspell it as database…?"),
        ("databases: {a: 5}", "databases.a: must be a mapping of settings, with type"),
        ("databases: {a: }", "databases.a: must be a mapping of settings, with type"),
        ("databases: {a: {path: b}}", "databases.a.type: is required: the backend"),
        ("databases: {a: {type: 5}}", "databases.a.type: is required: the backend"),
        ("databases: {'': {type: b}}", "the name of a database must be text that is not empty"),
        ("databases: {5: {type: b}}", "line 1: databases: a key is not text; put it in quotes"),
    ],
)
def test_a_file_of_another_shape_is_told(file: Path, content: str, told: str) -> None:
    assert told in problems(file, content)[0]


def test_all_faults_of_shape_are_told_at_once(file: Path) -> None:
    assert len(problems(file, "databases: {a: 5, b: {}, '': {}}\nc: 1")) == 4


def test_other_keys_at_the_top_level_are_somebody_elses(file: Path) -> None:
    """A program hands over one mapping, merged from the files of all its parts."""
    config = load(file, "databases: {}\nworker: {pool_size: '${NOT_SET}'}\nx: ${")
    assert dict(config) == {"databases": {}, "worker": {"pool_size": "${NOT_SET}"}, "x": "${"}
    merged = {"databases": {"one": {"type": "file", "path": "a"}}, "worker": {"pool_size": 5}}
    assert list(parse_databases(merged, None, settings_class_for)) == ["one"]


def test_a_file_may_be_named_by_text(file: Path) -> None:
    file.write_text("databases: {}\nx-anchors: {}")
    config = load_config(os.fspath(file))
    assert (dict(config), config.source) == ({"databases": {}, "x-anchors": {}}, str(file))


def test_a_missing_file_is_a_configuration_error(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file"):
        load_config(file)


# -- parse_databases


@pytest.mark.parametrize("kind", ["path", "text", "config", "mapping"])
def test_a_configuration_is_a_path_or_a_mapping(
    file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("PASSWORD", "pw")
    config = load(file, TWO)
    given: Any = {"path": file, "text": str(file), "config": config, "mapping": dict(config)}[kind]
    parsed = parse_databases(given, None, settings_class_for)
    assert {name: str(each.path) for name, each in parsed.items()} == {"one": "a.db", "two": "b.db"}  # type: ignore[attr-defined]


def test_only_the_databases_chosen_count(file: Path) -> None:
    content = TWO + "  three: {type: unheard_of}\n"
    file.write_text(content)
    assert list(parse_databases(file, ["one"], settings_class_for)) == ["one"]
    assert parse_databases(file, [], settings_class_for) == {}
    with pytest.raises(ConfigurationError, match="PASSWORD is not set"):
        parse_databases(file, ["one", "two"], settings_class_for)
    with pytest.raises(BackendNotFoundError):
        parse_databases(file, ["three"], settings_class_for)


def test_the_problems_of_all_chosen_databases_are_told_together(file: Path) -> None:
    file.write_text(
        "databases:\n"
        "  one: {type: file, pool: {max_szie: 1}}\n"
        "  two: {type: file, path: 5}\n"
        "  three: {type: file, path: []}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        parse_databases(load_config(file), ["one", "two"], settings_class_for)
    keys = [line.split(": ")[:2] for line in caught.value.problems]
    assert sorted(keys) == [
        [str(file), "databases.one.path"],
        [str(file), "databases.one.pool.max_szie"],
        [str(file), "databases.two.path"],
    ]


def test_a_variable_means_the_same_in_a_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "a.db")
    entry = {"type": "${NONE:-file}", "path": "${PLACE}", "password": "$${HOME}"}
    by_registry = parse_databases({"databases": {"one": entry}}, None, settings_class_for)["one"]
    by_hand = FileSettings.parse("one", entry | {"type": "file"})
    for parsed in (by_registry, by_hand):
        assert str(parsed.path) == "a.db"  # type: ignore[attr-defined]
        assert parsed.password == SecretStr("${HOME}")  # type: ignore[attr-defined]


@pytest.mark.parametrize("copied", [dict, copy.deepcopy, lambda config: {**config, "worker": {}}])
def test_what_a_variable_held_is_not_searched_for_variables(
    file: Path, monkeypatch: pytest.MonkeyPatch, copied: Any
) -> None:
    """Also where what `load_config` returned is merged into another mapping."""
    monkeypatch.setenv("PASSWORD", "${HOME} $${")
    config = copied(load(file, TWO))
    assert parse_databases(config, ["two"], settings_class_for)["two"].password == SecretStr(  # type: ignore[attr-defined]
        "${HOME} $${"
    )


def test_what_python_gives_as_a_secret_is_taken_as_it_is() -> None:
    given = {"type": "file", "path": "a", "password": SecretStr("${")}
    assert FileSettings.parse("one", given).password == SecretStr("${")


def test_a_mapping_has_no_file() -> None:
    config = {"databases": {"one": {"type": "file", "path": "a", "pool": 5}}}
    with pytest.raises(ConfigurationError) as caught:
        parse_databases(config, None, settings_class_for)
    assert caught.value.problems == ("databases.one.pool: must be a mapping, not 5",)


def test_a_missing_variable_hides_no_other_problem_and_makes_up_none() -> None:
    config = {
        "databases": {
            "one": {"type": "${NONE_1}", "path": ["${NONE_2}"]},
            "two": {
                "type": "file",
                "path": "${NONE_3}",
                "pool": {"timeout": 0, "lazy": "${NONE_4}"},
            },
            "three": {"type": "file", "pool": "${NONE_5}"},
        }
    }
    with pytest.raises(ConfigurationError) as caught:
        parse_databases(config, None, settings_class_for)
    assert [line.partition(" is not set")[0] for line in caught.value.problems] == [
        "databases.one.type: the environment variable NONE_1",
        "databases.one.path[0]: the environment variable NONE_2",
        "databases.two.path: the environment variable NONE_3",
        "databases.two.pool.lazy: the environment variable NONE_4",
        "databases.two.pool.timeout: must be a number above 0, not 0",
        "databases.three.pool: the environment variable NONE_5",
        "databases.three.path: is required: a path",
    ]


def test_an_unknown_type_hides_no_other_problem(file: Path) -> None:
    file.write_text(
        "databases:\n"
        "  one: {type: flie, path: '${NONE}'}\n"
        "  two: {type: file, path: 5}\n"
        "  three: 5\n"
    )
    with pytest.raises(BackendNotFoundError) as caught:
        parse_databases(file, None, settings_class_for)
    assert isinstance(caught.value, ConfigurationError)
    assert [line.removeprefix(f"{file}: ")[:40] for line in caught.value.problems] == [
        "databases.three: must be a mapping of se",
        "databases.one.type: no backend for flie",
        "databases.one.path: the environment vari",
        "databases.two.path: must be a path, not ",
    ]


def test_a_backend_that_does_not_load_hides_no_other_problem() -> None:
    def broken(kind: str) -> type[DatabaseSettings]:
        raise BackendLoadError(f"{kind} does not load")

    with pytest.raises(BackendLoadError):
        parse_databases({"databases": {"one": {"type": "file"}}}, None, broken)
    config = {"databases": {"one": {"type": "file"}, "two": {}}}
    with pytest.raises(ConfigurationError) as caught:
        parse_databases(config, None, broken)
    assert caught.value.problems == (
        "databases.two.type: is required: the backend, such as sqlite, in text",
        "databases.one.type: file does not load",
    )


def test_an_unknown_name_lists_the_known_ones() -> None:
    config = {"databases": {"one": {"type": "file"}, "two": {"type": "file"}}}
    with pytest.raises(DatabaseNotFoundError, match=r"'three'.*one, two"):
        parse_databases(config, ["one", "three"], settings_class_for)
    with pytest.raises(DatabaseNotFoundError, match="there are: none"):
        parse_databases({"databases": {}}, ["x"], settings_class_for)


def test_one_text_is_not_taken_for_a_list_of_names() -> None:
    with pytest.raises(TypeError, match="a list, not a str"):
        parse_databases({"databases": {}}, "default", settings_class_for)


@pytest.mark.parametrize("config", [{}, {"databases": None}, {"databases": {5: {"type": "file"}}}])
def test_a_mapping_of_another_shape_is_told(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        parse_databases(config, None, settings_class_for)


def test_only_reading_a_file_imports_yaml() -> None:
    program = "import sys, jobu_db.settings.loader; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
