"""Which module may import which, read from the source itself.

Invariant: in the core, a module imports at run time only from lines above its own, so that no
cycle can arise and each can be understood with what stands above it. Imports for type checkers
(under TYPE_CHECKING) are free; imports inside functions are held to the same order.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

WORKSPACE = Path(__file__).resolve().parents[2]
CORE = WORKSPACE / "jobu-db-core" / "src" / "jobu_db"
BACKENDS = {
    name: WORKSPACE / f"jobu-db-{name.removeprefix('jobu_db_')}" / "src" / name
    for name in ("jobu_db_sqlite", "jobu_db_postgres", "jobu_db_mysql")
}
DRIVERS = {"aiosqlite", "asyncpg", "asyncmy"}

LINES = """
    errors _process
    capabilities write_gate
    placeholders
    interpolation problems given yaml_words setting_types server_address server_url
    settings tls server_settings
    yaml_reader config
    driver
    guard
    events
    stats
    statements rows
    _slots _pool_actions _backoff _pool_state
    _stand_in _time_limits
    _holder _diagnosis _waiting _connection_work _taskless _pool_runner
    pooled_connection pool
    context
    _shield _ending _turns _session transaction_context
    _fate _gate _outermost _savepoint
    transaction
    _alone
    database
    unit_of_work
    plugins
    json_schema
    registry
    decorators
    aiosql_adapters
    __init__
"""
ORDER = LINES.split()

UPWARD = {
    # A driver may wrap its connections in something other than the core's guard.
    ("driver", "guard"),
}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name, with the names taken from it."""

    module: str
    names: tuple[str, ...]
    line: int


def imports(path: Path) -> list[Import]:
    """Return what a file imports at run time."""
    return list(_imports(ast.parse(path.read_text())))


def _imports(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, (), node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports here are absolute"
        yield Import(node.module or "", tuple(alias.name for alias in node.names), node.lineno)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        yield from (found for rest in node.orelse for found in _imports(rest))
    else:
        yield from (found for child in ast.iter_child_nodes(node) for found in _imports(child))


def core_modules(found: Import) -> Iterator[str]:
    """Return the modules of the core that an import names."""
    package, _, module = found.module.partition(".")
    if package != "jobu_db":
        return
    known = {path.stem for path in CORE.glob("*.py")} | {"testing"}
    if module:
        yield module.partition(".")[0]
    else:
        yield from (name if name in known else "__init__" for name in found.names or ["__init__"])


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(WORKSPACE))


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: path.stem)
def test_a_core_module_imports_only_from_above_its_line(path: Path) -> None:
    assert path.stem in ORDER, f"{path.name} has no line in LINES: where does it belong?"
    above = set(ORDER[: ORDER.index(path.stem)])
    for found in imports(path):
        for module in core_modules(found):
            allowed = module in above or (path.stem, module) in UPWARD
            assert allowed, f"{path.name}:{found.line} imports {module}"


def test_every_line_is_a_module() -> None:
    assert sorted(ORDER) == sorted(path.stem for path in CORE.glob("*.py"))


@pytest.mark.parametrize("path", sources(CORE), ids=name_of)
def test_the_core_imports_no_driver_and_no_backend(path: Path) -> None:
    for found in imports(path):
        package = found.module.partition(".")[0]
        forbidden = DRIVERS | BACKENDS.keys()
        if "testing" not in path.parts:  # where a fake backend keeps its rows in SQLite
            forbidden = forbidden | {"sqlite3"}
        assert package not in forbidden, f"{name_of(path)}:{found.line}"


@pytest.mark.parametrize("path", sources(CORE), ids=name_of)
def test_the_core_never_asks_which_database_it_is(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            asked = [node.subject, ast.Constant("any case")]
        about_type = any("db_type" in ast.unparse(part) for part in asked)
        with_literal = any(_is_literal(part) for part in asked)
        assert not (about_type and with_literal), f"{name_of(path)}:{node.lineno}"


def _is_literal(node: ast.expr) -> bool:
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts)


TEMPLATE = WORKSPACE / "jobu-db-core" / "tests" / "third_party" / "src" / "jobu_db_stdlib"
BACKEND_SOURCES = [path for folder in (*BACKENDS.values(), TEMPLATE) for path in sources(folder)]


@pytest.mark.parametrize("path", BACKEND_SOURCES, ids=name_of)
def test_a_backend_imports_public_names_of_the_core_and_no_other_backend(path: Path) -> None:
    own = next((name for name, folder in BACKENDS.items() if folder in path.parents), TEMPLATE.name)
    for found in imports(path):
        where = f"{name_of(path)}:{found.line}"
        parts = found.module.split(".")
        assert parts[0] == own or parts[0] not in BACKENDS, f"{where} imports another backend"
        if parts[0] == "jobu_db":
            private = [part for part in (*parts, *found.names) if part.startswith("_")]
            assert not private, f"{where} imports {private} from the core"
            assert "testing" not in parts, f"{where} imports test tools"


@pytest.mark.parametrize("path", BACKEND_SOURCES, ids=name_of)
def test_private_attributes_of_a_driver_are_used_in_one_file_only(path: Path) -> None:
    if path.name == "_private.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            mine = ast.unparse(node.value) in ("self", "cls", "super()")
            special = node.attr.startswith("__") and node.attr.endswith("__")
            assert mine or special, f"{name_of(path)}:{node.lineno} uses {ast.unparse(node)}"


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    source = "if TYPE_CHECKING:\n    import one\nelse:\n    import two\ndef f():\n    import three"
    (tmp_path / "example.py").write_text(source)
    assert [found.module for found in imports(tmp_path / "example.py")] == ["two", "three"]
