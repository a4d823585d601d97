"""The program in the README runs as printed, but for the server's address."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
PRINTED = "postgresql://jobu:jobu_dev@localhost/jobu"


async def test_the_program_in_the_readme_runs(postgres_url: str) -> None:
    match = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert match
    assert PRINTED in match[1]
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-c", match[1].replace(PRINTED, postgres_url)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complaints = await program.communicate()
    assert complaints == b""
    assert b"{'id': 1, 'name': 'nightly report'}" in printed
