"""Bad arguments, bad configuration, and books that do not balance."""

from __future__ import annotations

from typing import Any

import pytest
from arguments import parse


def test_books_that_do_not_balance_are_found_out(demo: Any) -> None:
    demo.run("--kill-after", "40")
    demo.ledger("DELETE FROM entries WHERE execution_id = (SELECT MIN(execution_id) FROM entries)")
    result = demo.run()
    assert result.returncode == 1
    assert "WRONG" in result.stdout
    assert "THE BOOKS DO NOT BALANCE" in result.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        ["--jobs", "0"],
        ["--executions", "many"],
        ["--workers", "-1"],
        ["--kill-after", "0"],
        ["--kill-after", "5", "--kill-between-commits"],
        ["--unheard-of"],
    ],
)
def test_bad_arguments_are_told(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(wrong)
    assert left.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in told
    assert wrong[-1] in told or wrong[0] in told


def test_bad_arguments_open_nothing(demo: Any) -> None:
    result = demo.run("--workers", "none")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert not (demo.folder / "data").exists()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("", "is empty"),
        ("databases: [", "not valid YAML"),
        ("databases:\n  other: {type: sqlite, path: x.db}\n", "there are: other"),
        ("databases:\n  default: {type: sqlite, pat: x.db}\n", "did you mean path?"),
        ("databases:\n  default: {type: oracle}\n", "no backend for type 'oracle'"),
        ("databases:\n  default: {type: sqlite, path: config}\n", "default"),
    ],
)
def test_bad_configuration_is_told(demo: Any, config: str, told: str) -> None:
    demo.configure(config)
    result = demo.run()
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_configuration_is_told(demo: Any) -> None:
    result = demo.run("--config", "nowhere.yaml")
    assert result.returncode == 2
    assert "nowhere.yaml" in result.stderr
    assert "Traceback" not in result.stderr


def test_all_problems_of_a_configuration_are_told_at_once(demo: Any) -> None:
    demo.configure("databases:\n  default: {type: sqlite, pat: x.db, pool: {pool_size: -1}}\n")
    told = demo.run().stderr
    for key in ("default.path", "default.pat", "default.pool.pool_size"):
        assert key in told


def test_a_server_that_is_not_there_is_told(demo: Any) -> None:
    demo.configure(
        "databases:\n  default:\n    {type: postgres, host: 127.0.0.1, port: 1, database: x, "
        "user: x, password: x}\n"
    )
    result = demo.run()
    assert result.returncode == 2
    assert "127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr
