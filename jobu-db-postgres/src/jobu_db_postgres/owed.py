"""An end that travels ahead of the next BEGIN, and what the server answers to it.

All of it and the first statement share one Sync: if anything fails, the server skips the rest, and
the statement is not run.

asyncpg gets to see no answer to it, for it knows of no question.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

_LENGTH = struct.Struct("!i")

SYNC = b"S\0\0\0\x04"

_READY = b"Z\0\0\0\x05I"
"""The answer to a Sync outside a transaction."""

_AT_ANY_TIME = frozenset(b"NSA")
"""Notices, settings and notifications: answers to no question."""


def message(kind: bytes, body: bytes) -> bytes:
    """Make one message of the protocol."""
    return kind + _LENGTH.pack(len(body) + 4) + body


class End(NamedTuple):
    """What ends a transaction, by statements that the connection knows by name.

    By name, for parsing a dozen statements anew costs as much as the round trip that is saved.

    Attributes:
        preparing: Makes the names known, whatever they meant before.
        prepared: What the server answers to that.
        messages: Runs them.
        answers: What the server answers to that.
    """

    preparing: bytes
    prepared: tuple[bytes, ...]
    messages: bytes
    answers: tuple[bytes, ...]


def end_of(*steps: tuple[str, str]) -> End:
    """Make one of statements that return no rows, each with its command tag."""
    names = {text: f"jobu_db_end_{i}".encode() for i, (text, _) in enumerate(dict(steps).items())}
    preparing = b"".join(
        message(b"C", b"S" + name + b"\0") + message(b"P", name + b"\0" + text.encode() + b"\0\0\0")
        for text, name in names.items()
    )
    messages = b"".join(
        message(b"B", b"\0" + names[text] + b"\0" + b"\0" * 6) + message(b"E", b"\0" * 5)
        for text, _ in steps
    )
    answers = [(message(b"2", b""), message(b"C", tag.encode() + b"\0")) for _, tag in steps]
    return End(
        preparing,
        (message(b"3", b""), message(b"1", b"")) * len(names),
        messages,
        tuple(answer for pair in answers for answer in pair),
    )


class Answers:
    """Takes the answers to an end out of what arrives.

    Args:
        expected: The answers.
        alone: They are followed by that to a Sync.
        done: Called when all have arrived.
        failed: Called with the server's error message, or what arrived instead of an answer.
    """

    __slots__ = ("_all", "_done", "_expected", "_failed", "_rest")

    def __init__(
        self,
        expected: tuple[bytes, ...],
        *,
        alone: bool,
        done: Callable[[], None],
        failed: Callable[[bytes], None],
    ) -> None:
        self._expected = (*expected, _READY) if alone else expected
        self._all = b"".join(self._expected)
        self._done = done
        self._failed = failed
        self._rest = b""  # of a message that has not all arrived

    def taken_from(self, data: bytes) -> bytes:
        """Return what is for asyncpg."""
        if data.startswith(self._all) and not self._rest:  # as nearly always
            self._done()
            return data[len(self._all) :]
        return self._one_by_one(self._rest + data)

    def _one_by_one(self, data: bytes) -> bytes:
        at, passed = 0, b""
        while self._expected:
            end = at + 1 + _LENGTH.unpack_from(data, at + 1)[0] if len(data) >= at + 5 else at + 5
            if end > len(data):
                self._rest = data[at:]
                return passed
            # Of the answers that carry something, only the kind matters: the rest is for people.
            kind = data[at]
            if kind in _AT_ANY_TIME:
                passed += data[at:end]
            elif kind == self._expected[0][0] and (kind != _READY[0] or data[at:end] == _READY):
                self._expected = self._expected[1:]
            else:
                self._failed(data[at:end])
                return passed
            at = end
        self._done()
        return passed + data[at:]


def told(answer: bytes) -> str:
    """Return what an error message of the protocol says."""
    if answer[:1] != b"E":
        return f"an unexpected answer {answer[:1]!r}"
    fields = dict(_fields(answer[5:].split(b"\0")))
    return f"[{fields.get('C', '')}] {fields.get('M', '')}"


def _fields(parts: Iterable[bytes]) -> Iterable[tuple[str, str]]:
    for part in parts:
        if part:
            yield chr(part[0]), part[1:].decode(errors="replace")
