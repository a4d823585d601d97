"""The programs and settings in the README work as printed, but for the server's address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from readme_blocks import blocks, run_program

from jobu_db_mysql.settings import MySQLSettings

README = Path(__file__).resolve().parents[1] / "README.md"
PRINTED = "mysql://jobu:jobu_dev@localhost/jobu"

PROGRAMS = dict(
    zip(
        ["{'id': 1, 'name': 'nightly report'}", "[{'code': 'EUR'}]\n1\nCHF 0.8\nEUR 1.0\n"],
        [block for block in blocks(README, "python") if PRINTED in block],
        strict=True,
    )
)


@pytest.mark.parametrize("printed", PROGRAMS)
async def test_the_programs_run(mysql_url: str, printed: str) -> None:
    assert printed in await run_program(PROGRAMS[printed].replace(PRINTED, mysql_url))


def parsed() -> list[dict[str, Any]]:
    return [yaml.safe_load(block)["databases"]["main"] for block in blocks(README, "yaml")]


def test_the_settings_are_valid() -> None:
    for settings in parsed():
        MySQLSettings.parse("main", settings)


async def test_the_server_takes_the_settings(open_db: Any) -> None:
    for number, settings in enumerate(parsed()):
        await open_db(f"{number}", options=settings["options"], init_sql=settings["init_sql"])
