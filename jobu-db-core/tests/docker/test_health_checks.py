"""The containers' health checks, as written, against private servers.

Healthy must mean ready for the application's user: both images first run a temporary server, on
the socket alone, which takes logins while the init scripts still run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from jobu_db.testing.servers import Server

Healthy = Callable[[Path, Server], bool]

pytestmark = pytest.mark.one_server


@pytest.fixture
def healthy(services: dict[str, Any]) -> Healthy:
    """`healthy(client, server)` runs the check, with the server's port and socket for default."""

    def check(client: Path, server: Server) -> bool:
        service = {"psql": "postgres", "mysql": "mysql"}[client.name]
        how, command = services[service]["healthcheck"]["test"]
        assert how == "CMD-SHELL"
        port, socket = str(urlsplit(server.url).port), str(server.socket)
        defaults = {
            "postgres": {"PGPORT": port, "PGHOST": socket},
            "mysql": {"MYSQL_TCP_PORT": port, "MYSQL_UNIX_PORT": socket},
        }
        environment = {"PATH": f"{client.parent}:{os.environ['PATH']}", **defaults[service]}
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True)
        return done.returncode == 0

    return check


async def test_postgres_is_healthy_once_the_applications_database_is_there(
    healthy: Healthy, start_postgres: Callable[..., Server], psql: Path
) -> None:
    server = start_postgres()
    assert not healthy(psql, server)
    admin = await asyncpg.connect(server.url)
    await admin.execute("CREATE DATABASE jobu")
    await admin.close()
    assert healthy(psql, server)


async def test_postgres_is_not_healthy_while_the_temporary_server_runs(
    healthy: Healthy, start_postgres: Callable[..., Server], psql: Path
) -> None:
    server = start_postgres(settings={"listen_addresses": ""})
    parts = urlsplit(server.url)
    admin = await asyncpg.connect(server.url, host=server.socket, port=parts.port)
    await admin.execute("CREATE DATABASE jobu")
    await admin.close()
    assert not healthy(psql, server)


def test_mysql_is_healthy_once_the_applications_user_and_database_are_there(
    healthy: Healthy, start_mysql: Callable[..., Server], mysql: Path
) -> None:
    server = start_mysql()
    assert healthy(mysql, server)
    as_root = [str(mysql), "-uroot", f"--socket={server.socket}"]
    subprocess.run([*as_root, "-e", "DROP DATABASE jobu"], check=True)
    assert not healthy(mysql, server)
    subprocess.run([*as_root, "-e", "CREATE DATABASE jobu; DROP USER jobu"], check=True)
    assert not healthy(mysql, server)


def test_mysql_is_not_healthy_while_the_temporary_server_runs(
    healthy: Healthy, start_mysql: Callable[..., Server], mysql: Path
) -> None:
    assert not healthy(mysql, start_mysql(settings={"skip-networking": "ON"}))
