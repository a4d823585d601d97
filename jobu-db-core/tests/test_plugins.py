"""Which backend a type leads to, and what is said when it cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from jobu_db import BackendLoadError, BackendNotFoundError
from jobu_db.database import API_VERSION
from jobu_db.plugins import database_class

MODULE = """
from jobu_db.database import ParameterDatabase
from jobu_db.plugins import hookimpl

class Database(ParameterDatabase):
    db_type = "{name}"
    api_version = {api_version}

@hookimpl
def jobu_db_database(db_type):
    return Database if db_type == "{name}" else None
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution `jobu-db-NAME 7.1` that offers the type NAME."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def add(
        name: str,
        *,
        module: str = MODULE,
        api_version: object = API_VERSION,
        distribution: str | None = None,
    ) -> None:
        project = distribution or f"jobu-db-{name}"
        package = project.replace("-", "_")
        info = tmp_path / f"{package}-7.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: 7.1\n")
        (info / "entry_points.txt").write_text(f"[jobu_db.backends]\n{name} = {package}\n")
        text = module.format(name=name, api_version=api_version)
        (tmp_path / f"{package}.py").write_text(text)
        modules.append(package)

    yield add
    for module in modules:
        sys.modules.pop(module, None)


def test_a_backend_is_found_by_its_entry_point(install: Install) -> None:
    install("found")
    assert database_class("found").db_type == "found"


@pytest.mark.parametrize("built_for", [API_VERSION - 1, API_VERSION + 1])
def test_a_backend_for_another_interface_is_told_by_name_and_number(
    install: Install, built_for: int
) -> None:
    name = f"other{built_for}"
    install(name, api_version=built_for)
    with pytest.raises(BackendLoadError) as caught:
        database_class(name)
    told = str(caught.value)
    core = f"jobu-db-core {metadata.version('jobu-db-core')}"
    assert f"jobu-db-{name} 7.1 was built for version {built_for}" in told
    assert f"{core} has version {API_VERSION}" in told


def test_a_backend_that_states_no_version_is_refused(install: Install) -> None:
    install("silent", module=MODULE.replace("    api_version = {api_version}\n", ""))
    with pytest.raises(BackendLoadError, match=r"jobu-db-silent 7\.1 was built for version None"):
        database_class("silent")


def test_a_backend_that_does_not_import_is_told_with_its_cause(install: Install) -> None:
    install("broken", module="import there_is_no_such_module")
    with pytest.raises(BackendLoadError, match=r"jobu-db-broken 7\.1 .*there_is_no_such_module"):
        database_class("broken")


def test_a_broken_backend_breaks_nobody_else(install: Install) -> None:
    install("ruined", module="raise ValueError")
    install("sound")
    assert database_class("sound").db_type == "sound"


def test_what_returns_no_database_is_refused(install: Install) -> None:
    install("odd", module=MODULE.replace("return Database if", "return 7 if"))
    with pytest.raises(BackendLoadError, match="returned 7 instead of a BaseDatabase class"):
        database_class("odd")


def test_two_distributions_that_claim_one_type_are_both_named(install: Install) -> None:
    install("wanted")
    install("wanted", distribution="rival-wanted")
    with pytest.raises(BackendLoadError, match=r"jobu-db-wanted 7\.1 and rival-wanted 7\.1"):
        database_class("wanted")


def test_an_unknown_type_lists_what_is_installed(install: Install) -> None:
    install("nearby")
    with pytest.raises(BackendNotFoundError, match=r"nearby.*did you mean 'nearby'"):
        database_class("nearbi")


def test_the_core_says_its_version() -> None:
    from importlib.metadata import version

    import jobu_db

    assert jobu_db.__version__ == version("jobu-db-core")
