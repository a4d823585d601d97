"""Make a virtual environment: the four distributions, editable, and the tools to work on them.

    python3 .ci/make_venv.py FOLDER [--lowest | --benchmarks | --docs]

With --lowest, every library that the distributions need is installed at its lower bound; with
--benchmarks, what they are measured beside is installed in place of the tools; with --docs, only
what builds the site is, which reads the distributions' source.

uv installs, which takes seconds where pip takes a minute; pip does where uv can't be had, and where
pip is told to ask another index than the usual one, of which uv wouldn't know.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (the reader may well have an older one)
    sys.exit(
        f"jobu-db needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}"
    )

import tomllib

TOP = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = ("jobu-db-core", "jobu-db-sqlite", "jobu-db-postgres", "jobu-db-mysql")
PEERS = TOP / "jobu-db-core" / "benchmarks" / "requirements.txt"
LOWER_BOUND = re.compile(r"([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)")


def need_pip() -> None:
    """Debian and Ubuntu leave the module that puts pip into a new environment to a package."""
    if importlib.util.find_spec("ensurepip"):
        return
    package = f"python3.{sys.version_info.minor}-venv"
    if not (shutil.which("apt-get") and os.geteuid() == 0):
        sys.exit(
            f"{sys.executable} cannot make virtual environments.\n"
            f"On Debian or Ubuntu: sudo apt-get install {package}"
        )
    print(f"installing {package}, which this Python lacks", flush=True)
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", package],
        check=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )


def tools(name: str) -> list[str]:
    with (TOP / "pyproject.toml").open("rb") as file:
        group: list[str] = tomllib.load(file)["dependency-groups"][name]
    return group


def lowest() -> list[str]:
    """The lower bounds of all the distributions, as exact versions."""
    bounds: list[str] = []
    for name in DISTRIBUTIONS:
        with (TOP / name / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file)["project"]
        extras = project.get("optional-dependencies", {})
        needed = [
            *project["dependencies"],
            *(one for extra in ("aiosql", "cli", "otel") for one in extras.get(extra, [])),
        ]
        matches = (LOWER_BOUND.match(one) for one in needed if not one.startswith("jobu-db-"))
        bounds += [f"{match[1]}=={match[2]}" for match in matches if match]
    return bounds


def main(folder: str, *options: str) -> None:
    need_pip()
    print(f"making {folder} with Python {sys.version.split()[0]}", flush=True)
    venv.create(folder, clear=True, symlinks=True, with_pip=True)
    editable = [part for name in DISTRIBUTIONS for part in ("-e", str(TOP / name))]
    bounds = lowest() if "--lowest" in options else []
    if "--docs" in options:
        wanted = tools("docs")
    elif "--benchmarks" in options:
        wanted = [*editable, "-r", str(PEERS)]
    else:
        wanted = [*editable, *tools("dev")]
    install(Path(folder) / "bin" / "python", [*wanted, *bounds])


def install(python: Path, wanted: list[str]) -> None:
    pip = [str(python), "-m", "pip"]
    quietly = ("-q", "--disable-pip-version-check")
    if not asks_another_index(pip):
        uv = [str(python), "-m", "uv", "pip", "install", "--python", str(python)]
        brought = subprocess.run([*pip, "install", *quietly, "uv"]).returncode == 0
        if brought and subprocess.run([*uv, "-q", "--compile-bytecode", *wanted]).returncode == 0:
            return
        print("pip installs, without uv", flush=True)
    subprocess.run([*pip, "install", *quietly, *wanted], check=True)


def asks_another_index(pip: list[str]) -> bool:
    settings = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True)
    return bool(re.search(r"\.(index-url|no-index)=", settings.stdout))


if __name__ == "__main__":
    main(*sys.argv[1:])
