"""Rows as a program's own types: `fetch_one(sql, into=Job)`.

What a type takes is found out once; that the columns fit is looked at once for each result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import AliasChoices, AliasPath, BaseModel

from jobu_db.errors import ProgrammingError

T = TypeVar("T")


def converted(rows: Sequence[Any], into: Callable[..., T], sql: str, database: str) -> Iterator[T]:
    """Return the rows as what `into` makes of each.

    Args:
        rows: Of one result, all with the same columns.
        into: A dataclass, a pydantic model, a `NamedTuple`, or whatever takes columns by name.
        sql, database: For the error.

    Raises:
        ProgrammingError: A column is missing, surplus, or there twice.
    """
    if not rows:
        return iter(())
    taker = _taker(into)
    # Of keys(), not of dict(row), in which two columns of one name are one.
    misfit = _misfit([str(column) for column in rows[0].keys()], taker)  # noqa: SIM118  # no dict
    if misfit:
        raise ProgrammingError(
            f"the statement ran, but its columns do not fit {_named(into)}: {misfit}",
            database=database,
            statement=sql,
        )
    return _made(rows, taker.make, into, sql, database) if taker.untold else map(taker.make, rows)


def _made(
    rows: Sequence[Any], make: Callable[[Any], T], into: Callable[..., T], sql: str, database: str
) -> Iterator[T]:
    for row in rows:
        try:
            yield make(row)
        except TypeError as error:
            raise ProgrammingError(
                f"the statement ran, but {_named(into)} does not take its columns by name: {error}",
                database=database,
                statement=sql,
            ) from error


def _named(into: Callable[..., Any]) -> str:
    return f"into={getattr(into, '__qualname__', repr(into))}"


class Row(Protocol):
    """A row, as every database returns it; `dict(row)` works as well. Some can do more."""

    def __getitem__(self, column: str, /) -> Any: ...

    def keys(self) -> Iterable[str]:
        """Return the names of the columns."""


class _Taker(NamedTuple):
    """What a type takes.

    Attributes:
        required: The names that each of the values that must come may have.
        known: All names; None if it takes any.
        make: Makes an object of a row.
        untold: What it takes is known only once it is called.
    """

    required: Sequence[Sequence[str]]
    known: frozenset[str] | None
    make: Callable[[Any], Any]
    untold: bool = False


def _misfit(columns: list[str], taker: _Taker) -> str:
    missing = [names[0] for names in taker.required if not any(name in columns for name in names)]
    surplus = [name for name in columns if taker.known is not None and name not in taker.known]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    told = {"missing": missing, "surplus": surplus, "there more than once": twice}
    return "; ".join(
        f"{', '.join(map(repr, names))} {what}" for what, names in told.items() if names
    )


def _taker(into: Callable[..., Any]) -> _Taker:
    # Of types alone it is kept: a function may refer to anything, which would be kept with it.
    return _taker_of_type(into) if isinstance(into, type) else _taker_of_signature(into)


@lru_cache(maxsize=256)
def _taker_of_type(into: type) -> _Taker:
    return _taker_of_model(into) if issubclass(into, BaseModel) else _taker_of_signature(into)


def _taker_of_signature(into: Callable[..., Any]) -> _Taker:
    try:
        parameters = inspect.signature(into).parameters.values()
    except ValueError:  # of a type in C, which does not tell
        return _Taker((), None, lambda row: into(**dict(row)), untold=True)
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    any_name = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return _Taker(
        [(one.name,) for one in named if one.default is one.empty],
        None if any_name else frozenset(one.name for one in named),
        lambda row: into(**dict(row)),
    )


def _taker_of_model(model: type[BaseModel]) -> _Taker:
    fields = [(list(_names(model, name)), field) for name, field in model.model_fields.items()]
    known = frozenset(name for names, _ in fields for name in names)
    return _Taker(
        [names for names, field in fields if field.is_required()],
        None if model.model_config.get("extra") == "allow" else known,
        lambda row: model.model_validate(dict(row)),
    )


def _names(model: type[BaseModel], name: str) -> Iterable[str]:
    alias, config = model.model_fields[name].validation_alias, model.model_config
    if alias is not None and config.get("validate_by_alias") is not False:
        for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            yield str(choice.path[0]) if isinstance(choice, AliasPath) else choice
    if alias is None or config.get("populate_by_name") or config.get("validate_by_name"):
        yield name
