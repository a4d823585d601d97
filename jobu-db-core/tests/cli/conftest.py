"""Runs `jobu-db` in a folder of its own: as a program, or inside this process where many inputs are
tried, since a program takes half a second to start."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobu_db.cli.app import app

SQLITE = """
databases:
  default:
    type: sqlite
    path: "data/app.db"
"""
PROGRAM = "import sys; sys.argv[0] = 'jobu-db'; from jobu_db.cli import main; main()"
"""What the script does that pip installs."""

LIMIT = 120.0
"""Seconds after which a command that hangs is stopped."""


@dataclass
class CommandLine:
    """The command in one folder. Nothing of the terminal or the environment shines through."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str, stdin: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, *arguments],
            cwd=self.folder,
            env={**kept, **self.environment, **environment},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def inside(
        self, *arguments: str, stdin: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Do the same in this process."""
        runner = CliRunner(env={"JOBU_DB_CONFIG": None, **self.environment, **environment})
        with contextlib.chdir(self.folder):
            result = runner.invoke(app, arguments, input=stdin, prog_name="jobu-db")
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        return subprocess.CompletedProcess(
            arguments, result.exit_code, result.stdout, result.stderr
        )

    def configure(self, text: str, path: str = "config/database.yaml") -> None:
        """Write the configuration."""
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """The command in an empty folder."""
    return CommandLine(tmp_path)


@pytest.fixture
def jobu_db(bare: CommandLine) -> CommandLine:
    """The command in a folder whose configuration has one SQLite database."""
    bare.configure(SQLITE)
    return bare
