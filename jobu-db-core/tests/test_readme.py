"""The READMEs: their links, the length of the first program, and the Korean one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "README.ko.md",
    "jobu-db-core/README.md",
    "jobu-db-core/docs/write-a-backend.md",
    "jobu-db-sqlite/README.md",
    "examples/shop/README.md",
    *sorted(page.relative_to(TOP).as_posix() for page in (TOP / "docs").rglob("*.md")),
)
BOTH = re.MULTILINE | re.DOTALL


def test_the_first_program_fits_into_fifteen_lines() -> None:
    first = re.findall(r"^```python\n(.*?)^```", (TOP / "README.md").read_text("utf-8"), BOTH)[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 15


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


TRANSLATED = [page.name for page in sorted((TOP / "docs" / "ko").glob("*.md"))]


@pytest.mark.parametrize("page", sorted({*TRANSLATED} - {"configuration.md"}))
def test_a_korean_page_has_what_the_english_one_has(page: str) -> None:
    """In its order; the English page may have more."""
    english = iter(structure(f"docs/{page}"))
    missing = [mark for mark in structure(f"docs/ko/{page}") if mark not in english]
    assert missing == []


def test_the_korean_table_of_capabilities_says_the_same() -> None:
    told = declarations("docs/transactions.md")
    assert len(told) >= 12
    assert declarations("docs/ko/transactions.md") == told
