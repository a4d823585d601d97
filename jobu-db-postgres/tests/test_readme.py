"""The programs and settings in the README work as printed, but for the server's address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from readme_blocks import blocks, run_program

from jobu_db.testing.servers import Server
from jobu_db_postgres.settings import PostgresOptions, PostgresSettings

README = Path(__file__).resolve().parents[1] / "README.md"
PRINTED = "postgresql://jobu:jobu_dev@localhost/jobu"


PROGRAMS = dict(
    zip(
        ["{'id': 1, 'name': 'nightly report'}", "{'stop': 2, 'start': 1}"],
        [block for block in blocks(README, "python") if PRINTED in block],
        strict=True,
    )
)


@pytest.mark.parametrize("printed", PROGRAMS)
async def test_the_programs_run(postgres_url: str, printed: str) -> None:
    assert printed in await run_program(PROGRAMS[printed].replace(PRINTED, postgres_url))


def parsed() -> list[dict[str, Any]]:
    return [yaml.safe_load(block) for block in blocks(README, "yaml")]


def test_the_settings_are_valid() -> None:
    for given in parsed():
        settings = given["databases"]["main"] if "databases" in given else given
        PostgresSettings.parse("main", {"type": "postgres", **settings})


async def test_the_server_takes_the_settings(open_db: Any, postgres_server: Server) -> None:
    for number, given in enumerate(parsed()):
        settings = given["databases"]["main"] if "databases" in given else given
        await open_db(f"{number}", options=settings["options"])


def test_every_option_is_explained() -> None:
    assert all(f"`{name}`" in README.read_text("utf-8") for name in PostgresOptions.model_fields)
