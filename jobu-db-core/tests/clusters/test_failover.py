"""What a failover costs, on every cluster and with every fault; see `clusters.measure`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from clusters import galera, group_replication, patroni
from clusters.cluster import Cluster
from clusters.main import CLUSTERS
from clusters.measure import Result, measure

from jobu_db.testing.servers import ServerError, debian
from jobu_db.testing.servers.postgres import find_programs

pytestmark = [pytest.mark.clusters, pytest.mark.xdist_group("clusters")]

OTHERS: dict[str, Callable[[], object]] = {
    "group-replication": group_replication.program,
    "patroni": patroni.programs,
}
"""Clusters that need programs no package brings: where they are missing, that is told."""

SHORT = {("postgres", "kill"), ("galera", "stop")}


def bring_programs(name: str) -> None:
    """Install what a cluster needs, where that is allowed; fail, saying what is missing."""
    if name == "galera":
        try:
            galera.library()
        except ServerError:
            if not debian.can_install():
                raise
            debian.install_packages("mariadb-server galera-4 rsync", print)
    elif name == "postgres" and not find_programs():
        debian.install_packages("postgresql", print)
    elif name in OTHERS:
        try:
            OTHERS[name]()
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
