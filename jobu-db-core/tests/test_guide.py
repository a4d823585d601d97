"""What the page for writers of backends says is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from jobu_db.capabilities import FEATURES
from jobu_db.database import API_VERSION
from jobu_db.driver import Driver
from jobu_db.testing import fixtures
from jobu_db.testing.conformance import Backend

CORE = Path(__file__).resolve().parents[1]
TEMPLATE = CORE / "tests" / "third_party" / "src" / "jobu_db_stdlib" / "__init__.py"
GUIDE = (CORE / "docs" / "write-a-backend.md").read_text(encoding="utf-8")
OPERATIONS = GUIDE[GUIDE.index("## What each operation") : GUIDE.index("## Who owns what")]


def named(text: str) -> set[str]:
    """Return the words set in code style, without arguments."""
    return set(re.findall(r"`(\w+)(?:\([^`]*\))?`", text))


def operations() -> set[str]:
    return {name for name, _ in inspect.getmembers(Driver, inspect.isfunction) if name[0] != "_"}


def test_the_operations_without_a_default_are_those_in_the_table() -> None:
    table = "".join(line for line in OPERATIONS.splitlines(True) if line.startswith("| `"))
    first_cells = {name for line in table.splitlines() for name in named(line.split("|")[1])}
    assert first_cells == Driver.__abstractmethods__


def test_every_operation_of_a_driver_is_named() -> None:
    both_ends = {"release_savepoint", "rollback_to_savepoint"}
    assert operations() <= named(OPERATIONS) | both_ends


def test_every_member_of_the_suites_backend_is_explained() -> None:
    members = {name for name in vars(Backend) if name[0] != "_"}
    suite = GUIDE[GUIDE.index("## The suite") : GUIDE.index("## Versions")]
    assert members <= named(suite)


def test_every_fixture_is_explained() -> None:
    fixture = type(fixtures.count_statements)
    offered = {name for name, value in vars(fixtures).items() if isinstance(value, fixture)}
    assert "rolled_back" in offered
    assert offered <= named(GUIDE)


def test_the_number_of_the_interface_is_the_one_told() -> None:
    assert f"now {API_VERSION})" in GUIDE
    assert f"api_version = {API_VERSION}\n" in TEMPLATE.read_text(encoding="utf-8")


def test_the_template_fits_into_150_lines() -> None:
    assert len(TEMPLATE.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_features_that_the_guide_names_exist() -> None:
    section = GUIDE[GUIDE.index("## Capabilities") : GUIDE.index("## The suite")]
    for feature in ("savepoints", "readonly", "server_side_cursors", "independent_writes"):
        assert feature in named(section)
        assert feature in FEATURES
