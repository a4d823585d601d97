"""The benchmarks run, so that they can't rot. Nothing here is timed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.xdist_group("benchmarks")  # run once, by one worker

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


@pytest.mark.parametrize(
    ("ours", "known", "worse"),
    [
        (0.54, {}, False),  # within its target of 0.55
        (0.60, {}, False),  # beyond it by less than the tolerance
        (0.80, {}, True),
        (0.80, {"a | sqlite | jobu-db | aiosqlite, one connection | ×": 0.79}, False),
        (0.95, {"a | sqlite | jobu-db | aiosqlite, one connection | ×": 0.79}, True),
    ],
)
def test_the_guard_fails_on_a_ratio_that_became_worse(
    ours: float, known: dict[str, float], worse: bool, tmp_path: Path
) -> None:
    figures = [
        {"title": title, "limit": title == BARE, "resets": False, "notes": {}, "error": None,
         "median": seconds, "low": seconds, "high": seconds, "best": seconds}
        for title, seconds in ((OURS, ours), (BARE, 1.0))
    ]  # fmt: skip
    outcome = {"letter": "a", "kind": "sqlite", "place": "SQLite", "figures": figures}
    (tmp_path / "figures.json").write_text(json.dumps([outcome]), encoding="utf-8")
    (tmp_path / "ratios.json").write_text(json.dumps(known), encoding="utf-8")
    arguments = ["--figures", "figures.json", "--ratios", "ratios.json", "--into", "."]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "check.py"), *arguments],
        cwd=tmp_path, timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == (1 if worse else 0), done.stdout + done.stderr
    assert ("worse: a | sqlite" in done.stdout) == worse


def test_a_network_delays_each_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it should at least; nothing says how much longer."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    behind = import_module("latency").behind
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with behind(f"postgres://user:word@127.0.0.1:{port}/name", milliseconds=40.0) as url:
            parts = urlsplit(url)
            assert (parts.username, parts.password, parts.path) == ("user", "word", "/name")
            with socket.create_connection((parts.hostname, parts.port or 0)) as client:
                there, _ = server.accept()
                for _ in range(3):
                    started = time.monotonic()
                    client.sendall(b"ping")
                    assert there.recv(100) == b"ping"
                    there.sendall(b"pong")
                    assert client.recv(100) == b"pong"
                    assert time.monotonic() - started >= 0.04
                client.shutdown(socket.SHUT_WR)
                assert there.recv(100) == b""
                there.close()
