"""The fixture of the service's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from shop.tests.running import Service


@pytest.fixture
def service(postgres_url: str, tmp_path: Path) -> Service:
    """The service, not yet started, on a database of its own on each PostgreSQL."""
    return Service(postgres_url, tmp_path)
