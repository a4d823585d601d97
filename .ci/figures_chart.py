"""A chart of the figures in the benchmarks' README, as SVG to stand in a page of the site.

It is drawn when the site is built, so that it cannot say anything else than the tables do. Each
way to measure has a panel; they stand beside each other where there is room. The colours are those
of the page around them, light or dark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import NamedTuple

WORKS = {
    "a µs": "(a) a row read, in a read-only transaction",
    "c µs": "(c) a row written, in a transaction",
    "d µs": "(d) a statement alone",
}
WIDTH, LABELS, VALUES, BAR, LINE = 380, 172, 62, 13, 18
"""In units of the drawing: all of it, the column of names, that of values, a bar, its line."""
LEAST = 300
"""Pixels of a panel's width, where the page is not narrower."""
OURS, OTHERS = "#5c6bc0", "#8c959f"


class Comparison(NamedTuple):
    """One work on one database, measured in one way.

    Attributes:
        panel: How it was measured.
        rows: Names and medians in µs, in the order of the table.
    """

    panel: str
    database: str
    work: str
    rows: list[tuple[str, float]]


def comparisons(page: str) -> Iterator[Comparison]:
    """Read the tables: each stands below its database's name in bold, with a column for a work, and
    they stand below a heading that tells how they were measured.

    Raises:
        LookupError: There is none.
    """
    tables = re.findall(
        r"^### (.+)$|^\*\*(.+)\*\*\n\n\| \| (a µs.*) \|\n.+\n((?:\|.+\n)+)", page, re.M
    )
    panel, found = "", False
    for heading, database, head, body in tables:
        if heading:
            panel = heading
            continue
        found = True
        columns = head.split(" | ")
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines()]
        for work, title in WORKS.items():
            if work in columns:
                place = columns.index(work) + 1
                cells = [(row[0].strip("*"), row[place].replace(",", "")) for row in rows]
                figures = [(name, float(value)) for name, value in cells if _is_number(value)]
                yield Comparison(panel, database, title, figures)
    if not found:
        raise LookupError("the benchmarks' README has no table of figures")


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[\d.]+", cell) is not None


def svg(page: str) -> str:
    """Draw all panels; shorter bars are faster."""
    panels = groupby(comparisons(page), key=lambda each: each.panel)
    drawn = "".join(_panel(title, list(found)) for title, found in panels)
    columns = f"repeat(auto-fill, minmax(min({LEAST}px, 100%), 1fr))"
    style = f"display: grid; grid-template-columns: {columns}; gap: 1.5em; align-items: start"
    return f'<div style="{style}">{drawn}</div>\n'


def _panel(title: str, found: list[Comparison]) -> str:
    """Draw one way to measure, one comparison below the other."""
    top, database = 18, ""
    parts = [f'<text x="0" y="{top}" font-size="18" font-weight="bold">{escape(title)}</text>']
    for each in found:
        if each.database != database:
            database = each.database
            top += 30
            parts.append(f'<text x="0" y="{top}" font-size="16">{escape(database)}</text>')
        top += 24
        parts.append(f'<text x="0" y="{top}" font-weight="bold">{escape(each.work)}</text>')
        top += 8
        parts += _bars(each, top)
        top += len(each.rows) * LINE + 6
    return (
        f'<svg viewBox="0 0 {WIDTH} {top}" role="img" font-size="12" fill="currentColor" '
        f'style="max-width: {WIDTH * 1.25:.0f}px">'
        f"<title>{escape(title)}: the figures below, as bars; shorter is faster</title>"
        f"{''.join(parts)}</svg>"
    )


def _bars(comparison: Comparison, top: int) -> Iterator[str]:
    longest = max(value for _, value in comparison.rows)
    room = WIDTH - LABELS - VALUES
    for number, (name, value) in enumerate(comparison.rows):
        y = top + number * LINE
        length = max(1.0, value / longest * room)
        color = OURS if name.startswith("jobu-db") else OTHERS
        yield (
            f'<text x="{LABELS - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{color}"/>'
            f'<text x="{LABELS + length + 6:.1f}" y="{y + 11}">{value:g} µs</text>'
        )
