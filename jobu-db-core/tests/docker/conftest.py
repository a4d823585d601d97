"""The compose file's services, and the programs that its images use."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[3] / "docker"


@pytest.fixture
def docker_folder() -> Path:
    return DOCKER


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of the compose file, by name."""
    found: dict[str, Any] = yaml.safe_load((DOCKER / "docker-compose.yaml").read_text())["services"]
    return found


@pytest.fixture
def psql(tmp_path: Path) -> Path:
    """PostgreSQL's client, free of this machine's settings as in a container."""
    return _client(tmp_path / "psql", "--no-psqlrc")


@pytest.fixture
def mysql(tmp_path: Path) -> Path:
    """MySQL's client, likewise; a newer MariaDB calls its own `mariadb` alone."""
    return _client(tmp_path / "mysql", "--no-defaults", "mariadb")


def _client(path: Path, option: str, *other_names: str) -> Path:
    found = filter(None, map(shutil.which, (path.name, *other_names)))
    program = next(found, None)
    assert program, f"this test runs what the containers run, and needs {path.name}"
    path.write_text(f'#!/bin/sh\nexec {program} {option} "$@"\n')
    path.chmod(0o755)
    return path
