"""Values that YAML or a variable took for another type than the setting wants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, SecretStr

from jobu_db.settings.validation import as_wanted
from jobu_db.settings.variables import Interpolated


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        (Literal["OFF", "FULL"], False, "OFF"),
        (Literal["OFF", "FULL"] | None, False, "OFF"),
        (Annotated[Literal["on", "auto"], Field()], True, "on"),
        (Literal[1, "off"], False, "off"),
        (Literal["OFF", "FULL"], True, True),
        (Literal["on", "yes"], True, True),
        (Literal["on", "off"] | bool, True, True),
        (str, True, True),
        (int, False, False),
    ],
)
def test_a_boolean_is_the_one_word_it_can_stand_for(
    annotation: Any, value: bool, wanted: object
) -> None:
    assert as_wanted(value, annotation) is wanted or as_wanted(value, annotation) == wanted
    assert type(as_wanted(value, annotation)) is type(wanted)


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        (int, 5),
        (Annotated[int, Field(ge=0)] | None, 5),
        (float | None, 5),
        (bool, 5),
        (str, "5"),
        (str | int, "5"),
        (SecretStr, "5"),
        (Literal["5", "6"], "5"),
        (dict[str, str | int], "5"),
        (None, "5"),
    ],
)
def test_text_from_a_variable_is_a_number_only_where_no_text_is_wanted(
    annotation: Any, wanted: object
) -> None:
    found = as_wanted(Interpolated("5"), annotation)
    assert (found, type(found)) == (wanted, type(wanted))


@pytest.mark.parametrize("value", ["OFF", 5, None, 2.5, [True]])
def test_other_values_stay_as_they_are(value: object) -> None:
    assert as_wanted(value, Literal["OFF", "FULL"]) is value
