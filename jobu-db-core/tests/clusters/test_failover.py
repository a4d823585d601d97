"""What a failover costs, on every cluster and with every fault; see `clusters.measure`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clusters import galera, group_replication, haproxy, patroni, plain_postgres
from clusters.cluster import Cluster, until
from clusters.main import CLUSTERS
from clusters.measure import Result, measure

from jobu_db import (
    ConnectionFailedError,
    ConnectionLostError,
    ReadOnlyTransactionError,
    TransactionError,
    transactional,
)
from jobu_db.testing.servers import ServerError, debian
from jobu_db.testing.servers.postgres import find_programs
from jobu_db.transaction import decisions
from jobu_db_mysql import MySQLDatabase
from jobu_db_postgres import PostgresDatabase
from jobu_db_sqlite import SQLiteDatabase

pytestmark = [pytest.mark.clusters, pytest.mark.xdist_group("clusters")]


def _postgres() -> None:
    if not find_programs():
        raise ServerError("PostgreSQL is missing")


NEEDS: dict[str, list[tuple[Callable[[], object], str]]] = {
    "postgres": [(_postgres, "postgresql")],
    "haproxy": [(_postgres, "postgresql"), (haproxy.program, "haproxy")],
    "patroni": [(_postgres, "postgresql"), (patroni.programs, "patroni etcd-server")],
    "haproxy-patroni": [
        (_postgres, "postgresql"),
        (patroni.programs, "patroni etcd-server"),
        (haproxy.program, "haproxy"),
    ],
    "galera": [(galera.library, "mariadb-server galera-4 rsync")],
}
"""What each cluster asks for, and the packages that bring it."""

SHORT = {("postgres", "kill"), ("galera", "stop")}


def bring_programs(name: str) -> None:
    """Install what a cluster needs, where that is allowed; fail, saying what is missing."""
    for find, packages in NEEDS.get(name, []):
        try:
            find()
        except ServerError:
            if not debian.can_install():
                raise
            debian.install_packages(packages, print)
    if name == "group-replication":  # no package of Debian's brings MySQL
        try:
            group_replication.program()
        except ServerError as error:
            pytest.skip(str(error))


def every_fault() -> list[Any]:
    rows = [(name, kind, fault) for name, kind in CLUSTERS.items() for fault in kind.faults]
    return [
        pytest.param(
            *row,
            marks=[pytest.mark.short] if (row[0], row[2]) in SHORT else [],
            id=f"{row[0]}-{row[2]}",
        )
        for row in rows
    ]


@pytest.mark.parametrize(("name", "kind", "fault"), every_fault())
async def test_a_failover(
    name: str, kind: type[Cluster], fault: str, measured: list[Result]
) -> None:
    bring_programs(name)
    async with kind() as cluster:
        result = await measure(cluster, fault)
    measured.append(result)
    assert not result.shortcomings(), dict(result.errors)


@pytest.mark.parametrize(
    ("wait", "answering"),
    [(0.02, "behind"), (25.0, "reads")],
    ids=["by the primary", "by a standby, two seconds later"],
)
async def test_own_writes_are_read_though_standbys_are_two_seconds_behind(
    wait: float, answering: str
) -> None:
    """A thousand writes, each followed by a read of its row."""
    bring_programs("postgres")
    tasks, pairs = 100, 10
    async with plain_postgres.PlainPostgres() as cluster:
        for standby in cluster.nodes[1:]:
            await standby.configure(recovery_min_apply_delay="2s")
        config = {**cluster.settings("kill"), "target_session_attrs": "primary"}
        config["replicas"] = {"wait": wait, "max_lag": 60.0}
        async with PostgresDatabase.create("lagging", config) as db:

            async def write_and_read(task: int) -> None:
                for pair in range(pairs):
                    n = task * pairs + pair
                    await db.execute("INSERT INTO numbers (n) VALUES ($1)", n)
                    found = "SELECT count(*) FROM numbers WHERE n = $1"
                    assert await db.replica.fetch_val(found, n) == 1, "a stale read"

            await asyncio.gather(*map(write_and_read, range(tasks)))
            figures = db.stats()["replicas"]
            counted = {"reads": figures["reads"], **figures["fallbacks"]}
            assert counted[answering] > tasks * pairs / 2, counted


async def test_secondaries_of_a_group_are_replicas_which_answer_while_it_elects_a_primary() -> None:
    bring_programs("group-replication")
    async with group_replication.GroupReplication() as cluster:
        config = {**cluster.settings("kill"), "target_session_attrs": "primary"}
        config["replicas"] = {"wait": 20.0, "max_lag": 60.0, "fallback": "error"}
        async with MySQLDatabase.create("group", config) as db:
            count = "SELECT count(*) FROM numbers"
            for number in range(1, 101):
                await db.execute("INSERT INTO numbers (n) VALUES (%s)", (number,))
                assert await db.replica.fetch_val(count) == number
            killing = asyncio.create_task(cluster.kill())
            while not killing.done():
                assert await db.replica.fetch_val(count) == 100
                await asyncio.sleep(0.01)
            await killing
            await db.execute("INSERT INTO numbers (n) VALUES (101)")
            assert await db.replica.fetch_val(count) == 101
            assert not any(db.stats()["replicas"]["fallbacks"].values())


async def test_standbys_behind_one_port_answer_while_patroni_elects_a_primary() -> None:
    bring_programs("haproxy-patroni")
    async with (
        haproxy.PatroniBehindHAProxy() as cluster,
        PostgresDatabase.create("primary", cluster.settings("kill")) as primary,
        PostgresDatabase.create("standbys", cluster.settings_of_standbys()) as standbys,
    ):
        await standbys.pool.wait(60)
        killing = asyncio.create_task(cluster.kill())
        while not killing.done():
            with contextlib.suppress(ConnectionLostError):  # to the standby that is made primary
                assert await standbys.fetch_val("SELECT pg_is_in_recovery()")
            await asyncio.sleep(0.01)
        await killing
        await primary.execute("INSERT INTO numbers (n) VALUES (1)")
        with pytest.raises(ReadOnlyTransactionError):
            await standbys.execute("INSERT INTO numbers (n) VALUES (2)")


async def test_nodes_of_galera_are_refused_as_replicas_with_the_reason() -> None:
    bring_programs("galera")
    async with galera.Galera() as cluster:
        config = cluster.settings("fence")
        config["replicas"] = {"fallback": "error"}
        async with MySQLDatabase.create("nodes", config) as db:
            with pytest.raises(ConnectionFailedError, match=r"Galera.*wsrep_sync_wait"):
                await db.replica.fetch_val("SELECT 1")
            assert all("Galera" in one["fault"] for one in db.stats()["hosts"])
            await db.execute("INSERT INTO numbers (n) VALUES (1)")


async def test_a_random_order_spreads_connections_over_all_nodes_and_over_one_that_came_back() -> (
    None
):
    """Within one max_lifetime, in which each connection is replaced."""
    bring_programs("galera")
    async with galera.Galera() as cluster:
        pool = {"min_size": 30, "max_size": 30, "max_lifetime": 40.0}
        config = {**cluster.settings("kill"), "host_order": "random", "pool": pool}
        async with MySQLDatabase.create("spread", config) as db:

            def connections() -> list[int]:
                return [one["connections"] for one in db.stats()["hosts"]]

            await db.pool.wait(60)
            assert all(connections()), "one in sixty thousand fails this by chance"
            last = cluster.nodes[2]
            await asyncio.to_thread(last.kill)

            async def is_left() -> bool:
                await db.pool.check()
                return connections()[2] == 0 and sum(connections()) == 30

            await until(is_left, "all connections elsewhere")
            await asyncio.to_thread(last.start)
            await until(last.is_ready, "the node in its cluster")

            async def has_its_share() -> bool:
                return connections()[2] > 0

            await until(has_its_share, "connections to the node that came back")


async def test_galera_prepares_nothing_and_may_decide(tmp_path: Path) -> None:
    """It refuses XA transactions, with error 1235, in Galera's own words."""
    bring_programs("galera")
    async with galera.Galera() as cluster:
        config = cluster.settings("kill")
        async with (
            SQLiteDatabase.create("lite", {"path": str(tmp_path / "lite.db")}) as lite,
            MySQLDatabase.create("galera", config) as one,
        ):
            with pytest.raises(
                TransactionError, match="atomic=True: the server refuses XA"
            ) as told:
                async with transactional(lite, one, atomic=True):
                    pass
            assert "as Galera does: name this database first" in str(told.value)
            await decisions.identify(one.pool)
