"""What users install: wheels, in an environment that has nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
THIRD_PARTY = Path(__file__).parent / "third_party"

pytestmark = [pytest.mark.wheels, pytest.mark.xdist_group("wheels")]


def run(python: Path | str, *arguments: str, cwd: Path) -> str:
    """Run a program that must succeed; return what it printed."""
    done = subprocess.run(
        [str(python), *arguments], cwd=cwd, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with core, SQLite and a third-party backend, from wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = (TOP / "jobu-db-core", TOP / "jobu-db-sqlite", THIRD_PARTY)
    for source in sources:
        build = ("-m", "build", "--wheel", "--outdir", str(folder), str(source))
        run(sys.executable, *build, cwd=folder)
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    wheels = [str(wheel) for wheel in folder.glob("*.whl")]
    assert len(wheels) == len(sources)
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wheels, cwd=folder)
    return python


Suite = Callable[[Path], str]


@pytest.fixture
def run_suite(clean: Path, tmp_path: Path) -> Suite:
    """Install a third-party backend and the extra `testing`, and run a copy of its tests."""

    def run_it(project: Path) -> str:
        run(sys.executable, "-m", "build", "--wheel", "--outdir", ".", str(project), cwd=tmp_path)
        venv.create(tmp_path / "env", with_pip=True)
        python = tmp_path / "env" / "bin" / "python"
        core = next(clean.parents[2].glob("jobu_db_core-*.whl"))
        wheels = [f"{core}[testing]", *(str(wheel) for wheel in tmp_path.glob("*.whl"))]
        run(python, "-m", "pip", "install", "-q", *wheels, cwd=tmp_path)
        shutil.copytree(project / "tests", tmp_path / "copied" / "tests")
        shutil.copy(project / "pyproject.toml", tmp_path / "copied")
        return run(python, "-m", "pytest", "-q", cwd=tmp_path / "copied")

    return run_it


def test_the_template_installs_registers_and_passes_the_suite(run_suite: Suite) -> None:
    told = run_suite(THIRD_PARTY)
    assert "skipped, sessions: SQLite runs inside the program" in told
    assert " passed, " in told


def test_a_backend_written_from_the_documentation_alone_passes_the_suite(run_suite: Suite) -> None:
    """With another model of threads and transactions, and without savepoints."""
    told = run_suite(THIRD_PARTY.with_name("third_party_duckdb"))
    assert "skipped, savepoints: DuckDB has no savepoints" in told
    assert " passed, " in told


def test_only_what_is_needed_is_installed(clean: Path, tmp_path: Path) -> None:
    listed = json.loads(run(clean, "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    names = {one["name"].lower().replace("_", "-") for one in listed}
    assert {"jobu-db-core", "jobu-db-sqlite", "aiosqlite"} <= names
    assert not {"asyncpg", "asyncmy", "aiosql", "pytest"} & names


def test_what_the_index_shows_has_no_link_that_leads_nowhere(clean: Path, tmp_path: Path) -> None:
    program = "from importlib.metadata import metadata; print(metadata({!r})['Description'])"
    links: list[str] = []
    for name in ("jobu-db-core", "jobu-db-sqlite"):
        told = run(clean, "-c", program.format(name), cwd=tmp_path)
        assert f"# {name}" in told
        links += re.findall(r"(?<!`)\[[^\[\]]*\]\(([^)\s]+)\)", told)
    assert links
    assert [to for to in links if not re.match("https?://|#", to)] == []


def test_the_first_program_of_the_readme_runs(clean: Path, tmp_path: Path) -> None:
    text = (TOP / "README.md").read_text(encoding="utf-8")
    program = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert program is not None
    assert run(clean, "-c", program[1], cwd=tmp_path) == "greetings so far: 1\n"
    assert run(clean, "-c", program[1], cwd=tmp_path) == "greetings so far: 2\n"


def test_importing_the_core_imports_no_driver(clean: Path, tmp_path: Path) -> None:
    program = (
        "import sys, jobu_db; print(sorted({'sqlite3', 'aiosqlite', 'asyncpg', 'asyncmy', "
        "'jobu_db_sqlite', 'jobu_db_stdlib', 'pytest', 'yaml'} & set(sys.modules)))"
    )
    assert run(clean, "-c", program, cwd=tmp_path) == "[]\n"


def test_a_backend_that_the_core_has_never_heard_of_works(clean: Path, tmp_path: Path) -> None:
    program = """
import asyncio, sys
from jobu_db import DatabaseRegistry, get_connection, transactional

@transactional
async def work():
    ctx = get_connection()
    await ctx.execute("CREATE TABLE t (a INTEGER)")
    await ctx.execute("INSERT INTO t VALUES (:a)", {"a": 7})
    return await ctx.fetch_val("SELECT a FROM t")

async def main():
    config = {"databases": {"default": {"type": "stdlib", "path": "t.db"}}}
    async with DatabaseRegistry.lifespan(config):
        print(await work(), "aiosqlite" in sys.modules)

asyncio.run(main())
"""
    assert run(clean, "-c", program, cwd=tmp_path) == "7 False\n"


def test_a_missing_backend_is_told_with_what_to_install(clean: Path, tmp_path: Path) -> None:
    program = """
import asyncio
from jobu_db import BackendNotFoundError, DatabaseRegistry

async def main():
    for kind in ("postgres", "sqlit"):
        try:
            await DatabaseRegistry.init_from_config({"databases": {"default": {"type": kind}}})
        except BackendNotFoundError as error:
            print(error)

asyncio.run(main())
"""
    told = run(clean, "-c", program, cwd=tmp_path)
    assert "installed: sqlite, stdlib; run: pip install jobu-db-postgres" in told
    assert "did you mean 'sqlite'?" in told


def test_the_example_configuration_says_what_is_missing(clean: Path, tmp_path: Path) -> None:
    """One of its databases at a time; the one on SQLite works without the others' backends."""
    program = f"""
import asyncio
from jobu_db import BackendNotFoundError, DatabaseRegistry

async def main():
    for names in (None, ["postgres_main"], ["default", "mysql_main"], ["default"]):
        try:
            async with DatabaseRegistry.lifespan({str(TOP / "config" / "database.yaml")!r}, names):
                print("open:", *DatabaseRegistry.get_all())
        except BackendNotFoundError as error:
            print(*str(error).split(), DatabaseRegistry.get_all())

asyncio.run(main())
"""
    told = run(clean, "-c", program, cwd=tmp_path).splitlines()
    assert len(told) == 4
    for line, missing in zip(told, ("postgres", "postgres", "mysql"), strict=False):
        assert f"run: pip install jobu-db-{missing}" in line
        assert line.endswith(" {}")
    assert told[3] == "open: default"
