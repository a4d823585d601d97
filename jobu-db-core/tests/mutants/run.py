"""Seed one bug after another into a copy of the package, and say which test catches it.

    python run.py [WORDS]    only the mutants whose names contain WORDS

Exit status 1 if a mutant survives, or no longer applies.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutants import MUTANTS, Mutant

CORE = Path(__file__).resolve().parents[2]
TESTS = CORE / "tests" / "pool"
LIMIT = 120
"""Seconds for one run of the tests: a mutant may well hang."""


def main(words: str) -> int:
    print(f"no bug: {_run(None) or 'all tests pass'}", flush=True)
    chosen = [mutant for mutant in MUTANTS if words in mutant.name]
    width = max((len(mutant.name) for mutant in chosen), default=0)
    missed = 0
    for mutant in chosen:
        caught_by = _run(mutant)
        missed += not caught_by.startswith("test_")
        print(f"{mutant.name:{width}}  {caught_by or 'SURVIVED'}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed or not chosen else 0


def _run(mutant: Mutant | None) -> str:
    """Return the test that failed, with its file, or "" if none did."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(CORE / "src" / "jobu_db", Path(folder) / "jobu_db")
        if mutant is not None and not _seed(mutant, Path(folder) / "jobu_db" / mutant.file):
            return "DOES NOT APPLY"
        return _first_failure(folder)


def _seed(mutant: Mutant, path: Path) -> bool:
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    return text.count(mutant.old) == 1


def _first_failure(package_folder: str) -> str:
    path = os.pathsep.join([package_folder, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", str(TESTS)]
    try:
        run = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
            cwd=CORE.parent,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"test_… (it hung for {LIMIT} s)"
    if run.returncode == 0:
        return ""
    failure = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py)::(\S+)", run.stdout, re.MULTILINE)
    if failure is None:  # not a test that failed, but pytest itself
        raise SystemExit(run.stdout + run.stderr)
    return f"{failure[2]} ({failure[1]})"


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
