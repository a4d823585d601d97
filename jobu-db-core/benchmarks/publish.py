"""Writes what several runs found into the benchmarks' README, one way to measure after the other.

    make bench ARGS="--publish FOLDER ..."

The chart of the documentation is drawn from there when that is built, by .ci/figures_chart.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import fill

from figures import CONDITIONS, TITLES, Run
from outcome import Figure, Outcome
from report import SCALES
from targets import ALWAYS, NEVER, Verdict, judged

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->\n"
"""Between them stands what is written here."""
WIDTH = 100
"""Characters of a line of text."""


def publish(runs: Sequence[Run], path: Path) -> None:
    """Put the figures in the place of those that the file has.

    Raises:
        ValueError: A run was not measured in one of the ways that are published, or two of them
            were in the same, or it had two versions of one product, or the file has no place for
            figures.
    """
    modes = [run.mode for run in runs]
    if len(set(modes)) < len(modes) or not set(modes) <= set(TITLES):
        raise ValueError(f"one run of each is published, of {', '.join(TITLES)}: not {modes}")
    for run in runs:
        keys = [verdict.key for verdict in judged(run)]
        if len(set(keys)) < len(keys):
            raise ValueError(f"{run.mode}: two versions of one product cannot be told apart")
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {BEGIN.strip()} and {END.strip()}")
    ordered = sorted(runs, key=lambda run: list(TITLES).index(run.mode))
    parts = "\n\n".join(section(ordered))
    path.write_text(f"{before}{begin}\n{parts}\n\n{end}{after}", encoding="utf-8")


def section(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the paragraphs and tables."""
    if any(run.quick for run in runs):
        yield "**Quick: less work than the titles say, and figures that mean nothing.**"
    for machine in dict.fromkeys(run.machine for run in runs):  # each once
        yield fill(machine, WIDTH)
    for run in runs:
        yield f"### {TITLES[run.mode]}"
        yield CONDITIONS[run.mode]
        for place, outcomes in groupby(_by_place(run.outcomes), key=lambda one: one.place):
            yield f"**{place}**"
            yield figures_table(list(outcomes))
    yield "### Where jobu-db has to be"
    yield fill(
        "Ratios of medians: of the messages alone, where somebody sent them, then as measured, and "
        "at most. In bold: missed.",
        WIDTH,
    )
    yield targets_table([judged(run) for run in runs], [TITLES[run.mode] for run in runs])


def _by_place(outcomes: Sequence[Outcome]) -> list[Outcome]:
    places = list(dict.fromkeys(one.place for one in outcomes))
    compared = [one for one in outcomes if one.figure(ALWAYS)]
    return sorted(compared, key=lambda one: (places.index(one.place), one.letter))


def figures_table(outcomes: Sequence[Outcome]) -> str:
    """Medians, a column for each work; jobu-db as it comes and without reset, and its peers."""
    titles = dict.fromkeys(
        each.title
        for one in outcomes
        for each in one.figures
        if each.peer or each.title in (ALWAYS, NEVER)
    )
    lines = [
        f"| | {' | '.join(f'{one.letter} {one.work.unit}' for one in outcomes)} |",
        f"|---|{'---:|' * len(outcomes)}",
    ]
    for title in titles:
        name = f"**{title}**" if title in (ALWAYS, NEVER) else title
        cells = [cell(one, _figure(one, title)) for one in outcomes]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(outcome: Outcome, title: str) -> Figure | None:
    return next((each for each in outcome.figures if each.title == title), None)


def cell(outcome: Outcome, figure: Figure | None) -> str:
    """Write one figure in the unit of its work, to three digits or more."""
    if figure is None:
        return ""
    if not figure.sound:
        return "wrong"
    value = figure.median * SCALES[outcome.work.unit]
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def targets_table(found: Sequence[Sequence[Verdict]], titles: Sequence[str]) -> str:
    """All targets, a column for each way to measure."""
    lines = [
        f"| work | database | | beside | {' | '.join(titles)} |",
        f"|---|---|---|---|{'---:|' * len(titles)}",
    ]
    by_key = [{one.key: one for one in verdicts} for verdicts in found]
    every = {key: one for verdicts in by_key for key, one in verdicts.items()}
    for key in sorted(every, key=lambda key: (every[key].work, list(every).index(key))):
        one = every[key]
        cells = " | ".join(told(verdicts.get(key)) for verdicts in by_key)
        lines.append(f"| ({one.work}) | {one.product} | {one.ours} | {one.beside} | {cells} |")
    return "\n".join(lines)


def told(verdict: Verdict | None) -> str:
    """Write the ratio of the messages alone, the one that was measured, and the target."""
    if verdict is None:
        return ""
    if not verdict.measured and verdict.unit == "×":
        return "the only one"
    floor = "" if verdict.floor is None else f"{verdict.floor:.2f} · "
    measured = f"{verdict.measured:.2f}" if verdict.reached else f"**{verdict.measured:.2f}**"
    unit = "" if verdict.unit == "×" else f" {verdict.unit}"
    return f"{floor}{measured} · {verdict.limit:.2f}{unit}"
