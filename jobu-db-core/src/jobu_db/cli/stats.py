"""`jobu-db stats`: the figures of a running program's pools, as it wrote or serves them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import click

from jobu_db.cli.output import milliseconds, output, table

LIMIT = 10.0
"""Seconds that an address may take to answer."""


@click.command(short_help="Show the figures of a running program's pools")
@click.argument("source", metavar="URL|FILE")
def stats(source: str) -> None:
    """Show the figures of pools: what db.stats() returned, as JSON.

    One mapping, a list of them, or mappings by name; from a file, an http address, or "-".
    """
    figures = _figures(_read(source), source)
    shown = table(
        "Pool", "Size", "In use", "Waiting", "Acquired", "Wait p99", "Use p99", "Timeouts",
        numbers=("Size", "In use", "Waiting", "Acquired", "Wait p99", "Use p99", "Timeouts"),
    )  # fmt: skip
    for each in figures:
        shown.add_row(
            str(each["name"]),
            f"{each['size']}/{each['max_size']}",
            f"{each['in_use']}",
            f"{each['waiting']}",
            f"{each['acquired']:,}",
            milliseconds(each["wait"]["p99"]),
            milliseconds(each["use"]["p99"]),
            f"{each['timeouts']:,}",
        )
    console = output()
    console.print(shown)
    for each in figures:
        advice = each.get("advice")
        if advice and advice["verdict"] != "too early":
            console.print(f"{each['name']}: {advice['text']}", markup=False)


def _read(source: str) -> Any:
    try:
        return json.loads(_text(source))
    except ValueError as error:
        raise click.ClickException(f"{source} is not JSON: {error}") from error


def _text(source: str) -> str | bytes:
    try:
        if source == "-":
            return sys.stdin.read()
        if source.startswith(("http://", "https://")):
            with urlopen(source, timeout=LIMIT) as answer:
                content: bytes = answer.read()
                return content
        return Path(source).read_bytes()
    except (OSError, URLError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
        raise click.ClickException(f"{source} cannot be read: {reason}") from error


def _figures(data: Any, source: str) -> list[Mapping[str, Any]]:
    """Return the mappings of pools."""
    if isinstance(data, Mapping) and "max_size" in data:
        data = [data]
    if isinstance(data, Mapping):
        data = [{"name": name, **each} for name, each in data.items() if isinstance(each, Mapping)]
    needed = {"name", "size", "max_size", "in_use", "waiting", "acquired", "wait", "use"}
    pools = data if isinstance(data, list) else []
    if not pools or not all(isinstance(each, Mapping) and needed <= each.keys() for each in pools):
        raise click.ClickException(f"{source} does not hold what db.stats() returns")
    return pools
