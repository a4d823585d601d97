"""The benchmarks run, so that they can't rot. Nothing here is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS, BARE = "jobu-db", "aiosqlite, one connection"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything on SQLite, jobu-db and aiosqlite alone: the other peers are not installed."""
    into = tmp_path_factory.mktemp("bench")
    program = str(BENCHMARKS / "main.py")
    subprocess.run(
        [sys.executable, program, "--quick", "--rounds", "2", "--on", "sqlite",
         "--only", OURS, BARE, "--into", str(into)],
        check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    return into


def test_all_the_work_is_done_by_all_who_can(run: Path) -> None:
    outcomes = json.loads((run / "figures.json").read_text(encoding="utf-8"))
    done = {one["letter"]: [figure["title"] for figure in one["figures"]] for one in outcomes}
    pooled = {letter: [OURS] for letter in "bejk"}
    assert done == {letter: [OURS, BARE] for letter in "acdfghi"} | pooled
    figures: list[dict[str, Any]] = [figure for one in outcomes for figure in one["figures"]]
    assert [figure["error"] for figure in figures] == [None] * len(figures)


def test_fifty_writers_lose_nothing(run: Path) -> None:
    (writers,) = [
        one
        for one in json.loads((run / "figures.json").read_text(encoding="utf-8"))
        if one["letter"] == "i"
    ]
    assert [figure["notes"] for figure in writers["figures"]] == [{"lost": 0, "errors": 0}] * 2


def test_the_report_has_a_table_and_a_chart(run: Path) -> None:
    report = (run / "report.md").read_text(encoding="utf-8")
    assert f"| **{OURS}** |" in report
    assert f"| (a) | sqlite | {OURS} | {BARE} |" in report
    assert (run / "chart.svg").read_text(encoding="utf-8").startswith("<svg")


def test_the_layers_are_measured() -> None:
    program = str(BENCHMARKS / "layers.py")
    done = subprocess.run(
        [sys.executable, program, "--quick"],
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert "| a transaction as a whole | " in done.stdout
