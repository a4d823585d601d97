"""`into=`: what a type takes, and what is said of columns that do not fit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from jobu_db.errors import ProgrammingError
from jobu_db.row_types import converted


def one(into: Callable[..., Any], **row: Any) -> Any:
    return next(converted([row], into, "SELECT …", "main"))


def misfit(into: Callable[..., Any], **row: Any) -> str:
    with pytest.raises(ProgrammingError) as caught:
        one(into, **row)
    assert (caught.value.database, caught.value.statement) == ("main", "SELECT …")
    return str(caught.value)


@dataclass
class Job:
    id: int
    name: str = "nameless"
    tags: list[str] = field(default_factory=list)
    label: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.label = f"{self.id}: {self.name}"


class Both(BaseModel):
    key: int = Field(validation_alias=AliasChoices("id", "number"))
    name: str


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: int


def test_a_dataclass_takes_what_its_init_takes() -> None:
    assert one(Job, id=1).label == "1: nameless"
    assert one(Job, id=1, tags=["a"]).tags == ["a"]
    assert "'id' missing; 'label' surplus" in misfit(Job, label="x")
    assert "into=Job" in misfit(Job, label="x")


def test_a_model_takes_its_aliases_and_checks_values() -> None:
    assert one(Both, id="7", name="x") == one(Both, number=7, name="x")
    assert "'id' missing; 'key' surplus" in misfit(Both, key=7, name="x")
    assert one(Open, id=1, more=2).model_extra == {"more": 2}
    with pytest.raises(ValidationError):  # the program's own, as it is
        one(Both, id="seven", name="x")


def test_any_callable_will_do() -> None:
    assert one(lambda id, **rest: (id, rest), id=1, more=2) == (1, {"more": 2})
    assert one(partial(Job, name="given"), id=1).name == "given"
    assert one(dict, id=1) == {"id": 1}
    assert "'id' surplus" in misfit(lambda: None, id=1)


def test_columns_of_one_name_are_told_where_the_row_has_them_twice() -> None:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    rows = connection.execute("SELECT 1 AS id, 2 AS id").fetchall()
    connection.close()
    with pytest.raises(ProgrammingError, match="'id' there more than once"):
        converted(rows, Job, "SELECT …", "main")
