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
def clients(tmp_path: Path) -> Path:
    """A folder with `psql` and `mysql`, free of this machine's settings as in a container."""
    folder = tmp_path / "clients"
    folder.mkdir()
    # A newer MariaDB calls its client `mariadb` alone.
    for name, other, option in (
        ("psql", "psql", "--no-psqlrc"), ("mysql", "mariadb", "--no-defaults"),
    ):  # fmt: skip
        program = shutil.which(name) or shutil.which(other)
        assert program, f"this test runs what the containers run, and needs {name}"
        (folder / name).write_text(f'#!/bin/sh\nexec {program} {option} "$@"\n')
        (folder / name).chmod(0o755)
    return folder
