"""Interrupts a program at each line by which it sends something; prints how many there are.

    python interrupted_program.py URL

asyncpg does not pass on what strikes while it sends, and waits for the answer; so the program is
cancelled, too, a while later. It ends with code 0 if the program ended each time, within the limit.
"""

import asyncio
import contextlib
import faulthandler
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import jobu_db_postgres
from jobu_db import DatabaseError
from jobu_db_postgres import PostgresDatabase

LIMIT = 60.0
HERE = str(Path(jobu_db_postgres.__file__).parent)
SENDING = str(Path(asyncio.__file__).with_name("selector_events.py"))


class Interrupt:
    """Raises `KeyboardInterrupt` at one of the lines, counted in the order they run."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.main: asyncio.Task[Any] | None = None

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        ours = code.co_filename.startswith(HERE)
        if ours or (code.co_filename == SENDING and code.co_name in ("write", "writelines")):
            return self.line
        return None

    def line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                assert self.main is not None
                self.main.get_loop().call_later(0.1, self.main.cancel)
                raise KeyboardInterrupt
        return self.line


async def main(url: str, interrupt: Interrupt) -> None:
    pool = {"max_size": 1, "cleanup_timeout": 0.2}
    async with PostgresDatabase.create("main", {"url": url, "pool": pool}) as db:

        async def work() -> None:
            async with db.transaction() as ctx:
                await ctx.execute("SET LOCAL application_name = 'interrupted'")
                await ctx.fetch_all("SELECT generate_series(1, :n)", {"n": 10})

        await work()  # so that asyncpg has the statements in its cache
        interrupt.main = asyncio.current_task()
        worker = asyncio.create_task(work())
        sys.settrace(interrupt)
        await worker


def run(url: str, interrupt: Interrupt) -> None:
    passed = (KeyboardInterrupt, asyncio.CancelledError, DatabaseError)
    with asyncio.Runner() as runner, contextlib.suppress(*passed):
        try:
            runner.run(main(url, interrupt))
        finally:
            sys.settrace(None)


at = 0
while True:
    at += 1
    strike = Interrupt(at)
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    run(sys.argv[1], strike)
    faulthandler.cancel_dump_traceback_later()
    if strike.left > 0:
        break  # the program came to its end before that line
print(at)
