"""The programs and settings in the README work as printed, but for the server's address."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobu_db.testing.servers import Server
from jobu_db_postgres.settings import PostgresOptions, PostgresSettings

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
PRINTED = "postgresql://jobu:jobu_dev@localhost/jobu"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


PROGRAMS = dict(
    zip(
        ["{'id': 1, 'name': 'nightly report'}", "{'stop': 2, 'start': 1}"],
        [block for block in blocks("python") if PRINTED in block],
        strict=True,
    )
)


@pytest.mark.parametrize("printed", PROGRAMS)
async def test_the_programs_run(postgres_url: str, printed: str) -> None:
    program = PROGRAMS[printed]
    assert PRINTED in program
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", program.replace(PRINTED, postgres_url)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await process.communicate()
    assert complaints == b""
    assert printed in out.decode()


def parsed() -> list[dict[str, Any]]:
    return [yaml.safe_load(block) for block in blocks("yaml")]


def test_the_settings_are_valid() -> None:
    for given in parsed():
        settings = given["databases"]["main"] if "databases" in given else given
        PostgresSettings.parse("main", {"type": "postgres", **settings})


async def test_the_server_takes_the_settings(open_db: Any, postgres_server: Server) -> None:
    for number, given in enumerate(parsed()):
        settings = given["databases"]["main"] if "databases" in given else given
        await open_db(f"{number}", options=settings["options"])


def test_every_option_is_explained() -> None:
    assert all(f"`{name}`" in README for name in PostgresOptions.model_fields)
