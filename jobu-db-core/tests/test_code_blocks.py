"""Every block of code in the documentation does what it says, on the database that it is about.

A Python block is a program of its own, which runs as printed, in an empty folder and without a
warning. Where it holds one of the addresses in `SERVERS`, it runs on each such server. A block that
begins with `# name.py` is a file of its page's example, and functions alone are run by another
test: `ELSEWHERE`. Commands, settings and tools' files are checked as far as that goes without
running them.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement
from readme_blocks import run_program

from jobu_db.cli.app import app
from jobu_db.plugins import database_class
from jobu_db.settings.loader import parse_databases

TOP = Path(__file__).resolve().parents[2]
PAGES = (
    *("README.md", "README.ko.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
    *("jobu-db-core/docs/write-a-backend.md", "jobu-db-core/benchmarks/README.md"),
    *(f"jobu-db-{name}/README.md" for name in ("core", "sqlite", "postgres", "mysql")),
    "examples/shop/README.md",
    *sorted(page.relative_to(TOP).as_posix() for page in (TOP / "docs").rglob("*.md")),
)
SERVERS = {
    "postgres": "postgresql://jobu:jobu_dev@localhost/jobu",
    "mysql": "mysql://jobu:jobu_dev@localhost/jobu",
}
FILE = re.compile(r"# (\w+\.py)\n")
ELSEWHERE = {
    f"jobu-db-{name}/README.md": f"jobu-db-{name}/tests/test_sessions.py"
    for name in ("sqlite", "postgres", "mysql")
}
"""Pages with blocks that are functions alone, and the tests that call these."""
OUTPUT = "text"
"""The language of a block that is not code."""
TOOLS = {"pip", "python", "jobu-db", "make", "cd", "curl", "uvicorn"}
"""The programs that a reader is told to run."""


class Block(NamedTuple):
    place: str
    language: str
    code: str

    @property
    def page(self) -> str:
        return self.place.partition(":")[0]

    @property
    def servers(self) -> set[str]:
        return {name for name, address in SERVERS.items() if address in self.code}

    @property
    def is_program(self) -> bool:
        """Say whether it does anything when it runs, other than to define and to import."""
        passive = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Import, ast.ImportFrom)
        return not all(isinstance(one, passive) for one in ast.parse(self.code).body)


def blocks() -> list[Block]:
    """Return every block with a place that says where it stands."""
    found = []
    for page in PAGES:
        text = (TOP / page).read_text(encoding="utf-8")
        for match in re.finditer(r"^( *)```([^\n]*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
            place = f"{page}:{text[: match.start()].count(chr(10)) + 1}"
            code = re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)
            found.append(Block(place, match[2].strip(), code))
    return found


ALL = blocks()
PROGRAMS = [
    block
    for block in ALL
    if block.language == "python" and not FILE.match(block.code) and block.is_program
]


def those(chosen: list[Block]) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in chosen]


def of(language: str) -> list[Any]:
    return those([block for block in ALL if block.language == language])


@pytest.mark.parametrize("block", those([one for one in PROGRAMS if not one.servers]))
async def test_the_program_runs_as_printed(block: Block, tmp_path: Path) -> None:
    await run_program(block.code, tmp_path)


@pytest.mark.parametrize("block", those([one for one in PROGRAMS if one.servers == {"postgres"}]))
async def test_the_program_runs_on_postgres(
    block: Block, tmp_path: Path, postgres_url: str
) -> None:
    await run_program(block.code.replace(SERVERS["postgres"], postgres_url), tmp_path)


@pytest.mark.parametrize("block", those([one for one in PROGRAMS if one.servers == {"mysql"}]))
async def test_the_program_runs_on_mysql(block: Block, tmp_path: Path, mysql_url: str) -> None:
    await run_program(block.code.replace(SERVERS["mysql"], mysql_url), tmp_path)


def test_functions_alone_are_run_by_another_test() -> None:
    for block in ALL:
        if block.language != "python" or FILE.match(block.code) or block.is_program:
            continue
        test = (TOP / ELSEWHERE[block.page]).read_text("utf-8")
        assert "README" in test
        for name in re.findall(r"^async def (\w+)", block.code, re.MULTILINE):
            assert name in test, f"{block.place}: nobody runs {name}"


@pytest.mark.parametrize("page", sorted({one.page for one in ALL if FILE.match(one.code)}))
def test_the_tests_on_the_page_pass(page: str, tmp_path: Path) -> None:
    here = [block for block in ALL if block.page == page]
    files = {match[1]: one.code for one in here if (match := FILE.match(one.code))}
    for name, code in files.items():
        (tmp_path / name).write_text(code, "utf-8")
    (settings,) = [block.code for block in here if block.language == "ini"] or [
        "[pytest]\nasyncio_mode = auto\n"
    ]
    (tmp_path / "pytest.ini").write_text(settings, "utf-8")
    program = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    count = sum(code.count("async def test_") for code in files.values())
    assert count
    assert f"{count} passed" in done.stdout


def test_a_program_is_about_one_server_at_most() -> None:
    assert [block.place for block in PROGRAMS if len(block.servers) > 1] == []


def test_every_block_says_its_language() -> None:
    known = {"python", "console", "yaml", "ini", OUTPUT}
    assert {block.place: block.language for block in ALL if block.language not in known} == {}


@pytest.mark.parametrize("block", of("yaml"))
def test_settings_are_valid(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    document = yaml.safe_load(block.code)
    if "databases" in document:
        for name, default in re.findall(r"\$\{(\w+)(:-)?", block.code):
            if not default:
                monkeypatch.setenv(name, "5432")
        parse_databases(document, None, lambda kind: database_class(kind).settings_class)
    for words in commands_in(document):
        parse_command(words)


def commands_in(document: Any) -> list[list[str]]:
    """The commands of `jobu-db` in a file of an orchestrator."""
    if isinstance(document, dict):
        return [words for value in document.values() for words in commands_in(value)]
    if isinstance(document, list) and document[:1] == ["jobu-db"]:
        return [document]
    if isinstance(document, list):
        return [words for value in document for words in commands_in(value)]
    return []


def parse_command(words: list[str]) -> None:
    """Have `jobu-db` read its arguments, without doing anything."""
    done = CliRunner().invoke(app, [*words[1:], "--help"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("block", of("console"))
def test_commands_exist(block: Block) -> None:
    for line in block.code.splitlines():
        if not line.startswith("$ "):
            continue
        words = shlex.split(line[2:], comments=True)
        tool = Path(words[0]).name
        assert tool in TOOLS
        if tool == "jobu-db":
            parse_command(words)
        elif tool == "make":
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{target}:", (TOP / "Makefile").read_text("utf-8"), re.M)
        elif words[:2] == ["pip", "install"]:
            for requirement in words[2:]:
                check_distribution(Requirement(requirement.removeprefix("./")))


def check_distribution(wanted: Requirement) -> None:
    """One of ours, with extras that it has; others are their owners' business."""
    if wanted.name.startswith("jobu-db"):
        with (TOP / wanted.name / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file)["project"]
        assert wanted.extras <= {*project.get("optional-dependencies", {})}


def test_what_is_wrong_is_found() -> None:
    with pytest.raises(AssertionError, match="No such command"):
        parse_command(["jobu-db", "pong"])
    with pytest.raises(AssertionError, match="No such option"):
        parse_command(["jobu-db", "ping", "--forever"])
    assert commands_in({"a": [{"command": ["jobu-db", "ping"]}]}) == [["jobu-db", "ping"]]
    assert not Block("x", "python", "import a\ndef f(): pass\n").is_program
    assert Block("x", "python", "import a\na.f()\n").is_program
