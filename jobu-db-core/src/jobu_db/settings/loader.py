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
    DatabaseError,
    DatabaseNotFoundError,
)
from jobu_db.settings.messages import nearest, tell, tell_key
from jobu_db.settings.models import DatabaseSettings
from jobu_db.settings.variables import Unresolved, interpolate, unresolved

ConfigSource = Mapping[str, Any] | str | os.PathLike[str]
"""A configuration: the mapping, or the path of its YAML file."""

_TOP = "a mapping of each database's name to its settings"


class Config(dict[str, Any]):
    """A configuration that was read from a file.

    Attributes:
        source: The file, as it was named.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        super().__init__(values)
        self.source = source


def load_config(path: str | os.PathLike[str]) -> Config:
    """Read a YAML file, with the `${NAME}` of its databases replaced from the environment.

    Returns:
        `{"databases": {NAME: {"type": TYPE, ...}}}`: mappings, lists and scalars, and whatever
        else stands at the top level. The settings themselves are not checked yet, which takes
        the backends.

    Raises:
        ConfigurationError: The file cannot be read, is no such mapping, or a variable is not
            set. Lists all problems, each with the file and how to mend it.
    """
    config = read_config(path)
    databases = interpolate(config.get("databases"), os.environ)
    faults = [*_faults(config), *unresolved(databases, ("databases",))]
    if faults:
        raise ConfigurationError([tell(config.source, at, fault) for at, fault in faults])
    # | on a dict's subclass gives a plain dict, which knows of no file.
    return Config(config | {"databases": databases}, config.source)


def read_config(path: str | os.PathLike[str]) -> Config:
    """Read a YAML file, and no more. It blocks: call it outside the event loop.

    Raises:
        ConfigurationError: The file cannot be read, or is no mapping.
    """
    # Only who reads a file pays for the import of yaml.
    from jobu_db.settings.yaml_file import read_yaml

    data = read_yaml(Path(path))
    if not isinstance(data, Mapping):
        raise ConfigurationError([tell(str(path), at, fault) for at, fault in _faults(data)])
    return Config(data, str(path))


def parse_databases(
    config: ConfigSource,
    names: Sequence[str] | None,
    settings_class_for: Callable[[str], type[DatabaseSettings]],
) -> dict[str, DatabaseSettings]:
    """Check the settings of all databases, or of those named.

    Variables are replaced in the databases chosen only.

    Args:
        settings_class_for: Returns the settings class of a `type`.

    Returns:
        Settings by name, in the order of the configuration, or of `names`.

    Raises:
        ConfigurationError: With the problems of all databases chosen.
        BackendNotFoundError: A `type` is unknown. It is a `ConfigurationError` as well, with all
            other problems.
        BackendLoadError: A backend cannot be used, and there is no other problem.
        DatabaseNotFoundError: A name is not in the configuration; lists those that are.
    """
    if not isinstance(config, Mapping):
        config = read_config(config)
    checking = _Checking(getattr(config, "source", None), settings_class_for)
    checking.check_all(config, names)
    checking.raise_problems()
    return checking.settings


def check_databases(
    path: str | os.PathLike[str],
    settings_class_for: Callable[[str], type[DatabaseSettings]],
) -> tuple[dict[str, DatabaseSettings], list[str]]:
    """Check a file for all that is wrong with it, a backend that is missing included.

    Returns:
        The settings of the databases that are right, and the problems, one text each.
    """
    checking = _Checking(str(path), settings_class_for)
    try:
        checking.check_all(read_config(path), None)
    except ConfigurationError as error:
        return {}, list(error.problems)
    return checking.settings, checking.problems


class _Checking:
    """The settings that are right, and all that is wrong with the others."""

    def __init__(
        self, source: str | None, settings_class_for: Callable[[str], type[DatabaseSettings]]
    ) -> None:
        self.settings: dict[str, DatabaseSettings] = {}
        self.problems: list[str] = []
        self._source = source
        self._settings_class_for = settings_class_for
        self._unusable: list[DatabaseError] = []

    def check_all(self, config: Mapping[str, Any], names: Sequence[str] | None) -> None:
        # The outline is checked of all databases, the settings only of those chosen: a process that
        # opens one of them need not have the variables and the backends of the others.
        self._refuse(_faults(config))
        databases = config.get("databases")
        if isinstance(databases, Mapping):
            for name, entry in _choose(databases, names).items():
                self._check(name, entry)

    def _refuse(self, faults: Iterator[tuple[tuple[str | int, ...], str]]) -> None:
        self.problems += [tell(self._source, path, message) for path, message in faults]

    def _check(self, name: str, entry: Any) -> None:
        if any(_entry_faults(name, entry)):
            return  # told already, with those of the databases that were not chosen
        entry, path = interpolate(entry, os.environ), ("databases", name)
        kind = entry["type"]
        # Without its type nothing says which settings there are, so that all there is to tell are
        # the variables that are missing.
        settings_class = None if isinstance(kind, Unresolved) else self._class_for(kind, path)
        if settings_class is None:
            self._refuse(unresolved(entry, path))
            return
        try:
            self.settings[name] = settings_class.parse(name, entry, self._source)
        except ConfigurationError as error:
            self.problems += error.problems

    def _class_for(self, kind: str, path: tuple[str, ...]) -> type[DatabaseSettings] | None:
        try:
            return self._settings_class_for(kind)
        except (BackendNotFoundError, BackendLoadError) as error:
            self._unusable.append(error)
            self.problems.append(tell(self._source, (*path, "type"), error.message))
            return None

    def raise_problems(self) -> None:
        if not self.problems:
            return
        # The class says what a caller can do. A backend to be installed comes first, and takes all
        # other problems along. A backend that failed to load is raised as it is, for its cause, and
        # only where that hides nothing else.
        if any(isinstance(error, BackendNotFoundError) for error in self._unusable):
            raise BackendNotFoundError(self.problems)
        if len(self._unusable) == len(self.problems):
            raise self._unusable[0]
        raise ConfigurationError(self.problems)


def _choose(databases: Mapping[str, Any], names: Sequence[str] | None) -> Mapping[str, Any]:
    if names is None:
        return databases
    # A str is a sequence as well: of names with one letter each.
    if isinstance(names, str):
        raise TypeError("the names of databases are a list, not a str")
    for name in names:
        if name not in databases:
            known = ", ".join(sorted(map(str, databases))) or "none"
            raise DatabaseNotFoundError(f"no database {name!r} is configured; there are: {known}")
    return {name: databases[name] for name in names}


def _faults(config: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """See that there are named databases, each with a type. Other keys belong to somebody else."""
    if not isinstance(config, Mapping):
        yield (), "must be a mapping with the key databases"
        return
    if "databases" not in config:
        keys = {str(key).lower(): key for key in config}
        meant = nearest("databases", keys)
        question = f"; did you misspell it as {tell_key(keys[meant])}?" if meant else ""
        yield ("databases",), f"is required: {_TOP}{question}"
        return
    databases = config["databases"]
    if not isinstance(databases, Mapping):
        yield ("databases",), f"is required: {_TOP}"
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
