"""A JSON Schema of the configuration file, with which editors complete and check it.

    python -m jobu_db.json_schema > config/database.schema.json

prints the one of the backends that are installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from jobu_db.errors import BackendLoadError
from jobu_db.plugins import database_class, installed_types
from jobu_db.settings.models import DatabaseSettings
from jobu_db.settings.variables import BOOLEANS

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NOTES = ("title", "description", "default")
_TYPED = ("integer", "number", "boolean")
_VARIABLE = {"type": "string", "pattern": r"\$\{"}


def json_schema(classes: Mapping[str, type[DatabaseSettings]]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file.

    Args:
        classes: The settings class of each `type`.
    """
    # Types that share a class, as postgres and postgresql do, share its definition.
    unique = list(dict.fromkeys(classes.values()))
    references, root = models_json_schema([(each, "validation") for each in unique])
    definitions = root.get("$defs", {})
    for definition in list(definitions.values()):
        _allow_variables(definition)
    branches = [_branch(name, references[each, "validation"]) for name, each in classes.items()]
    database = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(classes)}},
        "allOf": branches,
    }
    return {
        "$schema": _DRAFT,
        "title": "Databases",
        "type": "object",
        "required": ["databases"],
        "properties": {
            "databases": {"type": "object", "additionalProperties": {"$ref": "#/$defs/database"}}
        },
        "$defs": {**definitions, "database": database},
    }


def installed_classes() -> dict[str, type[DatabaseSettings]]:
    """Return the settings class of each type that is installed; tell of a backend that fails."""
    classes: dict[str, type[DatabaseSettings]] = {}
    for name in installed_types():
        try:
            classes[name] = database_class(name).settings_class
        except BackendLoadError as error:
            print(f"left out: {error}", file=sys.stderr)
    return classes


def _branch(name: str, reference: dict[str, Any]) -> dict[str, Any]:
    # Not oneOf: an editor offers the keys of the type that is written, and an error is one of that
    # type, not one of each.
    return {"if": {"properties": {"type": {"const": name}}}, "then": reference}


def _allow_variables(definition: dict[str, Any]) -> None:
    """Let `${NAME}` stand for whatever is not text already."""
    for branch in definition.get("anyOf", [definition]):
        for value in branch.get("properties", {}).values():
            _allow_variable(value)
    _allow_variable(definition)


def _allow_variable(schema: dict[str, Any]) -> None:
    branches = schema.get("anyOf", [schema])
    for branch in branches:
        _allow_booleans(branch)
    typed = any("enum" in each or each.get("type") in _TYPED for each in branches)
    free = any("enum" not in each and each.get("type") == "string" for each in branches)
    if typed and not free:
        notes: dict[str, Any] = {key: schema.pop(key) for key in _NOTES if key in schema}
        branches = schema.pop("anyOf", None) or [dict(schema)]
        schema.clear()
        schema |= {**notes, "anyOf": [*branches, _VARIABLE]}


def _allow_booleans(schema: dict[str, Any]) -> None:
    """Let a word such as OFF be the boolean that some readers of YAML make of it."""
    booleans = {
        BOOLEANS[word.lower()] for word in schema.get("enum", ()) if word.lower() in BOOLEANS
    }
    if booleans:
        schema["enum"] = [*schema["enum"], *booleans]
        # It is that of text, which a boolean is not.
        del schema["type"]


if __name__ == "__main__":
    print(json.dumps(json_schema(installed_classes()), indent=2))
