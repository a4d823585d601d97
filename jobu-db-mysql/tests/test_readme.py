"""The programs and settings in the README work as printed, but for the server's address."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobu_db_mysql.settings import MySQLSettings

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
PRINTED = "mysql://jobu:jobu_dev@localhost/jobu"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


PROGRAMS = dict(
    zip(
        ["{'id': 1, 'name': 'nightly report'}", "[{'code': 'EUR'}]\n1\nCHF 0.8\nEUR 1.0\n"],
        [block for block in blocks("python") if PRINTED in block],
        strict=True,
    )
)


@pytest.mark.parametrize("printed", PROGRAMS)
async def test_the_programs_run(mysql_url: str, printed: str) -> None:
    program = PROGRAMS[printed]
    assert PRINTED in program
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", program.replace(PRINTED, mysql_url)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await process.communicate()
    assert complaints == b""
    assert printed in out.decode()


def parsed() -> list[dict[str, Any]]:
    return [yaml.safe_load(block)["databases"]["main"] for block in blocks("yaml")]


def test_the_settings_are_valid() -> None:
    for settings in parsed():
        MySQLSettings.parse("main", settings)


async def test_the_server_takes_the_settings(open_db: Any) -> None:
    for number, settings in enumerate(parsed()):
        await open_db(f"{number}", options=settings["options"], init_sql=settings["init_sql"])
