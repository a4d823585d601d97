"""`jobu-db backends`: what is installed, and what it can do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from jobu_db.capabilities import FEATURES, Capabilities
from jobu_db.cli.output import failure, output, table
from jobu_db.errors import BackendLoadError
from jobu_db.plugins import GROUP, database_class, installed_types


@dataclass(frozen=True)
class _Installed:
    """A database type that somebody offers.

    Attributes:
        package: The distribution and its version.
        capabilities: None if the backend does not say before it is connected.
        error: Why it does not load, or "".
    """

    package: str
    capabilities: Capabilities | None
    error: str = ""


@click.command(short_help="List what is installed and what it can do")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def backends(as_json: bool) -> None:
    """List the installed backends and what each can do.

    Exit code 1: one does not load, or none is installed.
    """
    found = {name: _look_at(name) for name in installed_types()}
    if as_json:
        click.echo(json.dumps({name: _plain(each) for name, each in found.items()}, indent=2))
    elif found:
        _print(found)
    else:
        failure("no backend is installed; run: pip install jobu-db-sqlite")
    errors = [each.error for each in found.values() if each.error]
    for error in () if as_json else errors:
        failure(error)
    if errors or not found:
        raise click.exceptions.Exit(1)


def _look_at(name: str) -> _Installed:
    points = entry_points(group=GROUP, name=name)
    package = " and ".join(
        sorted({f"{point.dist.name} {point.dist.version}" for point in points if point.dist})
    )
    try:
        return _Installed(package, database_class(name).capabilities_of(name))
    except BackendLoadError as error:
        return _Installed(package, None, str(error))


def _plain(installed: _Installed) -> dict[str, Any]:
    says = installed.capabilities
    features: dict[str, Any] = {}
    if says is not None:
        for name in FEATURES:
            feature = getattr(says, name)
            features[name] = {"support": feature.support.value, "because": feature.because or None}
        features["isolation_levels"] = sorted(says.isolation_levels)
    return {
        "package": installed.package,
        "error": installed.error or None,
        "capabilities": features or None,
    }


def _print(found: dict[str, _Installed]) -> None:
    console = output()
    installed = table("Type", "Package", "")
    for name, each in found.items():
        state = Text("does not load", "red") if each.error else Text("ok", "green")
        installed.add_row(name, each.package, state)
    console.print(installed)
    able = _able(found)
    if not able:
        return
    notes: list[str] = []
    features = table("Can it?", *(title for title in able))
    for name, meaning in FEATURES.items():
        features.add_row(
            meaning.replace("`", ""),
            *(_cell(getattr(says, name), notes) for says in able.values()),
        )
    console.print(features)
    below = Table.grid(padding=(0, 1))
    for number, note in enumerate(notes, 1):
        below.add_row(f"{number}.", note)
    for title, says in able.items():
        levels = ", ".join(sorted(says.isolation_levels)) or "the default only"
        below.add_row("-", f"isolation levels of {title}: {levels}")
    console.print(below)


def _able(found: dict[str, _Installed]) -> dict[str, Capabilities]:
    """Put types that declare the same into one column."""
    columns: dict[Capabilities, list[str]] = {}
    for name, each in found.items():
        if each.capabilities is not None:
            columns.setdefault(each.capabilities, []).append(name)
    # Backends register several names: postgres and postgresql are one column, under the shorter.
    return {min(names, key=len): says for says, names in columns.items()}


def _cell(feature: Any, notes: list[str]) -> str:
    if not feature.because:
        return "yes" if feature else "no"
    if feature.because not in notes:
        notes.append(feature.because)
    word = "emulated" if feature else "no"
    return f"{word} ({notes.index(feature.because) + 1})"
