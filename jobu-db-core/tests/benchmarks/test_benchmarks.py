"""The benchmarks run, so that they can't rot. Nothing here is timed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobu_db.testing.servers import Kind, candidates

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.xdist_group("benchmarks")  # run once, by one worker

OURS, NEVER, BARE = "jobu-db", "jobu-db, reset: never", "aiosqlite, one connection"


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


def outcomes_of(run: Path) -> list[dict[str, Any]]:
    figures = json.loads((run / "figures.json").read_text(encoding="utf-8"))
    assert figures["quick"]
    outcomes: list[dict[str, Any]] = figures["outcomes"]
    return outcomes


def test_all_the_work_is_done_by_all_who_can(run: Path) -> None:
    outcomes = outcomes_of(run)
    done = {one["letter"]: [figure["title"] for figure in one["figures"]] for one in outcomes}
    pooled = {letter: [OURS] for letter in "bejk"}
    assert done == {letter: [OURS, BARE] for letter in "acdfghi"} | pooled
    figures: list[dict[str, Any]] = [figure for one in outcomes for figure in one["figures"]]
    assert [figure["error"] for figure in figures] == [None] * len(figures)


def test_fifty_writers_lose_nothing(run: Path) -> None:
    (writers,) = [one for one in outcomes_of(run) if one["letter"] == "i"]
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


def test_the_messages_to_postgres_alone_behind_a_network(postgres_url: str, tmp_path: Path) -> None:
    measure_behind_a_network("postgres", postgres_url, tmp_path)


def test_the_messages_to_mysql_alone_behind_a_network(mysql_url: str, tmp_path: Path) -> None:
    measure_behind_a_network("mysql", mysql_url, tmp_path)


def measure_behind_a_network(kind: str, url: str, tmp_path: Path) -> None:
    driver = {"postgres": "asyncpg", "mysql": "asyncmy"}[kind]
    bare, pool = f"{driver}, one connection", f"{driver}.Pool"
    alone = ["the messages alone", "the messages alone, reset: never"]
    subset = [OURS, NEVER, *alone, bare, pool]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "main.py"), "--quick", "--rounds", "2", "--on", kind,
         "--work", "acdk", "--latency", "1", "--floor", "--only", *subset,
         "--into", str(tmp_path)],
        check=True, timeout=300, capture_output=True, text=True,
        env={**os.environ, f"JOBU_TEST_{kind.upper()}_URL": url},
    )  # fmt: skip
    for one in outcomes_of(tmp_path):
        taking_part = [OURS, NEVER, pool] if one["letter"] == "k" else subset
        errors = {figure["title"]: figure["error"] for figure in one["figures"]}
        assert errors == dict.fromkeys(taking_part)
        if one["letter"] != "k":
            medians = {figure["title"]: figure["median"] for figure in one["figures"]}
            assert medians[bare] >= 0.001 * (1 if one["letter"] == "d" else 3)  # round trips
            assert medians["the messages alone"] >= 0.001
    assert "A proxy makes each round trip to a server 1 ms longer." in done.stdout
    costs = done.stdout[done.stdout.index("## What the core costs") :]
    for work in "acd":
        for title in (OURS, NEVER):
            assert re.search(rf"^\| \({work}\) \| \w+ \| {title} \| [\d.]+ \|", costs, re.M)


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("", "free"),
        ("--pinned", "pinned"),
        ("--apart", "apart"),
        ("--latency 1", "latency 1"),
        ("--latency 1.0", "latency 1"),
        ("--apart --latency 1", "latency 1"),
        ("--pinned --latency 0.5", "latency 0.5, pinned"),
    ],
)
def test_a_run_knows_how_it_was_measured(
    line: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    given = import_module("main").arguments("").parse_args(line.split())
    assert import_module("figures").mode_of(given) == mode


def test_private_servers_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("JOBU_TEST_POSTGRES_URL", "JOBU_TEST_MYSQL_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    servers = import_module("servers")
    kinds: tuple[Kind, ...] = ("postgres", "mysql")
    for kind in kinds:
        there = [one.name for one in candidates(kind)]
        assert [one.name for one in servers._chosen(kind, [])] == there[:1]
        for names in (there[-1:], there):
            assert [one.name for one in servers._chosen(kind, names)] == names
    with pytest.raises(SystemExit, match="no server here is called oracle"):
        servers.found(["sqlite"], ["oracle"]).__enter__()


def test_the_floor_is_left_out_where_nobody_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    compare = import_module("compare")
    only = [OURS, "the messages alone"]
    titles = [
        [
            one.title
            for one in compare.contestants(
                compare.Order("a", kind, None, 1, only=only, floor=floor)
            )
        ]
        for kind, floor in (("postgres", False), ("postgres", True), ("sqlite", True))
    ]
    assert titles == [[OURS], only, [OURS]]


def run_of(mode: str, place: str = "SQLite", letter: str = "a", **medians: float) -> dict[str, Any]:
    """What was measured, as main.py writes it; `floor` stands for jobu-db's messages alone."""
    bare = BARES[place.split()[0]]
    titles = {"ours": OURS, "never": NEVER, "bare": bare, "floor": "the messages alone"}
    figures = [
        {"title": titles[name], "limit": name == "bare", "resets": False, "notes": {},
         "floor": OURS if name == "floor" else "", "error": None,
         "median": seconds, "low": seconds, "high": seconds, "best": seconds}
        for name, seconds in medians.items()
    ]  # fmt: skip
    kind = {"SQLite": "sqlite", "PostgreSQL": "postgres"}.get(place.split()[0], "mysql")
    outcome = {"letter": letter, "kind": kind, "place": place, "figures": figures}
    return {"mode": mode, "quick": False, "machine": "a machine", "outcomes": [outcome]}


BARES = {
    "SQLite": BARE, "PostgreSQL": "asyncpg, one connection",
    "MySQL": "asyncmy, one connection", "MariaDB": "asyncmy, one connection",
}  # fmt: skip


def check(
    folder: Path, run: dict[str, Any], known: dict[str, Any], *more: str
) -> subprocess.CompletedProcess[str]:
    (folder / "figures.json").write_text(json.dumps(run), encoding="utf-8")
    (folder / "ratios.json").write_text(json.dumps(known), encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "check.py"), "--figures", ".", "--ratios", "ratios.json",
         *more],
        cwd=folder, timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip


KEY = "a | sqlite | jobu-db | aiosqlite, one connection | ×"


@pytest.mark.parametrize(
    ("mode", "ours", "known", "worse"),
    [
        ("pinned", 0.54, {}, False),  # within its target of 0.55
        ("pinned", 0.60, {}, False),  # beyond it by less than the tolerance
        ("pinned", 0.80, {}, True),
        ("pinned", 0.80, {"pinned": {KEY: 0.79}}, False),
        ("pinned", 0.95, {"pinned": {KEY: 0.79}}, True),
        ("pinned", 0.80, {"apart": {KEY: 0.79}}, True),
        ("free", 0.80, {"pinned": {KEY: 0.79}}, False),
        ("free", 0.95, {"pinned": {KEY: 0.79}}, True),
    ],
)
def test_the_guard_fails_on_a_ratio_that_became_worse(
    mode: str, ours: float, known: dict[str, dict[str, float]], worse: bool, tmp_path: Path
) -> None:
    done = check(tmp_path, run_of(mode, ours=ours, bare=1.0), known)
    assert done.returncode == (1 if worse else 0), done.stdout + done.stderr
    assert ("worse: a | sqlite" in done.stdout) == worse


@pytest.mark.parametrize(
    ("place", "mode", "limit"),
    [
        ("PostgreSQL 15", "pinned", 1.10),
        ("PostgreSQL 15", "apart", 0.75),
        ("PostgreSQL 15", "latency 1", 0.42),
        ("PostgreSQL 15", "latency 2", None),
        ("MariaDB 11", "pinned", 1.35),
        ("MariaDB 11", "apart", 0.75),
        ("MySQL 9", "pinned", 1.45),
        ("MySQL 9", "apart", 1.00),
        ("MySQL 9", "latency 1", 0.40),
        ("SQLite", "pinned", 0.55),
        ("SQLite", "latency 1", None),
    ],
)
def test_a_run_is_judged_by_the_targets_of_how_it_was_measured(
    place: str, mode: str, limit: float | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    run = run_of(mode, place, ours=2.0, bare=1.0, floor=0.5)
    (tmp_path / "figures.json").write_text(json.dumps(run), encoding="utf-8")
    report = import_module("report").markdown(import_module("figures").Run.load(tmp_path))
    if limit is None:
        assert "## Where we must be" not in report
    else:
        assert f"| 0.50 | 2.00 | 2.00 | {limit:.2f} × | **missed** |" in report


def test_a_run_is_saved_beside_the_others(tmp_path: Path) -> None:
    known = {"pinned": {KEY: 0.5, "old": 1.0}, "apart": {KEY: 0.6}}
    assert check(tmp_path, run_of("pinned", ours=0.7, bare=1.0), known, "--save").returncode == 0
    saved = json.loads((tmp_path / "ratios.json").read_text(encoding="utf-8"))
    assert saved == {"pinned": {KEY: 0.7, "old": 1.0}, "apart": {KEY: 0.6}}
    done = check(tmp_path, run_of("free", ours=0.7, bare=1.0), known, "--save")
    assert done.returncode == 2
    assert "can be saved" in done.stderr
    assert json.loads((tmp_path / "ratios.json").read_text(encoding="utf-8")) == known


def test_the_known_ratios_are_of_targets_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    targets = import_module("targets")
    known = json.loads((BENCHMARKS / "ratios.json").read_text(encoding="utf-8"))
    assert set(known) <= set(targets.COLUMNS) - {"free"}
    there = {(one.work, one.product, one.ours, one.beside) for one in targets.RATIOS}
    for mode, ratios in known.items():
        for key in ratios:
            work, product, ours, beside, unit = key.split(" | ")
            if unit == "×" and work not in "bi":
                assert (work, product, ours, beside) in there, (mode, key)


def publish(folder: Path, *runs: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    for number, run in enumerate(runs):
        (folder / str(number)).mkdir(exist_ok=True)
        (folder / str(number) / "figures.json").write_text(json.dumps(run), encoding="utf-8")
    (folder / "README.md").write_text(
        "before\n<!-- figures -->\nbygone\n<!-- /figures -->\nafter\n", encoding="utf-8"
    )
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "main.py"), "--readme", "README.md",
         "--publish", *map(str, range(len(runs)))],
        cwd=folder, timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip


def test_the_figures_of_several_runs_are_published_together(tmp_path: Path) -> None:
    postgres = "PostgreSQL 15"
    done = publish(
        tmp_path,
        run_of("latency 1", postgres, ours=1.32e-3, never=1.2e-3, bare=4e-3, floor=1.12e-3),
        run_of("pinned", postgres, ours=9.94e-5, never=8.0e-5, bare=1e-4),
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- figures -->\n\na machine\n\n### One processor\n")
    assert text.endswith("\n\n<!-- /figures -->\nafter\n")
    assert "bygone" not in text
    assert text.index("| **jobu-db** | 99.4 |") < text.index("### A network of 1 ms")
    assert text.index("### A network of 1 ms") < text.index("| **jobu-db** | 1,320 |")
    assert "the messages alone |" not in text
    beside = "| (a) | postgres | jobu-db | asyncpg, one connection"
    assert f"{beside} | 0.99 · 1.10 | 0.28 · 0.33 · 0.42 |" in text
    assert "| jobu-db, reset: never | asyncpg, one connection | 0.80 · 1.00 | 0.30 · 0.42 |" in text


@pytest.mark.parametrize("modes", [["free"], ["pinned", "pinned"], ["latency 5"]])
def test_what_was_measured_in_another_way_is_not_published(
    modes: list[str], tmp_path: Path
) -> None:
    done = publish(tmp_path, *(run_of(mode, ours=1.0, bare=1.0) for mode in modes))
    assert done.returncode == 2
    assert "one run of each is published" in done.stderr


def test_two_versions_of_one_product_are_not_published_as_one(tmp_path: Path) -> None:
    runs = [run_of("pinned", place, ours=1.0, bare=1.0) for place in ("MySQL 8", "MySQL 9")]
    both = {**runs[0], "outcomes": [one for run in runs for one in run["outcomes"]]}
    done = publish(tmp_path, both)
    assert done.returncode == 2
    assert "two versions of one product" in done.stderr


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
