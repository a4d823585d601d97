"""The configuration: which databases there are, and the settings of those to be opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobu_db.errors import (
    BackendLoadError,
    BackendNotFoundError,
    ConfigurationError,
    DatabaseNotFoundError,
)
from jobu_db.settings.messages import nearest, tell
from jobu_db.settings.models import DatabaseSettings
from jobu_db.settings.variables import interpolate

ConfigSource = Mapping[str, Any] | str | os.PathLike[str]
"""A configuration: the mapping, or the path of its YAML file."""


class Config(dict[str, Any]):
    """A configuration that was read from a file.

    Attributes:
        source: The file, as it was named.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        super().__init__(values)
        self.source = source


def load_config(path: str | os.PathLike[str]) -> Config:
    """Read a YAML file, with its `${NAME}` replaced from the environment.

    Returns:
        `{"databases": {NAME: {"type": TYPE, ...}}}`: mappings, lists and scalars. The settings
        themselves are not checked yet, which takes the backends.

    Raises:
        ConfigurationError: The file cannot be read, is no such mapping, or a variable is not
            set. Lists all problems, each with the file and how to mend it.
    """
    config = _read(path)
    return Config(
        config | {"databases": _interpolated(config["databases"], config.source)}, config.source
    )


def parse_databases(
    config: ConfigSource,
    names: Sequence[str] | None,
    settings_class_for: Callable[[str], type[DatabaseSettings]],
) -> dict[str, DatabaseSettings]:
    """Check the settings of all databases, or of those named.

    Variables are replaced in files, and only for the databases chosen: a mapping is taken as
    it is.

    Args:
        settings_class_for: Returns the settings class of a `type`.

    Returns:
        Settings by name, in the order of the configuration, or of `names`.

    Raises:
        ConfigurationError: With the problems of all databases chosen.
        DatabaseNotFoundError: A name is not in the configuration; lists those that are.
    """
    chosen, source = _chosen(config, names)
    classes = {name: settings_class_for(str(entry["type"])) for name, entry in chosen.items()}
    databases: dict[str, DatabaseSettings] = {}
    problems: list[str] = []
    for name, entry in chosen.items():
        try:
            databases[name] = classes[name].parse(name, entry, source)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)
    return databases


def check_databases(
    path: str | os.PathLike[str],
    settings_class_for: Callable[[str], type[DatabaseSettings]],
) -> tuple[dict[str, DatabaseSettings], list[str]]:
    """Check a file for all that is wrong with it, a backend that is missing included.

    Returns:
        The settings of the databases that are right, and the problems, one text each.
    """
    from jobu_db.settings.yaml_file import read_yaml

    source = str(path)
    try:
        config: Any = read_yaml(Path(path))
    except ConfigurationError as error:
        return {}, list(error.problems)
    faults = list(_faults(config))
    problems = [tell(source, place, message) for place, message in faults]
    databases = config.get("databases") if isinstance(config, Mapping) else None
    faulty = {place[1] for place, _ in faults if len(place) > 1}
    settings: dict[str, DatabaseSettings] = {}
    for name, entry in databases.items() if isinstance(databases, Mapping) else ():
        if str(name) not in faulty:
            given, unset = interpolate(entry, os.environ, ("databases", name))
            told = [tell(source, place, message) for place, message in unset]
            # What the settings themselves say of a variable that is not set is no news.
            known = tuple(f"{tell(source, place, '')}:" for place, _ in unset)
            try:
                settings_class = settings_class_for(str(given["type"]))
                settings[name] = settings_class.parse(name, given, source)
            except ConfigurationError as error:
                told += [each for each in error.problems if not each.startswith(known)]
            except (BackendNotFoundError, BackendLoadError) as error:
                told.append(tell(source, ("databases", name, "type"), str(error)))
            problems += told
    return settings, problems


def _chosen(
    config: ConfigSource, names: Sequence[str] | None
) -> tuple[Mapping[str, Mapping[str, Any]], str | None]:
    if isinstance(config, Mapping):
        source = getattr(config, "source", None)
        _check(config, source)
        return _choose(config["databases"], names), source
    read = _read(config)
    return _interpolated(_choose(read["databases"], names), read.source), read.source


def _read(path: str | os.PathLike[str]) -> Config:
    # Only who reads a file pays for the import of yaml.
    from jobu_db.settings.yaml_file import read_yaml

    data = read_yaml(Path(path))
    _check(data, str(path))
    return Config(data, str(path))


def _choose(databases: Mapping[str, Any], names: Sequence[str] | None) -> Mapping[str, Any]:
    if names is None:
        return databases
    if isinstance(names, str):
        raise TypeError("the names of databases are a list, not a str")
    for name in names:
        if name not in databases:
            known = ", ".join(sorted(databases)) or "none"
            raise DatabaseNotFoundError(f"no database {name!r} is configured; there are: {known}")
    return {name: databases[name] for name in names}


def _interpolated(databases: Mapping[str, Any], source: str) -> dict[str, Any]:
    replaced, problems = interpolate(dict(databases), os.environ, ("databases",))
    if problems:
        raise ConfigurationError([tell(source, path, message) for path, message in problems])
    return replaced  # type: ignore[no-any-return]


def _check(config: Any, source: str | None) -> None:
    """See that there are named databases, each with a type."""
    problems = [tell(source, path, message) for path, message in _faults(config)]
    if problems:
        raise ConfigurationError(problems)


def _faults(config: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    if not isinstance(config, Mapping):
        yield (), "must be a mapping with the key databases"
        return
    for key in config:
        if key != "databases" and not str(key).startswith("x-"):
            meant = "did you mean databases? " if nearest(str(key), ["databases"]) else ""
            yield (str(key),), f"unknown key; {meant}allowed: databases, and x-… for your anchors"
    databases = config.get("databases")
    if not isinstance(databases, Mapping):
        yield ("databases",), "is required: a mapping of each database's name to its settings"
        return
    for name, entry in databases.items():
        yield from _entry_faults(name, entry)


def _entry_faults(name: object, entry: object) -> Iterator[tuple[tuple[str, ...], str]]:
    path = ("databases", str(name))
    if not isinstance(name, str) or not name:
        yield path, "the name of a database must be text that is not empty; put it in quotes"
    if not isinstance(entry, Mapping):
        yield path, "must be a mapping of settings, with type"
    elif not isinstance(entry.get("type"), str):
        yield (*path, "type"), "is required: the backend, such as sqlite, in text"
