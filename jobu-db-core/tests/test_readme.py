"""Every Python block in the documentation of what needs no server runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "README.ko.md",
    "jobu-db-core/README.md",
    "jobu-db-core/docs/write-a-backend.md",
    "jobu-db-sqlite/README.md",
    *sorted(page.relative_to(TOP).as_posix() for page in (TOP / "docs").glob("*.md")),
)
BOTH = re.MULTILINE | re.DOTALL
BLOCK = re.compile(r"^```python\n(.*?)^```", BOTH)
FILE = re.compile(r"# (\w+\.py)\n")
"""How a block begins that is a file of the page's example, not a program."""


def blocks() -> list[tuple[str, str]]:
    """Return every block with a name that says where it stands."""
    found = []
    for page in PAGES:
        text = (TOP / page).read_text(encoding="utf-8")
        found += [
            (f"{page}:{text[: match.start()].count(chr(10)) + 1}", match[1])
            for match in BLOCK.finditer(text)
            if not FILE.match(match[1])
        ]
    return found


@pytest.mark.parametrize(("place", "code"), [pytest.param(*one, id=one[0]) for one in blocks()])
def test_the_program_runs_as_printed(place: str, code: str, tmp_path: Path) -> None:
    program = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{place}:\n{done.stderr}"
    assert done.stderr == ""


def test_the_first_program_fits_into_fifteen_lines() -> None:
    _, code = blocks()[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def test_the_tests_on_the_page_pass(tmp_path: Path) -> None:
    text = (TOP / "docs" / "testing.md").read_text(encoding="utf-8")
    files = {match[1]: code for code in BLOCK.findall(text) if (match := FILE.match(code))}
    assert sorted(files) == ["conftest.py", "jobs.py", "test_jobs.py"]
    for name, code in files.items():
        (tmp_path / name).write_text(code, "utf-8")
    settings = re.findall(r"^```ini\n(.*?)^```", text, BOTH)
    assert len(settings) == 1
    (tmp_path / "pytest.ini").write_text(settings[0], "utf-8")
    program = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert f"{files['test_jobs.py'].count('async def test_')} passed" in done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (TOP / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((TOP / page).parent / target).exists(), target


KOREAN = {"예": "yes", "아니요": "no", "다른 방법으로": "emulated"}


def structure(page: str) -> list[str]:
    """What a translation keeps: headings by level, tables, lists, code blocks, in order."""
    text = re.sub(r"^```(\w+)$.*?^```$", r"```\1", (TOP / page).read_text("utf-8"), flags=BOTH)
    marks = re.findall(r"^(#+ |```\w+|- |\d+\. |\|(?:[^|\n]+\|)+)", text, re.MULTILINE)
    return [f"row of {mark.count('|')}" if mark[0] == "|" else mark.strip() for mark in marks]


def declarations(page: str) -> list[list[str]]:
    """The table of what the backends declare: yes, no or emulated, with the numbers of notes."""
    text = (TOP / page).read_text("utf-8")
    for korean, english in KOREAN.items():
        text = re.sub(rf"\| {korean}(?= )", f"| {english}", text)
    return [
        re.findall(r"(?<=\| )(?:yes|no|emulated)(?: \(\d\))?(?= \|)", row)
        for row in text.splitlines()
        if re.search(r"\| (yes|no|emulated)( \(\d\))? \|$", row)
    ]


def test_the_korean_page_says_the_same() -> None:
    assert structure("README.ko.md") == structure("README.md")
    assert len(declarations("README.md")) == 12
    assert declarations("README.ko.md") == declarations("README.md")
