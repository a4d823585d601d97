"""A chart of the figures in the benchmarks' README, as SVG to stand in a page of the site.

It is drawn when the site is built, so that it cannot say anything else than the tables do. It takes
the colours of the page around it, light or dark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

WORKS = {
    "a µs": "(a) a row read, in a read-only transaction",
    "c µs": "(c) a row written, in a transaction",
    "d µs": "(d) a statement alone",
}
WIDTH, LABELS, VALUES, BAR, LINE = 430, 165, 58, 13, 18
"""In units of the drawing: all of it, the column of names, that of values, a bar, its line."""
OURS, OTHERS = "#5c6bc0", "#8c959f"


class Comparison(NamedTuple):
    """One work on one database.

    Attributes:
        rows: Names and medians in µs, in the order of the table.
    """

    database: str
    work: str
    rows: list[tuple[str, float]]


def comparisons(page: str) -> Iterator[Comparison]:
    """Read the tables: each stands below its database's name in bold, with a column for a work.

    Raises:
        LookupError: There is none.
    """
    tables = re.findall(r"^\*\*(.+)\*\*\n\n\| \| (a µs .+) \|\n.+\n((?:\|.+\n)+)", page, re.M)
    if not tables:
        raise LookupError("the benchmarks' README has no table of figures")
    for database, head, body in tables:
        columns = head.split(" | ")
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines()]
        for work, title in WORKS.items():
            place = columns.index(work) + 1
            found = [(row[0].strip("*"), row[place].replace(",", "")) for row in rows]
            figures = [(name, float(value)) for name, value in found if value]
            yield Comparison(database, title, figures)


def svg(page: str) -> str:
    """Draw all comparisons, one below the other; shorter bars are faster."""
    parts: list[str] = []
    top, database = 0, ""
    for each in comparisons(page):
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
        f'style="max-width: {WIDTH * 1.25:.0f}px"><title>The figures below, as bars: shorter is '
        f"faster</title>{''.join(parts)}</svg>\n"
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
