"""The workflow on GitHub is one, calls what there is, and covers the Pythons that are promised."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parents[2]
WORKFLOW = TOP / ".github" / "workflows" / "test.yml"


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]
    return found


def test_it_follows_the_schema() -> None:
    check = ("-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows")
    done = subprocess.run([sys.executable, *check, WORKFLOW], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_python_that_is_promised_is_tested() -> None:
    with (TOP / "jobu-db-core" / "pyproject.toml").open("rb") as file:
        told = tomllib.load(file)["project"]["classifiers"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(told))
    assert jobs()["test"]["strategy"]["matrix"]["python"] == promised


def test_its_commands_exist() -> None:
    for job in jobs().values():
        for words in (step["run"].split() for step in job["steps"] if "run" in step):
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", (TOP / "Makefile").read_text("utf-8"), re.M)
            else:
                assert (TOP / words[0]).stat().st_mode & 0o111
