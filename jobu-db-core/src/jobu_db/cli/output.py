"""What people read: tables on any width, with colours only on a terminal that has them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_UNLIMITED = 100_000


def output() -> Console:
    """Return where results go. In a pipe or a file nothing is cut off or wrapped."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _UNLIMITED
    return console


def messages() -> Console:
    """Return where everything else goes."""
    return Console(stderr=True, highlight=False)


def failure(message: str) -> None:
    """Tell an error, of one line or several."""
    first, *others = message.splitlines() or [""]
    console = messages()
    console.print(f"[bold red]Error:[/] {escape(first)}", soft_wrap=True)
    for line in others:
        console.print(escape(line), soft_wrap=True)


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table; columns in `numbers` are aligned to the right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        made.add_column(
            Text(column), justify="right" if column in numbers else "left", overflow="fold"
        )
    return made


def fits(console: Console, made: Table) -> bool:
    """Say whether a table needs no more than the width there is."""
    return Measurement.get(console, console.options, made).maximum <= console.width


def milliseconds(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"
