"""`jobu-db stats`: the figures of a running program's pools, as it wrote or serves them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast
from urllib.error import URLError
from urllib.request import urlopen

import click
from pydantic import BaseModel, TypeAdapter, ValidationError

from jobu_db.cli.output import milliseconds, output, printable, table

LIMIT = 10.0
"""Seconds that an address may be silent."""

LARGEST = 50_000_000
"""Bytes that are read; a pool has some two thousand."""


@click.command(short_help="Show the figures of a running program's pools")
@click.argument("source", metavar="URL|FILE")
def stats(source: str) -> None:
    """Show the figures of pools: what db.stats() returned, as JSON.

    One mapping, a list of them, or mappings by name; from a file, an http address, or "-".
    """
    pools = _pools(_read(source), source)
    shown = table(
        "Pool", "Size", "In use", "Waiting", "Acquired", "Wait p99", "Use p99", "Timeouts",
        numbers=("Size", "In use", "Waiting", "Acquired", "Wait p99", "Use p99", "Timeouts"),
    )  # fmt: skip
    for pool in pools:
        shown.add_row(
            printable(pool.name),
            f"{pool.size}/{pool.max_size}",
            f"{pool.in_use}",
            f"{pool.waiting}",
            f"{pool.acquired:,}",
            milliseconds(pool.wait.p99),
            milliseconds(pool.use.p99),
            f"{pool.timeouts:,}",
        )
    console = output()
    console.print(shown)
    for pool in pools:
        if pool.advice and pool.advice.verdict != "too early":
            console.print(printable(f"{pool.name}: {pool.advice.text}"))


# Models of what is shown, not of all there is: a program with an older or newer jobu_db may have
# written it.
class _Times(BaseModel):
    p99: float


class _Advice(BaseModel):
    verdict: str
    text: str


class _Pool(BaseModel):
    """What is shown of `db.stats()`."""

    name: str
    size: int
    max_size: int
    in_use: int
    waiting: int
    acquired: int
    timeouts: int
    wait: _Times
    use: _Times
    advice: _Advice | None = None


def _read(source: str) -> Any:
    try:
        return json.loads(_content(source))
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{source} is not JSON: {error}") from error


def _content(source: str) -> bytes:
    try:
        with _opened(source) as file:
            content: bytes = file.read(LARGEST + 1)
    except (OSError, URLError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise click.ClickException(f"{source} cannot be read: {reason}") from error
    if len(content) > LARGEST:
        raise click.ClickException(f"{source} is larger than {LARGEST:,} bytes")
    return content


def _opened(source: str) -> AbstractContextManager[Any]:
    if source == "-":
        return nullcontext(sys.stdin.buffer)
    if source.startswith(("http://", "https://")):
        return cast("AbstractContextManager[Any]", urlopen(source, timeout=LIMIT))
    return open(source, "rb")  # pipes as well: jobu-db stats <(…)


def _pools(data: Any, source: str) -> list[_Pool]:
    if isinstance(data, Mapping) and "max_size" in data:
        data = [data]
    if isinstance(data, Mapping):
        data = [{"name": name, **each} for name, each in data.items() if isinstance(each, Mapping)]
    try:
        pools = TypeAdapter(list[_Pool]).validate_python(data)
    except ValidationError:
        pools = []
    if not pools:
        raise click.ClickException(f"{source} does not hold what db.stats() returns")
    return pools
