"""Every public name says what it is: modules, classes, functions, methods and properties."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import pytest

PACKAGES = ("jobu_db", "jobu_db_sqlite", "jobu_db_postgres", "jobu_db_mysql")
SUITE = "jobu_db.testing.conformance."
"""The tests of the conformance suite, whose names are what they say."""


def public_modules(package: str) -> list[str]:
    """All modules without a leading underscore anywhere in their path."""
    top = importlib.import_module(package)
    found = [module.name for module in pkgutil.walk_packages(top.__path__, f"{package}.")]
    return [
        name
        for name in (package, *found)
        if not name.startswith(SUITE) and not re.search(r"(^|\.)_", name)
    ]


def undocumented(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    if not module.__doc__:
        yield name
    for key, value in vars(module).items():
        if key.startswith(("_", "pytest_")) or getattr(value, "__module__", None) != name:
            continue
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        if not inspect.getdoc(value):
            yield f"{name}.{key}"
        if inspect.isclass(value):
            yield from (f"{name}.{key}.{member}" for member in bare_members(value))


def bare_members(owner: type) -> Iterator[str]:
    """Its own methods and properties without a text, neither here nor under "Attributes"."""
    attributes = (owner.__doc__ or "").partition("Attributes:")[2]
    told = set(re.findall(r"^ *((?:\w+, )*\w+):", attributes, re.MULTILINE))
    told = {name for names in told for name in names.split(", ")}
    for key, member in vars(owner).items():
        if key.startswith("_") or key in told:
            continue
        inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if (inspect.isroutine(inner) or isinstance(inner, property)) and not inspect.getdoc(
            getattr(owner, key)
        ):
            yield key


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package: str) -> None:
    modules = public_modules(package)
    assert len(modules) > 5
    assert [name for module in modules for name in undocumented(module)] == []


def packages(top: str) -> Iterator[str]:
    """The package and those in it, but for the core's top and the conformance suite."""
    if top != "jobu_db":
        yield top
    for module in pkgutil.walk_packages(importlib.import_module(top).__path__, f"{top}."):
        if module.ispkg and f"{module.name}." != SUITE and module.name != "jobu_db.cli":
            yield module.name


@pytest.mark.parametrize("package", [name for top in PACKAGES for name in packages(top)])
def test_a_package_says_what_each_of_its_modules_is_about(package: str) -> None:
    """The map for whoever opens the folder for the first time."""
    module = importlib.import_module(package)
    inside = {found.name for found in pkgutil.iter_modules(module.__path__)}
    told = set(re.findall(r"`(\w+)[`.]", module.__doc__ or ""))
    assert inside - told == set()


def test_what_has_none_is_found() -> None:
    class Bare:
        """Some text.

        Attributes:
            told, too: What it is.
        """

        def told(self) -> None:
            pass

        @property
        def too(self) -> int:
            return 1

        def untold(self) -> None:
            pass

        @classmethod
        def neither(cls) -> None:
            pass

    assert list(bare_members(Bare)) == ["untold", "neither"]
