"""The outcomes as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from figures import Run
from outcome import Figure, Outcome
from targets import BARE, Verdict, judged

SCALES = {"µs": 1e6, "ms": 1e3}
PACKAGES = (
    "asyncpg", "asyncmy", "aiosqlite", "aiosqlitepool", "psycopg", "psycopg-pool", "SQLAlchemy",
    "databases", "tortoise-orm",
)  # fmt: skip


def markdown(run: Run) -> str:
    """Return the whole report."""
    parts = ["# jobu-db beside its peers", run.machine, "![The same as a chart](chart.svg)"]
    parts.append(run.conditions)
    if run.quick:
        parts.append("**Quick: less work than the titles say, and figures that mean nothing.**")
    parts += [table(outcome) for outcome in run.outcomes]
    if verdicts := judged(run):
        parts += ["## Where we must be", targets_table(verdicts)]
    if costs := core_table(run.outcomes):
        parts += ["## What the core costs", costs]
    return "\n\n".join(parts) + "\n"


def machine() -> str:
    """Describe what it ran on."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"{processor()}, Python {platform.python_version()}; {', '.join(versions)}."


def processor() -> str:
    """Return number and model of the processors."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} × {models[0] if models else platform.machine()}"


def table(outcome: Outcome) -> str:
    """One comparison: medians, quartiles, and the ratio to the bare driver."""
    unit = outcome.work.unit
    reference = outcome.reference
    beside = reference.title if reference else ""
    lines = [
        f"## ({outcome.letter}) {outcome.work.title} · {outcome.place}",
        "",
        f"| | median {unit} | quartiles | best tenth | × {beside} | |",
        "|---|---:|---:|---:|---:|---|",
        *(row(figure, SCALES[unit], reference) for figure in ranked(outcome.figures)),
    ]
    return "\n".join(lines)


def ranked(figures: Iterable[Figure]) -> list[Figure]:
    """The fastest first, those that failed last."""
    return sorted(figures, key=lambda one: (one.error is not None, one.median))


def row(figure: Figure, scale: float, reference: Figure | None) -> str:
    title = f"**{figure.title}**" if figure.ours else figure.title
    if figure.error is not None:
        return f"| {title} | | | | | {figure.error.replace('|', '/')} |"
    ratio = figure.median / reference.median if reference else float("nan")
    quartiles = f"{figure.low * scale:.1f} to {figure.high * scale:.1f}"
    figures = f"{figure.median * scale:.1f} | {quartiles} | {figure.best * scale:.1f}"
    return f"| {title} | {figures} | {ratio:.2f} | {told(figure)} |"


def told(figure: Figure) -> str:
    """Put the notes into words."""
    words = []
    if "behind" in figure.notes:
        words.append("fair" if figure.fair else f"unfair: {figure.notes['behind']} % behind")
        words.append("resets" if figure.resets else "does not reset")
    if figure.notes.get("errors"):
        words.append(f"{figure.notes['errors']} failed")
    if figure.notes.get("lost"):
        words.append(f"**{figure.notes['lost']} updates lost**")
    if "mebibytes" in figure.notes:
        words.append(f"{figure.notes['mebibytes']} MiB")
    return ", ".join(words)


def targets_table(verdicts: Iterable[Verdict]) -> str:
    """What was to be reached, by medians; beside it, the ratio of the best tenths, and what the
    messages alone would be."""
    lines = [
        "| work | database | | beside | floor | measured | best tenth | at most | |",
        "|---|---|---|---|---:|---:|---:|---:|---|",
    ]
    for one in verdicts:
        floor, best = ("" if each is None else f"{each:.2f}" for each in (one.floor, one.best))
        told = "reached" if one.reached else "**missed**"
        lines.append(
            f"| ({one.work}) | {one.product} | {one.ours} | {one.beside} | {floor} "
            f"| {one.measured:.2f} | {best} | {one.limit:.2f} {one.unit} | {told} |"
        )
    return "\n".join(lines)


def core_table(outcomes: Iterable[Outcome]) -> str:
    """What jobu-db takes beyond its messages, by medians; "" where nobody sent those alone."""
    lines = []
    for outcome in outcomes:
        bare = outcome.figure(BARE[outcome.product])
        for ours in outcome.figures:
            floor = outcome.floor(ours)
            if floor is None or ours.error is not None:
                continue
            core = ours.median - floor.median
            cells = " | ".join(f"{1e6 * each:.1f}" for each in (floor.median, ours.median, core))
            ratio = f"{core / bare.median:.2f}" if bare else ""
            work = f"({outcome.letter}) | {outcome.product}"
            lines.append(f"| {work} | {ours.title} | {cells} | {ratio} |")
    head = (
        "| work | database | | messages µs | measured µs | core µs | core × bare |",
        "|---|---|---|---:|---:|---:|---:|",
    )
    return "\n".join((*head, *lines)) if lines else ""
