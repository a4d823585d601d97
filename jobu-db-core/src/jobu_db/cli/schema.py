"""`jobu-db schema`: the JSON Schema of the configuration file."""

from __future__ import annotations

import json

import click


@click.command(short_help="Print the JSON Schema of the configuration, for editors")
def schema() -> None:
    """Print a JSON Schema of the configuration, for editors.

    It is that of the backends installed here:

    \b
        jobu-db schema > config/database.schema.json
    """
    from jobu_db.json_schema import installed_classes, json_schema

    click.echo(json.dumps(json_schema(installed_classes()), indent=2))
