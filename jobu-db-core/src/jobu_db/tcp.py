"""What TCP can be asked and told about a peer that does not answer."""

from __future__ import annotations

import os
import socket
import struct

_TCP_INFO = struct.Struct("8B13I")
"""The beginning of Linux's `struct tcp_info` (linux/tcp.h): from `tcpi_state` to
`tcpi_last_ack_recv`."""
_PROBES, _UNACKED, _LAST_ACK_RECEIVED = 3, 12, 20
"""Places in it: keepalive or window probes under way, segments that are not acknowledged, and
milliseconds since the last acknowledgement came."""


def keep_alive(peer: socket.socket | None, seconds: float | None) -> None:
    """Have the system ask a peer from which nothing comes, and end the connection after so long.

    For an answer that got lost: nothing is under way then, and only asking tells. Not by
    TCP_USER_TIMEOUT, which also ends a healthy connection whose peer keeps its window shut.

    Args:
        peer: The socket of a connection; nothing is done for one that is no TCP socket.
        seconds: Until a silent connection ends: a quarter before the first of three questions.
            None leaves the system's own settings.
    """
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6) or seconds is None:
        return
    pause = max(1, round(seconds / 4))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", pause), ("TCP_KEEPINTVL", pause), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not every system has all of them
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def unacknowledged_for(peer: socket.socket | None) -> float:
    """Return for how many seconds the peer has acknowledged nothing of what is under way; 0 if
    nothing is, or the system does not tell.

    A peer that keeps its window shut acknowledges probes, and is not silent.
    """
    if peer is None or not hasattr(socket, "TCP_INFO") or peer.fileno() < 0:
        return 0.0
    try:
        with socket.socket(fileno=os.dup(peer.fileno())) as copy:  # uvloop's can be asked less
            told = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:  # no TCP, or closed just now
        return 0.0
    if len(told) < _TCP_INFO.size:
        return 0.0
    info = _TCP_INFO.unpack(told)
    under_way = info[_UNACKED] or info[_PROBES]
    return float(info[_LAST_ACK_RECEIVED]) / 1000 if under_way else 0.0
