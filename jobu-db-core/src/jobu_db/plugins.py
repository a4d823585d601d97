"""Backends, found through the entry-point group `jobu_db.backends` and loaded one by one."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any, ClassVar

import pluggy

from jobu_db.errors import BackendLoadError, BackendNotFoundError
from jobu_db.settings.variables import Interpolated

GROUP = "jobu_db.backends"

hookspec = pluggy.HookspecMarker("jobu_db")
hookimpl = pluggy.HookimplMarker("jobu_db")

API_VERSION = 1
"""Number of the interface between core and backends; see `BaseDatabase.api_version`."""

_OURS = {
    "sqlite": "jobu-db-sqlite",
    "postgres": "jobu-db-postgres",
    "postgresql": "jobu-db-postgres",
    "mysql": "jobu-db-mysql",
    "mariadb": "jobu-db-mysql",
}


class Backend:
    """What a backend's hook returns a subclass of, by way of `jobu_db.database.BaseDatabase`.

    Class attributes, which a backend sets:
        db_type: "sqlite", "postgres", …
        api_version: The `API_VERSION` of the core that it was written for.
    """

    db_type: ClassVar[str]
    api_version: ClassVar[int]


class BackendSpecs:
    """What the target of an entry point implements, with `hookimpl`."""

    @hookspec(firstresult=True)
    def jobu_db_database(self, db_type: str) -> type[Backend] | None:
        """Return the database class for this type, or None."""


_loaded: dict[str, type[Any]] = {}


def installed_types() -> list[str]:
    """Return the database types that installed distributions offer."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def database_class(db_type: str) -> type[Any]:
    """Load the backend for a type; only that one.

    Returns:
        A subclass of `jobu_db.database.BaseDatabase`.

    Raises:
        BackendNotFoundError: None offers it; names what is installed and what to install.
        BackendLoadError: It does not load, was made for another core, or two claim the type.
    """
    # Kept: to find an entry point is to read the metadata of all that is installed.
    if db_type not in _loaded:
        _loaded[db_type] = _load(_entry_point(db_type), db_type)
    return _loaded[db_type]


def _entry_point(db_type: str) -> EntryPoint:
    # One distribution is listed twice if it is found at two places of sys.path: only different ones
    # are rivals.
    found = {_label(point): point for point in entry_points(group=GROUP, name=db_type)}
    if not found:
        raise BackendNotFoundError(_not_found(db_type))
    if len({point.dist.name for point in found.values() if point.dist}) > 1:
        raise BackendLoadError(
            f"type {db_type!r} is claimed by {' and '.join(sorted(found))}: uninstall one of them"
        )
    return next(iter(found.values()))


def _not_found(db_type: str) -> str:
    types = installed_types()
    installed = f"installed: {', '.join(types) or 'none'}"
    if isinstance(db_type, Interpolated):  # it may hold a secret, put there by mistake
        return f"no backend for the type that the variable holds; {installed}"
    message = f"no backend for type {db_type!r}; {installed}"
    if db_type in _OURS:
        return f"{message}; run: pip install {_OURS[db_type]}"
    near = difflib.get_close_matches(db_type, {*types, *_OURS}, n=1)
    if not near:
        return message
    hint = "" if near[0] in types else f" (pip install {_OURS[near[0]]})"
    return f"{message}; did you mean {near[0]!r}?{hint}"


def _load(point: EntryPoint, db_type: str) -> type[Backend]:
    try:
        plugin = point.load()
        # A manager for this one alone, and not `load_setuptools_entrypoints`: of two distributions
        # with one name, that skips the second without a word.
        manager = pluggy.PluginManager("jobu_db")
        manager.add_hookspecs(BackendSpecs)
        manager.register(plugin)
        found: Any = manager.hook.jobu_db_database(db_type=db_type)
    except Exception as error:
        raise BackendLoadError(
            f"{_label(point)} for type {db_type!r} does not load with {_core()}: "
            f"{type(error).__name__}: {error}"
        ) from error
    _check(found, point, db_type)
    return found  # type: ignore[no-any-return]


def _check(found: Any, point: EntryPoint, db_type: str) -> None:
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise BackendLoadError(
            f"{_label(point)} registers type {db_type!r}, but its jobu_db_database() returned "
            f"{found!r} instead of a BaseDatabase class"
        )
    built_for = getattr(found, "api_version", None)
    if built_for != API_VERSION:
        raise BackendLoadError(
            f"{_label(point)} was built for version {built_for} of the backend interface, and "
            f"{_core()} has version {API_VERSION}: upgrade the older of the two"
        )


def _label(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _core() -> str:
    return f"jobu-db-core {version('jobu-db-core')}"
