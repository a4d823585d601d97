"""The server is killed, stopped and cut off, under load: what every server's backend withstands."""

from __future__ import annotations

import asyncpg
import pytest
from server_suites.faults import EndSessions, ServerFaultSuite

pytestmark = pytest.mark.faults


@pytest.fixture
def end_sessions(observer: asyncpg.Connection) -> EndSessions:
    async def end() -> None:
        await observer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    return end


class TestServerFaults(ServerFaultSuite):
    pass
