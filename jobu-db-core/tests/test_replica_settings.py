"""The settings of replicas: what is taken, and every contradiction told at once."""

from __future__ import annotations

from typing import Any

import pytest

from jobu_db import ConfigurationError
from jobu_db.settings import Address, DatabaseSettings
from jobu_db_mysql.settings import MySQLSettings
from jobu_db_postgres.settings import PostgresSettings
from jobu_db_sqlite.settings import SQLiteSettings


def postgres(**given: Any) -> PostgresSettings:
    return PostgresSettings.parse("orders", {"type": "postgres", **given})


def test_everything_is_taken_as_written() -> None:
    settings = postgres(
        hosts=["db1", "db2", "db3:6000"],
        target_session_attrs="primary",
        replicas={
            "hosts": ["db2", "db3:6000"],
            "max_lag": 5,
            "wait": 0.5,
            "fallback": "primary",
            "pool": {"max_size": 10},
        },
    )
    assert settings.replicas is not None
    assert settings.replica_addresses == (Address("db2", 5432), Address("db3", 6000))
    one = settings.of_replica(Address("db3", 6000))
    assert one.addresses == (Address("db3", 6000),)
    assert (one.target_session_attrs, one.replicas, one.pool.lazy) == ("standby", None, True)
    assert settings.of_host(Address("db1", 5432)).target_session_attrs == "any"


def test_mysql_takes_them_too() -> None:
    settings = MySQLSettings.parse(
        "orders",
        {"type": "mysql", "host": "db1", "database": "d", "replicas": {"hosts": ["db2:3307"]}},
    )
    assert settings.replica_addresses == (Address("db2", 3307),)
    assert settings.of_replica(Address("db2", 3307)).target_session_attrs == "standby"
    with pytest.raises(ConfigurationError, match="must have hosts"):
        MySQLSettings.parse(
            "orders", {"type": "mysql", "host": "db1", "database": "d", "replicas": {}}
        )


def test_replicas_are_by_default_those_of_the_hosts_that_are_standbys() -> None:
    settings = postgres(hosts=["db1", "db2"], target_session_attrs="primary", replicas={})
    assert settings.replicas is not None
    assert (settings.replicas.max_lag, settings.replicas.wait) == (5.0, 0.5)
    assert settings.replicas.fallback == "primary"
    assert settings.replica_addresses == settings.addresses
    assert postgres(host="db1").replica_addresses == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"replicas": {}}, "replicas: must have hosts"),
        ({"hosts": ["db1"], "replicas": {}}, "replicas: must have hosts"),
        ({"replicas": {"hosts": []}}, "replicas.hosts: must"),
        ({"replicas": {"hosts": ["a b"]}}, "replicas.hosts: entry 1 must be a host"),
        ({"replicas": {"host": "db2"}}, "replicas.host: unknown key; did you mean hosts"),
        ({"replicas": {"hosts": ["db2"], "max_lag": 0}}, "replicas.max_lag: must"),
        ({"replicas": {"hosts": ["db2"], "wait": -1}}, "replicas.wait: must"),
        ({"replicas": {"hosts": ["db2"], "fallback": "any"}}, "replicas.fallback: must"),
        ({"host": "db1", "replicas": {"hosts": ["db1"]}}, "the only host of the database itself"),
        ({"replicas": {"hosts": ["db2", "db2:5432"]}}, "must not name a host twice"),
        (
            {"target_session_attrs": "standby", "replicas": {"hosts": ["db2"]}},
            "target_session_attrs asks for a server that only reads",
        ),
        ({"hosts": ["db1", "db2"], "replicas": {}}, "set it to primary"),
        (
            {"pool": {"timeout": 1}, "replicas": {"hosts": ["db2"], "wait": 2}},
            "a wait above the timeout",
        ),
    ],
)
def test_contradictions_are_told(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        postgres(**given)
    assert expected in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        postgres(
            host="db1",
            prot=1,
            target_session_attrs="read-only",
            replicas={"hosts": ["db1", "db1"], "wait": 60},
        )
    text = str(caught.value)
    for part in ("prot", "only reads", "twice", "only host", "above the timeout"):
        assert part in text, part


@pytest.mark.parametrize(
    ("settings", "given", "reason"),
    [
        (SQLiteSettings, {"type": "sqlite", "path": "x.db"}, "is one file"),
        (DatabaseSettings, {"type": "other"}, "no replicas to read from"),
    ],
)
def test_where_there_are_none_they_are_refused_with_the_reason(
    settings: Any, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings.parse("orders", {**given, "replicas": {"hosts": ["db2"]}, "pols": {}})
    assert "orders.replicas: is refused: " in str(caught.value)
    assert reason in str(caught.value)
    assert "pols" in str(caught.value), "with all other problems"
