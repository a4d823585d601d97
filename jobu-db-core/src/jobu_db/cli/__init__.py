"""`jobu-db`: the command line. It needs the extra `jobu-db-core[cli]`; nothing else imports it.

`app`        the commands by name, and how errors are told
`arguments`  what several commands take: the configuration file, names of databases
`output`     tables for people, on any width, with colours or without
`opening`    opening the databases of a file for one command
The other modules are a command each, by its name.

Exit codes: 0, all is well; 1, a database or a file is not; 2, the arguments or the configuration
are wrong. 130, interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that `sys.argv` asks for; exits."""
    try:
        from jobu_db.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print(f"jobu-db needs {error.name}; run: pip install 'jobu-db-core[cli]'", file=sys.stderr)
        sys.exit(2)
    app(prog_name="jobu-db")
