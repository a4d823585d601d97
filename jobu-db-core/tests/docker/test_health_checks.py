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

pytestmark = pytest.mark.one_server


@pytest.fixture
def healthy(services: dict[str, Any], clients: Path) -> Callable[[str, Server], bool]:
    """`healthy(service, server)` runs the check, with the server's port and socket for default."""

    def check(service: str, server: Server) -> bool:
        how, command = services[service]["healthcheck"]["test"]
        assert how == "CMD-SHELL"
        port, socket = str(urlsplit(server.url).port), str(server.socket)
        defaults = {
            "postgres": {"PGPORT": port, "PGHOST": socket},
            "mysql": {"MYSQL_TCP_PORT": port, "MYSQL_UNIX_PORT": socket},
        }
        environment = {"PATH": f"{clients}:{os.environ['PATH']}", **defaults[service]}
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True)
        return done.returncode == 0

    return check


async def test_postgres_is_healthy_once_the_applications_database_is_there(
    healthy: Callable[[str, Server], bool], start_postgres: Callable[..., Server]
) -> None:
    server = start_postgres()
    assert not healthy("postgres", server)
    admin = await asyncpg.connect(server.url)
    await admin.execute("CREATE DATABASE jobu")
    await admin.close()
    assert healthy("postgres", server)


async def test_postgres_is_not_healthy_while_the_temporary_server_runs(
    healthy: Callable[[str, Server], bool], start_postgres: Callable[..., Server]
) -> None:
    server = start_postgres(settings={"listen_addresses": ""})
    parts = urlsplit(server.url)
    admin = await asyncpg.connect(server.url, host=server.socket, port=parts.port)
    await admin.execute("CREATE DATABASE jobu")
    await admin.close()
    assert not healthy("postgres", server)


def test_mysql_is_healthy_once_the_applications_user_and_database_are_there(
    healthy: Callable[[str, Server], bool], start_mysql: Callable[..., Server], clients: Path
) -> None:
    server = start_mysql()
    assert healthy("mysql", server)
    as_root = [clients / "mysql", "-uroot", f"--socket={server.socket}"]
    subprocess.run([*as_root, "-e", "DROP DATABASE jobu"], check=True)
    assert not healthy("mysql", server)
    subprocess.run([*as_root, "-e", "CREATE DATABASE jobu; DROP USER jobu"], check=True)
    assert not healthy("mysql", server)


def test_mysql_is_not_healthy_while_the_temporary_server_runs(
    healthy: Callable[[str, Server], bool], start_mysql: Callable[..., Server]
) -> None:
    assert not healthy("mysql", start_mysql(settings={"skip-networking": "ON"}))
