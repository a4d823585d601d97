"""Whether a server still is what the settings ask for, as it says itself.

PostgreSQL 14 and newer tell with every answer whether they are a standby and whether sessions
begin read-only, when that changes: a demotion or promotion is known without asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_READ_ONLY_BY_DEFAULT = "default_transaction_read_only"

INSTEAD_OF = {
    "primary": "standby",
    "read-write": "read-only",
    "standby": "primary",
    "read-only": "primary",
}
"""What a server is that is not what was wanted, as far as that tells."""


def role_of(reported: Any) -> str | None:
    """Say what a server is; None if it does not tell, being older than PostgreSQL 14."""
    standby, read_only = _told(reported)
    if standby is None:
        return None
    return "standby" if standby else "read-only" if read_only else "primary"


class Role:
    """What the servers of one pool must be.

    Args:
        wanted: The setting `target_session_attrs`.
        startup: What every session is set to.
    """

    def __init__(self, wanted: str, startup: Mapping[str, str]) -> None:
        self._wanted = wanted
        self._only_reads = wanted in ("standby", "read-only", "prefer-standby")
        self._read_only_by_wish = any(name.lower() == _READ_ONLY_BY_DEFAULT for name in startup)

    def fits(self, reported: Any) -> bool:
        """Say False if the server certainly is not what is wanted."""
        wanted = self._wanted
        if wanted in ("any", "prefer-standby"):
            return True
        # Before PostgreSQL 14 neither is told: None is no reason to leave a server that was in the
        # role that was wanted when it was connected to.
        standby, read_only = _told(reported)
        if wanted == "standby":
            return standby is not False
        if wanted == "read-only":
            return standby is not False or read_only is not False
        return not standby and not (wanted == "read-write" and read_only)

    def has_lost_writes(self, reported: Any) -> bool:
        """Say whether the server, not a setting of ours, is why it refuses to write."""
        if self._only_reads:
            return False
        standby, read_only = _told(reported)
        return bool(standby or (read_only and not self._read_only_by_wish))


def _told(reported: Any) -> tuple[bool | None, bool | None]:
    """Whether it is a standby, and read-only by default; None where it does not tell."""
    return _on(reported, "in_hot_standby"), _on(reported, _READ_ONLY_BY_DEFAULT)


def _on(reported: Any, name: str) -> bool | None:
    value = getattr(reported, name, None)
    return None if value is None else value == "on"
