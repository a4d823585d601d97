"""The containers: a valid compose file, what the configuration file expects, and `make up`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[3]
COMPOSE_FILE = TOP / "docker" / "docker-compose.yaml"
PREFIXES = {"postgres": "POSTGRES", "mysql": "MYSQL"}


@pytest.fixture
def databases() -> dict[str, Any]:
    config = yaml.safe_load((TOP / "config" / "database.yaml").read_text())
    return {each["type"]: each for each in config["databases"].values()}


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    """Check a file against the Compose specification's own schema."""
    check = ("-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    return subprocess.run([sys.executable, *check, path], capture_output=True, text=True)


def test_the_file_is_valid() -> None:
    done = validate(COMPOSE_FILE)
    assert done.returncode == 0, done.stdout


def test_a_misspelt_key_would_be_told(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yaml"
    broken.write_text(COMPOSE_FILE.read_text().replace("healthcheck:", "health_check:"))
    done = validate(broken)
    assert done.returncode == 1
    assert "health_check" in done.stdout


@pytest.mark.parametrize(
    ("kind", "image", "limit", "reserved"),
    [("postgres", "postgres:16-alpine", "256M", "128M"), ("mysql", "mysql:8.0", "512M", "256M")],
)
def test_images_and_memory(
    services: dict[str, Any], kind: str, image: str, limit: str, reserved: str
) -> None:
    assert services[kind]["image"] == image
    assert services[kind]["deploy"]["resources"] == {
        "limits": {"memory": limit},
        "reservations": {"memory": reserved},
    }


@pytest.mark.parametrize("kind", PREFIXES)
def test_user_password_database_and_port_are_those_of_the_configuration_file(
    services: dict[str, Any], databases: dict[str, Any], kind: str
) -> None:
    given, expected, prefix = services[kind]["environment"], databases[kind], PREFIXES[kind]
    assert given[f"{prefix}_USER"] == expected["user"]
    assert given[f"{prefix}_PASSWORD"] == expected["password"]
    assert given[f"{prefix}_{'DB' if kind == 'postgres' else 'DATABASE'}"] == expected["database"]
    assert expected["host"] == "localhost"
    port = expected["port"]
    (published,) = services[kind]["ports"]
    assert published == f"127.0.0.1:${{JOBU_{prefix}_PORT:-{port}}}:{port}"


@pytest.mark.parametrize(
    ("kind", "data"), [("postgres", "/var/lib/postgresql/data"), ("mysql", "/var/lib/mysql")]
)
def test_data_last_and_the_schema_is_laid(services: dict[str, Any], kind: str, data: str) -> None:
    named, *scripts = services[kind]["volumes"]
    assert named == f"{kind}-data:{data}"
    assert any("/init.sql:" in script for script in scripts)
    for script in scripts:
        source, target, access = script.split(":")
        assert (COMPOSE_FILE.parent / source).is_file()
        assert Path(target).parent == Path("/docker-entrypoint-initdb.d")
        assert access == "ro"


def test_atomic_units_are_possible(services: dict[str, Any]) -> None:
    assert services["postgres"]["command"] == ["postgres", "-c", "max_prepared_transactions=100"]
    assert services["mysql"]["environment"]["MYSQL_ROOT_PASSWORD"] == "root_dev"
    privileges = (COMPOSE_FILE.parent / "init" / "mysql" / "privileges.sql").read_text()
    assert "GRANT XA_RECOVER_ADMIN ON *.* TO 'jobu'@'%';" in privileges


def make(target: str, folder: Path, *, docker: str) -> subprocess.CompletedProcess[str]:
    """Run make with a `docker` that writes down its arguments, then does what it is told."""
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\necho "$@" >>{folder}/calls\n{docker}\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["make", "-C", str(TOP), *target.split()]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("target", "called"),
    [
        ("up", "up --detach --wait"),  # --wait: until every health check passes
        ("down", "down"),
        ("down VOLUMES=1", "down --volumes"),
    ],
)
def test_make_calls_docker(tmp_path: Path, target: str, called: str) -> None:
    assert make(target, tmp_path, docker="exit 0").returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"compose --file docker/docker-compose.yaml {called}"]


def test_make_up_fails_if_a_container_does_not_get_healthy(tmp_path: Path) -> None:
    assert make("up", tmp_path, docker="exit 1").returncode != 0
