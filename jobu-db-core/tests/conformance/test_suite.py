"""The suite judges declarations: what it skips, what it refuses, and what it tells at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

MODULE = """
import pytest
from jobu_db.capabilities import Capabilities, unsupported
from jobu_db.testing.conformance import Backend, suite
from jobu_db.testing.fake import FakeDatabase, FakeServer

globals().update(suite())


class FakeBackend(Backend):
    def __init__(self):
        self.server = FakeServer()

    async def open(self, name="main", **pool):
        database = await FakeDatabase.create(name, {"server": self.server, "pool": pool})
        database.driver.capabilities = CAPABILITIES
        return database


@pytest.fixture
def backend():
    return FakeBackend()
"""
SETTINGS = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


def run(pytester: pytest.Pytester, declared: str, words: str, more: str = "") -> pytest.RunResult:
    pytester.makeini(SETTINGS)
    Path("test_fake.py").write_text(f"{MODULE}\nCAPABILITIES = Capabilities({declared})\n{more}")
    without = ("-p", "no:hypothesispytest", "-p", "no:xdist")  # dear to load
    return pytester.runpytest_subprocess("-k", words, *without)


def test_what_is_declared_unsupported_is_skipped_and_told_with_its_reason(
    pytester: pytest.Pytester,
) -> None:
    done = run(pytester, 'sessions=unsupported("nobody listens")', "test_a_lost_connection_dooms")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*declared unsupported*", "*1 skipped, sessions: nobody listens"])


def test_what_is_declared_unsupported_but_works_is_a_failure(pytester: pytest.Pytester) -> None:
    done = run(pytester, 'savepoints=unsupported("left out")', "if_and_only_if and savepoints")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*savepoints is declared unsupported (left out), but works*"])


def test_what_is_not_declared_but_does_not_work_is_a_failure(pytester: pytest.Pytester) -> None:
    done = run(pytester, "", "if_and_only_if and statement_timeout")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*statement_timeout is declared supported, but does not work*"])


def test_a_skip_without_a_declaration_is_a_failure(pytester: pytest.Pytester) -> None:
    skip = "TestStatement = pytest.mark.skip('does not work yet')(TestStatement)"
    done = run(pytester, "", "test_no_row_is_none", skip)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*skipped without a declaration*does not work yet*"])


def test_a_driver_that_is_declared_taskless_and_needs_a_task_is_a_failure(
    pytester: pytest.Pytester,
) -> None:
    late = """
import asyncio
from jobu_db.testing.fake import FakeDriver
class Late(FakeDriver):
    taskless = True
    async def commit(self, connection, *, reset):
        async with asyncio.timeout(5):
            return await super().commit(connection, reset=reset)
FakeDatabase.make_driver = classmethod(lambda cls, name, settings: Late(settings.server))
"""
    done = run(pytester, "", "test_what_is_declared_taskless_needs_no_task", late)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*RuntimeError: *task*"])
