"""Write the tables of settings into their pages, from the models that check the settings.

    .venv/bin/python .ci/settings_tables.py

A table stands between `<!-- settings of MODEL -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobu_db.settings import PoolConfig, ReplicaSettings, Settings
from jobu_db.settings.tls import TLSSettings
from jobu_db_mysql.settings import MySQLOptions, MySQLSettings
from jobu_db_postgres.settings import PostgresOptions, PostgresSettings
from jobu_db_sqlite.settings import SQLiteOptions, SQLitePoolConfig, SQLiteSettings

TOP = Path(__file__).resolve().parent.parent
MODELS: Mapping[str, type[Settings]] = {
    model.__name__: model
    for model in (
        PoolConfig, TLSSettings, ReplicaSettings,
        SQLiteSettings, SQLiteOptions, SQLitePoolConfig,
        PostgresSettings, PostgresOptions,
        MySQLSettings, MySQLOptions,
    )
}  # fmt: skip
PAGES = (
    *(TOP / f"jobu-db-{name}" / "README.md" for name in ("core", "sqlite", "postgres", "mysql")),
    TOP / "docs" / "replicas.md",
)
MAPPINGS = {
    "options": "A mapping, as below.",
    "pool": "A mapping: see [the pool](../jobu-db-core/README.md#the-pool).",
    "replicas": "A mapping: see [reading from replicas](../docs/replicas.md).",
    "ssl": "The mode, or a mapping; where it is not set, what can be encrypted is, but on this "
    "machine: see [encryption](../jobu-db-core/README.md#encryption).",
}
TABLE = re.compile(r"(<!-- settings of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page_with_tables(text: str) -> str:
    """Return a page with every table as the models have it now."""
    return TABLE.sub(lambda match: match[1] + table(MODELS[match[2]]) + match[3], text)


def table(model: type[Settings]) -> str:
    """Write what a mapping may hold, in Markdown; of a derived pool only what differs."""
    properties = _properties(model)
    if model is not PoolConfig and issubclass(model, PoolConfig):
        common = _properties(PoolConfig)
        properties = {key: each for key, each in properties.items() if each != common.get(key)}
    aliases = {key: _alias_of(key, model) for key in properties}
    required = _mapping(model).get("required", ())
    rows = ["| setting, other names | default | meaning |", "|---|---|---|"]
    for key, schema in properties.items():
        if not aliases[key]:
            names = [key, *(alias for alias, name in aliases.items() if name == key)]
            field = model.model_fields.get(key)
            needed = key in required or (field is not None and field.is_required())
            default = "required" if needed else _default(model, key, schema)
            rows.append(f"| {_code(names)} | {default} | {_meaning(key, schema)} |")
    return "\n".join(rows) + "\n"


def _mapping(model: type[Settings]) -> dict[str, Any]:
    schema = model.model_json_schema()
    if "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    return next((each for each in schema.get("anyOf", ()) if "properties" in each), schema)


def _properties(model: type[Settings]) -> dict[str, Any]:
    properties: dict[str, Any] = _mapping(model)["properties"]
    return properties


def _alias_of(key: str, model: type[Settings]) -> str | None:
    """Return the one setting that another name stands for."""
    names = model.aliases.get(key, ())
    return names[0] if len(names) == 1 else None


def _default(model: type[Settings], key: str, schema: dict[str, Any]) -> str:
    default = model.model_fields[key].default if key in model.model_fields else None
    if isinstance(default, Settings):
        default = getattr(default, default.shorthand) if default.shorthand else None
    if default is None or default == {}:
        can_be_off = any(branch.get("minimum") == 0 for branch in schema.get("anyOf", ()))
        return "off" if can_be_off else ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _meaning(key: str, schema: dict[str, Any]) -> str:
    branches = schema.get("anyOf", [schema])
    words = next((branch["enum"] for branch in branches if "enum" in branch), ())
    allowed = f" One of {_code(words)}." if words else ""
    return str(schema.get("description", MAPPINGS.get(key, ""))) + allowed


def _code(words: Any) -> str:
    return ", ".join(f"`{word}`" for word in words)


def main() -> None:
    for page in PAGES:
        page.write_text(page_with_tables(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
