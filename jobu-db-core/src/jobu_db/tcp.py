"""What TCP can be asked and told about a peer that does not answer."""

from __future__ import annotations

import os
import socket
import struct
import weakref
from typing import Protocol

_TCP_INFO = struct.Struct("8B13I")
"""The beginning of Linux's `struct tcp_info` (linux/tcp.h): from `tcpi_state` to
`tcpi_last_ack_recv`."""
_PROBES, _UNACKED, _LAST_SENT, _LAST_RECEIVED, _LAST_ACK_RECEIVED = 3, 12, 17, 19, 20
"""Places in it: keepalive or window probes under way, segments that are not acknowledged, and
milliseconds since data were last sent, since some last came, and since an acknowledgement did."""


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
    # One pause before the first question, and one after each of three: four in all.
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
    info = _ask(peer)
    if info is None:
        return 0.0
    under_way = info[_UNACKED] or info[_PROBES]
    return float(info[_LAST_ACK_RECEIVED]) / 1000 if under_way else 0.0


def silence_of(peer: socket.socket | None) -> tuple[float, float] | None:
    """Return for how many seconds no data came, and for how many what was sent has been waiting
    for an answer, 0 if something came since; None if the system does not tell.

    The clock is coarse: what was asked at once after an answer counts as waiting.
    """
    info = _ask(peer)
    if info is None:
        return None
    # Milliseconds ago: the smaller number is the later event.
    sent, received = info[_LAST_SENT], info[_LAST_RECEIVED]
    return received / 1000, sent / 1000 if sent <= received else 0.0


def sever(peer: socket.socket | None) -> None:
    """Cut this process off from a socket that it shares with another one, which keeps it: who
    reads here finds the end, and nothing that is written arrives."""
    if peer is None or peer.fileno() < 0:
        return
    # Not closed: its number would go to the next file that is opened, and the transport that is
    # still there would read and write that. Nor shut down, which would end the connection of the
    # other process as well. So a socket whose other end is gone takes its place.
    dead, end = socket.socketpair()
    with dead, end:
        dead.setblocking(False)
        os.dup2(dead.fileno(), peer.fileno(), inheritable=False)


class Connected(Protocol):
    """What talks to a peer, or is about to."""

    @property
    def socket(self) -> socket.socket | None:
        """The socket while it has one, or None."""


_connected: weakref.WeakSet[Connected] = weakref.WeakSet()


def sever_in_children(connected: Connected) -> None:
    """Cut each child that is forked from now on off from a socket, for as long as it is in use.

    From the moment on at which it is connected: the pool has the connection only once it is set
    up, and until then a child that ends its parent's tasks would read the server's greeting.
    """
    _connected.add(connected)


def _sever_all() -> None:
    for connected in list(_connected):
        sever(connected.socket)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_sever_all)


def _ask(peer: socket.socket | None) -> tuple[int, ...] | None:
    if peer is None or not hasattr(socket, "TCP_INFO") or peer.fileno() < 0:
        return None
    try:
        with socket.socket(fileno=os.dup(peer.fileno())) as copy:  # uvloop's can be asked less
            told = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:  # no TCP, or closed just now
        return None
    return _TCP_INFO.unpack(told) if len(told) == _TCP_INFO.size else None
