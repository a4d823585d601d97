"""Which server fits which wish, by what it reports of itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jobu_db_postgres.roles import Role

PRIMARY = {"in_hot_standby": "off", "default_transaction_read_only": "off"}
STANDBY = {"in_hot_standby": "on", "default_transaction_read_only": "off"}
READ_ONLY = {"in_hot_standby": "off", "default_transaction_read_only": "on"}
OLD: dict[str, str] = {}

FITS = {
    # primary, standby, read-only by default, a server that does not tell
    "any": (True, True, True, True),
    "prefer-standby": (True, True, True, True),
    "primary": (True, False, True, True),
    "read-write": (True, False, False, True),
    "standby": (False, True, False, True),
    "read-only": (False, True, True, True),
}

LOST = {
    "any": (False, True, True, False),
    "primary": (False, True, True, False),
    "read-write": (False, True, True, False),
    "prefer-standby": (False, False, False, False),
    "standby": (False, False, False, False),
    "read-only": (False, False, False, False),
}

REPORTS = [SimpleNamespace(**reported) for reported in (PRIMARY, STANDBY, READ_ONLY, OLD)]


@pytest.mark.parametrize("wanted", FITS)
def test_what_fits(wanted: str) -> None:
    role = Role(wanted, {})
    assert tuple(role.fits(reported) for reported in REPORTS) == FITS[wanted]


@pytest.mark.parametrize("wanted", LOST)
def test_what_may_no_longer_be_written_to(wanted: str) -> None:
    role = Role(wanted, {})
    assert tuple(role.has_lost_writes(reported) for reported in REPORTS) == LOST[wanted]


def test_a_session_that_is_to_read_only_means_no_failover() -> None:
    role = Role("primary", {"DEFAULT_transaction_read_only": "on"})
    assert [role.has_lost_writes(reported) for reported in REPORTS] == [False, True, False, False]
