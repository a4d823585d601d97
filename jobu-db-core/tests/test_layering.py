"""Which module may import which, read from the source itself.

Invariants, imports for type checkers included:
    No module imports itself by way of others: each can be understood with what it imports alone.
    The core's packages and the modules beside them have one order: each imports only from lines
    above its own. Imports inside functions are held to the same.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator, Mapping
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
    _aio
    errors logs
    capabilities placeholders write_gate
    guard tcp replication two_phase
    driver
    statement_text
    row_types
    events statements
    settings server_settings
    hosts
    pool
    transaction
    replicas
    opening
    plugins
    database
    json_schema recovery
    registry
    decorators
    __init__
    telemetry
    cli
    testing
"""
"""The packages and modules of the core, each with those that it may import above it."""

ORDER = LINES.split()


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name, with the names taken from it."""

    module: str
    names: tuple[str, ...]
    line: int


def imports(path: Path) -> list[Import]:
    """Return what a file imports, wherever in it."""
    return list(_imports(ast.parse(path.read_text())))


def _imports(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, (), node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports here are absolute"
        yield Import(node.module or "", tuple(alias.name for alias in node.names), node.lineno)
    else:
        yield from (found for child in ast.iter_child_nodes(node) for found in _imports(child))


def modules_of(package: Path) -> dict[str, Path]:
    """Its files by their names: `jobu_db.pool.state`, and `jobu_db.pool` for an `__init__`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules_of(CORE)


def imported_modules(found: Import, modules: Mapping[str, Path] = MODULES) -> Iterator[str]:
    """Return the modules of a package that an import names, by their full names."""
    if found.module in modules:
        named = [f"{found.module}.{name}" for name in found.names]
        submodules = [name for name in named if name in modules]
        yield from submodules
        if len(submodules) < len(named) or not named:
            yield found.module


def line_of(module: str) -> str:
    """Return the word of LINES under which a module stands."""
    return [*module.split("."), "__init__"][1]


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(WORKSPACE))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_own_line_or_above(module: str) -> None:
    line = line_of(module)
    assert line in ORDER, f"{module} has no line in LINES: where does it belong?"
    allowed = set(ORDER[: ORDER.index(line) + 1])
    for found in imports(MODULES[module]):
        for imported in imported_modules(found):
            where = f"{name_of(MODULES[module])}:{found.line}"
            assert line_of(imported) in allowed, f"{where} imports {imported}"


@pytest.fixture(autouse=True)
def collector_at_rest() -> Iterator[None]:
    """On 3.11, what the collector tells within ast.parse is a SystemError: a traceback that is
    written there parses source text, too."""
    gc.disable()
    yield
    gc.enable()


def test_every_line_stands_for_a_module() -> None:
    assert sorted(ORDER) == sorted({line_of(module) for module in MODULES})


@pytest.mark.parametrize("package", [CORE, *BACKENDS.values()], ids=lambda path: path.name)
def test_no_module_imports_itself_by_way_of_others(package: Path) -> None:
    modules = modules_of(package)
    imported = {
        module: {name for found in imports(path) for name in imported_modules(found, modules)}
        for module, path in modules.items()
        if path.name != "__init__.py"  # which gathers what is below it
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for name in sorted(imported.get(module, ())):
                visit(name, (*way, module))
            done.add(module)

    for module in imported:
        visit(module, ())


def test_within_a_package_modules_are_imported_by_their_own_names() -> None:
    """The package itself gathers what its modules define: to import that would be a circle."""
    for module, path in MODULES.items():
        package = module.rpartition(".")[0]
        for found in imports(path):
            inside = found.module == package and package != "jobu_db" and path.stem != "__init__"
            if inside:
                named = {f"{package}.{name}" for name in found.names}
                assert named <= MODULES.keys(), f"{name_of(path)}:{found.line}"


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
        assert not (about_type and with_literal), f"{name_of(path)}: {ast.unparse(node)}"


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
            special |= node.attr == "_value_"  # of an Enum, documented
            assert mine or special, f"{name_of(path)}:{node.lineno} uses {ast.unparse(node)}"


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    source = "if TYPE_CHECKING:\n    import one\nelse:\n    import two\ndef f():\n    import three"
    (tmp_path / "example.py").write_text(source)
    assert [found.module for found in imports(tmp_path / "example.py")] == ["one", "two", "three"]
    found = Import("jobu_db.pool", ("fork", "AsyncConnectionPool"), 1)
    assert list(imported_modules(found)) == ["jobu_db.pool.fork", "jobu_db.pool"]
