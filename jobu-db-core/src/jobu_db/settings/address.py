"""Addresses of servers: `host`, `host:port`, `[::1]:port`, or the path of a Unix socket."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple

# In this order: what has two colons or more and no brackets is an IPv6 address to its end, so that
# its last group is never taken for a port. A host holds no @ or /: what has one is a URL in the
# wrong place, whose password would otherwise be looked up, and told, as part of a name.
_ADDRESS = re.compile(
    r"(?P<socket>/[^\s,]*)"
    r"|(?P<ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%\w+)?)"
    r"|(?:\[(?P<bracketed>[^\s,@/\[\]]+)\]|(?P<host>[^\s,@/:\[\]]+))(?::(?P<port>\d{1,5}))?"
)


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    @property
    def unix_socket(self) -> str | None:
        """The path of the Unix socket or its directory, None for TCP."""
        return self.host if self.host.startswith("/") else None

    @property
    def is_local(self) -> bool:
        """True if what is sent there does not leave this machine."""
        return (
            # Of names, RFC 6761 reserves localhost for loopback. Others are not resolved: that
            # would block, and the connection itself may get another answer.
            self.unix_socket is not None
            or self.host.lower() == "localhost"
            or is_loopback(self.host)
        )

    def __str__(self) -> str:
        # `parse_address` reads this again: without brackets, the port would be part of the address.
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.unix_socket or f"{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Say whether this is an IP address of this machine alone; False for names."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def parse_address(text: str) -> tuple[str, int | None]:
    """Read an address as host or path, and the port if it has one.

    Raises:
        ValueError: The text is none. It is not repeated: it might be a URL with a password.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError("must be a host, host:port, [IPv6]:port, or the path of a Unix socket")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise ValueError("must have a port from 1 to 65535")
    host = match["socket"] or match["ipv6"] or match["bracketed"] or match["host"]
    return host, port
