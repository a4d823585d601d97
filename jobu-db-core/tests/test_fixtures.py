"""The fixtures for users' programs, each used as its documentation says."""

from __future__ import annotations

import textwrap

import pytest

pytest_plugins = ["pytester"]

WITHOUT = ("-p", "no:randomly", "-p", "no:hypothesispytest", "-p", "no:xdist")  # dear to load
CONFTEST = """
import pytest

pytest_plugins = ["jobu_db.testing.fixtures"]

@pytest.fixture
def jobu_config(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    return {
        "databases": {
            name: {"type": "sqlite", "path": str(folder / f"{name}.db")}
            for name in ("default", "audit")
        }
    }
"""
PROGRAM = """
import pytest
from jobu_db import ConnectionLostError, DatabaseError, get_connection, get_db, transactional


@transactional("default", "audit")
async def work(fail=False):
    for name in ("default", "audit"):
        await get_connection(name).execute("INSERT INTO jobs VALUES (1)")
    if fail:
        raise KeyError


async def count(name="default"):
    return await get_db(name).fetch_val("SELECT count(*) FROM jobs")


"""
SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""


def run(pytester: pytest.Pytester, tests: str) -> pytest.RunResult:
    pytester.makeini(SETTINGS)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(PROGRAM + textwrap.dedent(tests))
    return pytester.runpytest_subprocess(*WITHOUT)


def test_each_test_starts_from_what_was_there_and_leaves_nothing(
    pytester: pytest.Pytester,
) -> None:
    done = run(
        pytester,
        """
        async def test_before(databases):
            for db in databases.values():
                await db.execute("CREATE TABLE jobs (id INTEGER)")

        @pytest.mark.parametrize("again", range(3))
        async def test_work(rolled_back, again):
            await work()
            assert (await count(), await count("audit")) == (1, 1)

        async def test_a_failure_inside_undoes_its_own_work(rolled_back):
            await work()
            with pytest.raises(KeyError):
                await work(fail=True)
            assert (await count(), await count("audit")) == (1, 1)

        async def test_a_failing_test(rolled_back):
            await work()
            assert False

        async def test_after(databases):
            assert sorted(databases) == ["audit", "default"]
            assert (await count(), await count("audit")) == (0, 0)
        """,
    )
    done.assert_outcomes(passed=6, failed=1)


def test_in_a_rolled_back_test_a_correct_program_behaves_as_outside(
    pytester: pytest.Pytester,
) -> None:
    done = run(
        pytester,
        """
        from jobu_db import SerializationError

        async def test_before(databases):
            for db in databases.values():
                await db.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY)")

        async def test_an_error_that_is_caught(rolled_back):
            await get_db().execute("INSERT INTO jobs VALUES (1)")
            with pytest.raises(DatabaseError):
                await get_db().execute("INSERT INTO jobs VALUES (1)")
            await get_db().execute("INSERT INTO jobs VALUES (2)")
            assert await count() == 2

        async def test_an_isolation_level(rolled_back):
            async with get_db().transaction(isolation="serializable") as ctx:
                await ctx.execute("INSERT INTO jobs VALUES (1)")
            assert await count() == 1

        async def test_a_block_that_fails_around_a_unit(rolled_back):
            with pytest.raises(KeyError):
                async with get_db().transaction():
                    await work()
                    raise KeyError
            assert (await count(), await count("audit")) == (0, 0)
            await work()
            assert (await count(), await count("audit")) == (1, 1)

        async def test_retries(rolled_back):
            attempts = []

            @transactional(retries=2)
            async def unlucky():
                attempts.append(1)
                await get_connection().execute("INSERT INTO jobs VALUES (1)")
                if len(attempts) < 3:
                    raise SerializationError("again")

            await unlucky()
            assert (len(attempts), await count()) == (3, 1)

        async def test_after(databases):
            assert (await count(), await count("audit")) == (0, 0)
        """,
    )
    done.assert_outcomes(passed=6)


def test_statements_are_counted_of_all_databases_or_of_one(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
        async def test_count(databases, count_statements):
            for db in databases.values():
                await db.execute("CREATE TABLE jobs (id INTEGER)")
            with count_statements() as counted, count_statements("audit") as of_audit:
                await work()
            await count()
            assert counted.statements == ["INSERT INTO jobs VALUES (1)"] * 2
            assert len(of_audit) == 1
        """,
    )
    done.assert_outcomes(passed=1)


def test_the_fake_database_fails_as_it_is_told(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        """
        @transactional
        async def alone():
            await get_connection().execute("INSERT INTO jobs VALUES (1)")

        async def test_commit(fake_database):
            await fake_database.execute("CREATE TABLE jobs (id INTEGER)")
            fake_database.server.fail("commit")
            with pytest.raises(DatabaseError):
                await alone()
            assert fake_database.server.rows("SELECT * FROM jobs") == []
            fake_database.server.lose("execute")
            with pytest.raises(ConnectionLostError):
                await alone()
            await alone()
            assert await count() == 1
        """,
    )
    done.assert_outcomes(passed=1)


def test_fake_databases_have_any_name_and_refuse_what_is_open_too(
    pytester: pytest.Pytester,
) -> None:
    done = run(
        pytester,
        """
        async def test_two(open_fake_database):
            orders, audit = await open_fake_database("orders"), await open_fake_database("audit")
            assert get_db("orders") is orders and get_db("audit") is audit
            await orders.fetch_val("SELECT 1")
            orders.server.refuse()
            with pytest.raises(DatabaseError):
                async with orders.transaction(timeout=0.2):
                    pass
            await audit.fetch_val("SELECT 1")
            orders.server.accept()
            await orders.fetch_val("SELECT 1")
        """,
    )
    done.assert_outcomes(passed=1)


def test_a_missing_configuration_is_told(pytester: pytest.Pytester) -> None:
    pytester.makeini(SETTINGS)
    pytester.makeconftest('pytest_plugins = ["jobu_db.testing.fixtures"]')
    pytester.makepyfile("async def test_it(databases): pass")
    done = pytester.runpytest_subprocess(*WITHOUT)
    done.stdout.fnmatch_lines(["*define a fixture `jobu_config`*"])
