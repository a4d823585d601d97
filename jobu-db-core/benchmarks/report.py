"""The outcomes as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from outcome import Figure, Outcome
from targets import Verdict

SCALES = {"µs": 1e6, "ms": 1e3}
PACKAGES = (
    "asyncpg", "asyncmy", "aiosqlite", "aiosqlitepool", "psycopg", "psycopg-pool", "SQLAlchemy",
    "databases", "tortoise-orm",
)  # fmt: skip


def markdown(
    outcomes: Sequence[Outcome],
    judged: Sequence[Verdict],
    *,
    quick: bool,
    pinned: bool,
    apart: bool,
    latency: float,
) -> str:
    """Return the whole report."""
    parts = ["# jobu-db beside its peers", machine(), "![The same as a chart](chart.svg)"]
    if pinned and not apart:
        parts.append("All on one processor, servers included: no waiting hides any work.")
    elif apart:
        parts.append("The servers on one processor, everything else on another.")
    if latency:
        parts.append(f"A proxy makes each round trip to a server {latency:g} ms longer.")
    if quick:
        parts.append("**Quick: less work than the titles say, and figures that mean nothing.**")
    parts += [table(outcome) for outcome in outcomes]
    if judged:
        parts += ["## Where we must be", targets_table(judged)]
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
    """What was to be reached, by medians; beside it, the ratio of the best tenths."""
    lines = [
        "| work | database | | beside | measured | best tenth | at most | |",
        "|---|---|---|---|---:|---:|---:|---|",
    ]
    for one in verdicts:
        best = "" if one.best is None else f"{one.best:.2f}"
        judged = "reached" if one.reached else "**missed**"
        lines.append(
            f"| ({one.work}) | {one.kind} | {one.ours} | {one.beside} | {one.measured:.2f} "
            f"| {best} | {one.limit:.2f} {one.unit} | {judged} |"
        )
    return "\n".join(lines)
