"""`into=`: what a type takes, and what is said of columns that do not fit."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, ValidationError

from jobu_db.errors import ProgrammingError
from jobu_db.row_types import converted


def one(into: Callable[..., Any], **row: Any) -> Any:
    return next(converted([row], into, "SELECT …", "main"))


def misfit(into: Callable[..., Any], **row: Any) -> str:
    with pytest.raises(ProgrammingError) as caught:
        one(into, **row)
    assert (caught.value.database, caught.value.statement) == ("main", "SELECT …")
    assert "the statement ran" in str(caught.value)
    return str(caught.value)


@dataclass
class Job:
    id: int
    name: str = "nameless"
    tags: list[str] = field(default_factory=list)
    label: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.label = f"{self.id}: {self.name}"


@dataclass(kw_only=True, slots=True)
class Key:
    id: int
    name: str = "nameless"


@dataclass(frozen=True)
class Priced:
    id: int
    price: InitVar[int]
    told: str = field(init=False)

    def __post_init__(self, price: int) -> None:
        object.__setattr__(self, "told", f"{self.id}: {price}")


class Pair(NamedTuple):
    id: int
    name: str = "nameless"


@dataclass  # which has no hash
class Maker:
    made: int = 0

    def __call__(self, id: int) -> int:
        self.made += 1
        return id


class Both(BaseModel):
    key: int = Field(validation_alias=AliasChoices("id", "number"))
    name: str


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: int


class Shouted(BaseModel):
    model_config = ConfigDict(alias_generator=str.upper, defer_build=True)
    id: int
    first: int = Field(validation_alias=AliasPath("tags", 0))


def test_a_dataclass_takes_what_its_init_takes() -> None:
    assert one(Job, id=1).label == "1: nameless"
    assert one(Job, id=1, tags=["a"]).tags == ["a"]
    assert "'id' missing; 'label' surplus" in misfit(Job, label="x")
    assert "into=Job" in misfit(Job, label="x")


def test_what_has_defaults_takes_less() -> None:
    assert one(Key, id=1) == Key(id=1)
    assert one(Pair, id=1) == Pair(1)
    assert one(Pair, name="x", id=1) == Pair(1, "x")
    assert one(Priced, price=5, id=1).told == "1: 5"
    assert "'told' surplus" in misfit(Priced, id=1, price=5, told="x")
    assert "'price' missing" in misfit(Priced, id=1)


def test_a_model_takes_its_aliases_and_checks_values() -> None:
    assert one(Both, id="7", name="x") == one(Both, number=7, name="x")
    assert "'id' missing; 'key' surplus" in misfit(Both, key=7, name="x")
    assert one(Open, id=1, more=2).model_extra == {"more": 2}
    assert one(Shouted, ID=1, tags=[7, 8]).first == 7
    assert "'ID', 'tags' missing; 'id' surplus" in misfit(Shouted, id=1)
    with pytest.raises(ValidationError):  # the program's own, as it is
        one(Both, id="seven", name="x")


def test_any_callable_will_do() -> None:
    assert one(lambda id, **rest: (id, rest), id=1, more=2) == (1, {"more": 2})
    assert one(partial(Job, name="given"), id=1).name == "given"
    assert one(dict, id=1) == {"id": 1}
    assert one(dict) == {}
    assert one(dict, **{"count(*)": 1}) == {"count(*)": 1}
    maker = Maker()
    assert (one(maker, id=1), one(maker.__call__, id=2), maker.made) == (1, 2, 2)
    assert "'id' surplus" in misfit(lambda id, /: id, id=1)  # which cannot be given by name
    assert "'id' surplus" in misfit(lambda: None, id=1)
    assert "into=int does not take its columns by name" in misfit(int, id=1)


def test_a_callable_is_not_kept() -> None:
    class Large:
        pass

    large = Large()
    gone = weakref.ref(large)
    assert one(lambda id, given=large: id, id=1) == 1
    del large
    assert gone() is None


def test_columns_of_one_name_are_told_where_the_row_has_them_twice() -> None:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    rows = connection.execute("SELECT 1 AS id, 2 AS id").fetchall()
    connection.close()
    with pytest.raises(ProgrammingError, match="'id' there more than once"):
        converted(rows, Job, "SELECT …", "main")
