"""Install a server on Debian or Ubuntu, as root: the last way to get one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable

from jobu_db.testing.servers.server import Kind, ServerError

# The first set that can be installed is taken. Core packages bring programs without a service;
# the client's has one that mariadb-install-db needs.
PACKAGES: dict[Kind, tuple[str, ...]] = {
    "postgres": ("postgresql",),
    "mysql": ("mariadb-server-core mariadb-client-core", "mariadb-server"),
}


def can_install() -> bool:
    """Say whether this is Debian or Ubuntu, as root, and JOBU_TEST_INSTALL is not 0."""
    wanted = os.environ.get("JOBU_TEST_INSTALL") != "0"
    return wanted and os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(kind: Kind, announce: Callable[[str], None]) -> None:
    """Install a server, telling `announce` first. Raises ServerError."""
    *first, last = PACKAGES[kind]
    for packages in first:
        with contextlib.suppress(ServerError):
            return install_packages(packages, announce)
    return install_packages(last, announce)


def install_packages(packages: str, announce: Callable[[str], None]) -> None:
    """Install packages, separated by spaces, without starting a service or removing a package.

    Raises:
        ServerError: With what apt-get says.
    """
    announce(f"installing {packages} with apt-get (JOBU_TEST_INSTALL=0 forbids it)")
    _apt_get("update", "-qq")
    quietly = ("-y", "-qq", "--no-install-recommends", "--no-remove")
    done = _apt_get("install", *quietly, *packages.split())
    if done.returncode:
        raise ServerError(f"apt-get install {packages} fails:\n{done.stderr[-2000:]}")


def _apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    # With RUNLEVEL 1, packages start no service: tests run a private server instead.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with open(f"{tempfile.gettempdir()}/jobu-db-apt-get.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it doesn't wait for another one, it fails
        return subprocess.run(
            ["apt-get", *arguments],
            capture_output=True,
            text=True,
            env=quiet,
            stdin=subprocess.DEVNULL,
        )
