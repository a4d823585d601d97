"""What is logged of a database goes to its own logger, a child of `jobu_db`."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import jobu_db
from jobu_db.testing.fake import FakeDatabase

CORE = Path(jobu_db.__file__).parent


async def test_one_database_can_be_silenced(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("jobu_db.silent").setLevel(logging.CRITICAL)
    for name in ("silent", "loud"):
        db = await FakeDatabase.create(name, {})
        lease = await db.pool.acquire()
        await db.close(timeout=0)
        db.pool.release(lease)
    told = [record for record in caplog.records if "closed while in use" in record.message]
    assert [record.name for record in told] == ["jobu_db.loud"]
    assert told[0].message.startswith("loud: closed while in use by task")


def test_what_is_logged_where_a_pool_is_known_goes_to_its_logger() -> None:
    for folder in ("pool", "transaction"):
        for path in (CORE / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                used = isinstance(node, ast.Attribute) and ast.unparse(node) == "logging.getLogger"
                assert not used, f"{path.name} logs for nobody in particular: use logger_of"
