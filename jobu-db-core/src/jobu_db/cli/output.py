"""What people read: tables on any width, with colours only on a terminal that has them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_UNLIMITED = 100_000

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tabs and ends of lines."""


def output() -> Console:
    """Return where results go. In a pipe or a file nothing is cut off or wrapped.

    Square brackets are no markup, here and in messages: a name or a path may have them.
    """
    console = Console(highlight=False, soft_wrap=False, markup=False, emoji=False)
    # Rich would take 80 columns there, and cut or fold what another program is to read.
    if not console.is_terminal:
        console.width = _UNLIMITED
    return console


def messages() -> Console:
    """Return where everything else goes."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def failure(message: str) -> None:
    """Tell an error, of one line or several."""
    first, *others = printable(message).splitlines() or [""]
    console = messages()
    console.print(Text.assemble(("Error:", "bold red"), f" {first}"), soft_wrap=True)
    for line in others:
        console.print(line, soft_wrap=True)


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table; columns in `numbers` are aligned to the right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        # Folded, where rich would cut off what is too wide: of a value nothing is left out.
        made.add_column(
            Text(column), justify="right" if column in numbers else "left", overflow="fold"
        )
    return made


def fits(console: Console, made: Table) -> bool:
    """Say whether a table needs no more than the width there is."""
    return Measurement.get(console, console.options, made).maximum <= console.width


def printable(text: str) -> str:
    r"""Return what a database holds or says with control characters as `\x1B`, as psql has it.

    Otherwise it could move the cursor, change the window's title or fill the clipboard.
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02X}", text)


def milliseconds(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"
