"""Seed one bug after another into the pool and into a backend, and say which test catches it.

The pool's are for its own tests, the backend's (in the template) for the conformance suite.

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
from typing import NamedTuple

import backend_mutants
import pool_mutants
from mutant import Mutant

CORE = Path(__file__).resolve().parents[2]


class Target(NamedTuple):
    """A package, the bugs to seed into a copy of it, and the tests that should notice."""

    package: Path
    mutants: list[Mutant]
    tests: list[Path]


POOL_TESTS = CORE / "tests" / "pool"
AIO_TESTS = CORE / "tests" / "aio"
# These come first: they say which decision is wrong, and cannot hang.
PURE_TESTS = [POOL_TESTS / f"test_pool_{name}.py" for name in ("state", "sizes", "health")]

TARGETS = (
    Target(
        CORE / "src" / "jobu_db",
        pool_mutants.MUTANTS,
        [
            *PURE_TESTS,
            *sorted(AIO_TESTS.glob("test_*.py")),
            *sorted(set(POOL_TESTS.glob("test_*.py")) - set(PURE_TESTS)),
        ],
    ),
    Target(
        CORE / "tests" / "third_party" / "src" / "jobu_db_stdlib",
        backend_mutants.MUTANTS,
        [CORE / "tests" / "third_party" / "tests" / "test_conformance.py"],
    ),
)
CAUGHT = re.compile(r"\btest_")
LIMIT = 120
"""Seconds for one run of the tests: a mutant may well hang."""


def main(words: str) -> int:
    chosen = [
        (target, [mutant for mutant in target.mutants if words in mutant.name])
        for target in TARGETS
    ]
    width = max((len(mutant.name) for _, mutants in chosen for mutant in mutants), default=0)
    total = missed = 0
    for target, mutants in chosen:
        if mutants:
            print(f"\n{target.package.name}, no bug: {_run(target, None) or 'all tests pass'}")
        for mutant in mutants:
            caught_by = _run(target, mutant)
            total += 1
            missed += not CAUGHT.search(caught_by)
            print(f"{mutant.name:{width}}  {caught_by or 'SURVIVED'}", flush=True)
    print(f"{total - missed} of {total} caught")
    return 1 if missed or not total else 0


def _run(target: Target, mutant: Mutant | None) -> str:
    """Return the test that failed, with its file, or "" if none did."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / target.package.name
        shutil.copytree(target.package, copy)
        if mutant is not None and not _seed(mutant, copy / mutant.file):
            return "DOES NOT APPLY"
        return _first_failure(folder, target.tests)


def _seed(mutant: Mutant, path: Path) -> bool:
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    return text.count(mutant.old) == 1


def _first_failure(package_folder: str, tests: list[Path]) -> str:
    path = os.pathsep.join([package_folder, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-x", "-v", "--tb=no", "-rfE", *map(str, tests)]
    try:
        run = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
            cwd=CORE.parent,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired as hung:
        running = (hung.stdout or b"").decode().rstrip().rpartition("\n")[2].strip()
        return f"{running.partition('::')[2]} (it hung for {LIMIT} s)"
    if run.returncode == 0:
        return ""
    failure = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py)::(\S+)", run.stdout, re.MULTILINE)
    if failure is None:  # not a test that failed, but pytest itself
        raise SystemExit(run.stdout + run.stderr)
    return f"{failure[2]} ({failure[1]})"


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
