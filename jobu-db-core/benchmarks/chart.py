"""A chart of the outcomes, as SVG: one group of bars for each comparison, as long as the ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from outcome import Figure, Outcome
from report import SCALES, ranked

WIDTH, LABELS, BAR, GAP = 900, 220, 16, 34
OURS, FLOOR, LIMIT, PEER = "#1f6feb", "#9ec5fe", "#8c959f", "#d0a215"
LONGEST = 5.0
"""Ratio at which a bar is cut off: one slow peer would make all others look alike."""


def svg(outcomes: Sequence[Outcome]) -> str:
    """Draw all comparisons, one below the other."""
    parts: list[str] = []
    top = 10
    for outcome in outcomes:
        figures = [one for one in ranked(outcome.figures) if one.error is None]
        if not figures:
            continue
        title = f"({outcome.letter}) {outcome.work.title} · {outcome.place}"
        parts.append(f'<text x="10" y="{top + 14}" font-weight="bold">{escape(title)}</text>')
        top += 22
        parts += bars(outcome, figures, top)
        top += len(figures) * (BAR + 4) + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def bars(outcome: Outcome, figures: Sequence[Figure], top: int) -> Iterator[str]:
    """Draw one comparison; the length of a bar is its ratio to the bare driver."""
    reference = outcome.reference
    assert reference is not None
    unit = outcome.work.unit
    room = WIDTH - LABELS - 160
    for number, figure in enumerate(figures):
        ratio = figure.median / reference.median
        y = top + number * (BAR + 4)
        length = max(1.0, min(ratio, LONGEST) / LONGEST * room)
        color = PEER if figure.peer else OURS if figure.ours else FLOOR
        color = LIMIT if figure.limit else color
        value = f"{ratio:.2f} × ({figure.median * SCALES[unit]:,.1f} {unit})"
        wrong = "" if figure.sound else ", loses updates or fails"
        cut = " …" if ratio > LONGEST else ""
        yield (
            f'<text x="{LABELS - 6}" y="{y + 12}" text-anchor="end">{escape(figure.title)}</text>'
            f'<rect x="{LABELS}" y="{y}" width="{length:.0f}" height="{BAR}" fill="{color}"/>'
            f'<text x="{LABELS + length + 5:.0f}" y="{y + 12}">{cut}{value}{wrong}</text>'
        )
