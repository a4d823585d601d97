"""What the four distributions have in common: one version, one licence, one range of the core."""

from __future__ import annotations

import importlib
import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

WORKSPACE = Path(__file__).resolve().parents[2]
BACKENDS = ("jobu-db-sqlite", "jobu-db-postgres", "jobu-db-mysql")
DISTRIBUTIONS = ("jobu-db-core", *BACKENDS)
DRIVERS = {
    "jobu-db-sqlite": "aiosqlite",
    "jobu-db-postgres": "asyncpg",
    "jobu-db-mysql": "asyncmy",
}


def project(name: str) -> dict[str, Any]:
    with (WORKSPACE / name / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_all_distributions_share_one_version_and_one_licence(name: str) -> None:
    assert project(name)["version"] == project("jobu-db-core")["version"]
    assert importlib.metadata.version(name) == project(name)["version"]
    licence = (WORKSPACE / "LICENSE").read_bytes()
    assert (WORKSPACE / name / "LICENSE").read_bytes() == licence


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_tells_its_version(name: str) -> None:
    package = importlib.import_module(name.replace("-", "_"))
    assert package.__version__ == project(name)["version"]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_takes_this_core_and_not_the_next(name: str) -> None:
    needed = [Requirement(one) for one in project(name)["dependencies"]]
    core = next(one for one in needed if one.name == "jobu-db-core")
    version = Version(project("jobu-db-core")["version"])
    assert version in core.specifier
    assert Version(f"{version.major}.{version.minor + 1}") not in core.specifier


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_brings_no_driver_but_its_own(name: str) -> None:
    needed = {Requirement(one).name for one in project(name)["dependencies"]}
    assert needed & set(DRIVERS.values()) == {DRIVERS[name]}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_driver_is_taken_up_to_its_next_minor_version(name: str) -> None:
    """Each backend uses private parts of its driver, which only tests can tell of."""
    needed = {one.name: one for one in map(Requirement, project(name)["dependencies"])}
    driver = needed[DRIVERS[name]].specifier
    lowest = Version(next(one.version for one in driver if one.operator == ">="))
    installed = Version(importlib.metadata.version(DRIVERS[name]))
    assert installed in driver
    assert Version(f"{installed.major}.{installed.minor}.999") in driver
    assert Version(f"{installed.major}.{installed.minor + 1}") not in driver
    assert (lowest.major, lowest.minor) == (installed.major, installed.minor)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_dependency_has_a_lower_bound(name: str) -> None:
    for text in project(name)["dependencies"]:
        assert any(one.operator == ">=" for one in Requirement(text).specifier), text


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_package_is_typed(name: str) -> None:
    package = "jobu_db" if name == "jobu-db-core" else name.replace("-", "_")
    assert (WORKSPACE / name / "src" / package / "py.typed").exists()
    assert "Typing :: Typed" in project(name)["classifiers"]
