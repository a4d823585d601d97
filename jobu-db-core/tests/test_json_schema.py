"""The JSON Schema accepts what the settings accept, and refuses what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

import jsonschema
import pytest
import yaml

from jobu_db.errors import ConfigurationError
from jobu_db.json_schema import json_schema
from jobu_db.settings import DatabaseSettings, PoolConfig, Settings
from jobu_db.settings.server import ServerSettings
from jobu_db.settings.types import FilePath, MillisecondsOrOff, PoolSize, Port, Text


class FileOptions(Settings):
    busy_timeout: MillisecondsOrOff = 5000
    synchronous: Literal["OFF", "FULL"] = "FULL"


class FilePool(PoolConfig):
    aliases: ClassVar = {**PoolConfig.aliases, "pool_size": ("min_size", "max_size")}

    max_size: PoolSize = 5


class FileSettings(DatabaseSettings):
    path: FilePath
    pool: FilePool = FilePool()
    options: FileOptions = FileOptions()


class DogSettings(ServerSettings):
    url_schemes = ("dog",)

    port: Port = 7777
    database: Text


CLASSES: dict[str, type[DatabaseSettings]] = {
    "file": FileSettings,
    "dog": DogSettings,
    "doggo": DogSettings,
}
SCHEMA = json_schema(CLASSES)


def agree(text: str) -> bool:
    """Return whether one database is valid, on which the settings and the schema must agree."""
    entry = yaml.safe_load(text)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    valid = validator.is_valid({"databases": {"main": entry}})
    try:
        CLASSES[entry["type"]].parse("main", entry)
    except ConfigurationError:
        assert not valid, text
    else:
        assert valid, list(validator.iter_errors({"databases": {"main": entry}}))
    return valid


def test_it_is_a_json_schema_of_that_draft() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "{type: file, path: a.db}",
        "{type: file, path: a.db, pool: {pool_size: 5, pool_timeout: 30.0, max_idle_time: null}}",
        "{type: file, path: a.db, options: {synchronous: OFF}, init_sql: true}",
        "{type: file, path: a.db, init_sql: other.sql}",
        "{type: dog, url: 'dog://h/d'}",
        "{type: doggo, database: d, hosts: [a, 'b:5'], password: pw, ssl: off}",
        "{type: dog, database: d, ssl: verify-full}",
        "{type: dog, database: d, ssl: {mode: off}}",
        "{type: dog, database: d, ssl: {mode: verify-ca, ca: ca.pem}}",
        "{type: dog, database: d, pool: {minsize: 2, maxsize: 10, pool_recycle: 0}}",
    ],
)
def test_what_the_settings_accept_is_valid(text: str) -> None:
    assert agree(text)


@pytest.mark.parametrize(
    "text",
    [
        "{type: file}",
        "{type: file, path: ''}",
        "{type: file, path: a.db, port: 5}",
        "{type: file, path: a.db, pool: {max_szie: 5}}",
        "{type: file, path: a.db, pool: {pool_size: 5, max_size: 5}}",
        "{type: file, path: a.db, pool: {max_idle: 5, pool_recycle: 5}}",
        "{type: file, path: a.db, pool: {timeout: 0}}",
        "{type: file, path: a.db, pool: {max_size: null}}",
        "{type: file, path: a.db, pool: {reset: no}}",
        "{type: file, path: a.db, pool: {on_connect: f}}",
        "{type: file, path: a.db, options: {synchronous: ON}}",
        "{type: dog, database: d, pool: {pool_size: 5}}",
        "{type: dog, database: d, host: a, hosts: [b]}",
        "{type: dog, database: d, password: a, password_file: b}",
        "{type: dog, database: d, port: 65536}",
        "{type: dog, database: d, port: '7777'}",
        "{type: dog, database: d, password: 5}",
        "{type: dog, database: d, hosts: []}",
        "{type: dog, database: d, ssl: prefer}",
        "{type: dog, database: d, ssl: true}",
        "{type: dog, database: d, ssl: {crl: a}}",
    ],
)
def test_what_the_settings_refuse_is_invalid(text: str) -> None:
    assert not agree(text)


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "file", "path": "${P}", "pool": {"max_size": "${N}", "lazy": "${L:-true}"}},
        {"type": "dog", "port": "${PORT}", "url": "${U}", "ssl": "${S}"},
        {"type": "dog", "ssl": {"mode": "${S}"}, "init_sql": "${I}"},
    ],
)
def test_a_variable_may_stand_for_any_value(entry: dict[str, Any]) -> None:
    jsonschema.validate({"databases": {"main": entry}}, SCHEMA)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"databases": []},
        {"databases": {"main": {}}},
        {"databases": {"main": {"type": "cat"}}},
    ],
)
def test_a_file_of_another_shape_is_invalid(config: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(config)


def test_anchors_have_a_place_of_their_own() -> None:
    jsonschema.validate({"databases": {}, "x-pools": [1]}, SCHEMA)


def test_each_type_has_a_branch_and_each_setting_a_description_or_name() -> None:
    branches = SCHEMA["$defs"]["database"]["allOf"]
    assert [each["if"]["properties"]["type"]["const"] for each in branches] == list(CLASSES)
    for name, value in SCHEMA["$defs"]["PoolConfig"]["properties"].items():
        assert value["description"], name


def test_defaults_are_told_once_and_hold_only_what_a_file_may_say() -> None:
    definitions = SCHEMA["$defs"]
    assert "default" not in definitions["FileSettings"]["properties"]["pool"]
    pool = definitions["FilePool"]["properties"]
    assert pool["max_size"]["default"] == 5
    assert "default" not in pool["pool_size"]


def test_two_classes_of_one_name_do_not_mix() -> None:
    other = type("FilePool", (PoolConfig,), {"aliases": {}, "__module__": "elsewhere"})
    namespace = {"__annotations__": {"pool": other}, "pool": other(), "__module__": "elsewhere"}
    settings = type("FileSettings", (DatabaseSettings,), namespace)
    schema = json_schema({"file": FileSettings, "other": settings})
    entry = {"type": "file", "path": "a", "pool": {"pool_size": 1}}
    jsonschema.validate({"databases": {"main": entry}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {"databases": {"main": {"type": "other", "pool": {"pool_size": 1}}}}, schema
        )


def test_the_schema_of_a_backend_is_complete_in_the_example_file() -> None:
    example = Path(__file__).parents[2] / "config" / "database.yaml"
    default = yaml.safe_load(example.read_text())["databases"]["default"]
    default |= {"type": "file", "options": {"busy_timeout": 5000}}
    jsonschema.validate({"databases": {"default": default}}, SCHEMA)


def test_the_command_prints_the_schema_of_the_installed_backends() -> None:
    command = [sys.executable, "-W", "error", "-m", "jobu_db.json_schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    schema = json.loads(done.stdout)
    example = yaml.safe_load((Path(__file__).parents[2] / "config" / "database.yaml").read_text())
    jsonschema.validate(example, schema)
    example["databases"]["postgres_main"]["pool"]["max_sise"] = 10
    with pytest.raises(jsonschema.ValidationError, match="max_sise"):
        jsonschema.validate(example, schema)
