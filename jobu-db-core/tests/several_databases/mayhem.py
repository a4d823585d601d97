"""Servers are killed, stopped and cut off at random, and made whole again."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from jobu_db.testing.proxy import TcpProxy
from jobu_db.testing.servers import Control

Harm = Callable[[], Awaitable[None]]


class Mayhem:
    """One fault after another, as a seed has it, until the block is left.

    Attributes:
        name: Of the database that is harmed.
        done: How often each fault was done.
        whole: Waited for ahead of each fault: a test may want to see work done between two.
    """

    def __init__(self, name: str, seed: str) -> None:
        self.name = name
        self.done: Counter[str] = Counter()
        self.whole: Callable[[], Awaitable[object]] | None = None
        self._chance = random.Random(f"{seed} {name}")

    def harms(self) -> list[Harm]:
        """What may be done; each ends with everything whole again."""
        raise NotImplementedError

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(self._go_on(stop))
        try:
            yield
        finally:
            stop.set()
            await task  # not cancelled: what it has broken, it mends

    async def _go_on(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.a_while(0.1, 1.5)
            if self.whole is not None:
                await self.whole()
            harm = self._chance.choice(self.harms())
            self.done[f"{self.name} {harm.__name__.strip('_')}"] += 1
            await harm()

    async def a_while(self, shortest: float, longest: float) -> None:
        await asyncio.sleep(self._chance.uniform(shortest, longest))


class ServerMayhem(Mayhem):
    """What happens to a server and the network before it."""

    def __init__(self, name: str, seed: str, proxy: TcpProxy, control: Control) -> None:
        super().__init__(name, seed)
        self._proxy = proxy
        self._control = control

    def harms(self) -> list[Harm]:
        at_commit = [self._lost_commit, self._lost_answer, self._silent_commit]
        return [self._killed, self._paused, self._cut, self._silent, self._refusing, *at_commit]

    async def _killed(self) -> None:
        await asyncio.to_thread(self._control.kill)
        await self.a_while(0.0, 0.5)
        await asyncio.to_thread(self._control.start)

    async def _paused(self) -> None:
        await asyncio.to_thread(self._control.pause)
        await self.a_while(0.1, 2.5)
        await asyncio.to_thread(self._control.resume)

    async def _cut(self) -> None:
        self._proxy.cut()

    async def _silent(self) -> None:
        self._proxy.stall()
        await self.a_while(0.1, 2.5)
        if self._chance.random() < 0.5:
            self._proxy.cut()
        self._proxy.resume()

    async def _refusing(self) -> None:
        await self._proxy.refuse()
        self._proxy.cut()
        await self.a_while(0.1, 1.0)
        await self._proxy.accept()

    async def _lost_commit(self) -> None:
        self._proxy.cut_at(b"COMMIT", answered=False)

    async def _lost_answer(self) -> None:
        self._proxy.cut_at(b"COMMIT", answered=True)

    async def _silent_commit(self) -> None:
        self._proxy.stall_at(b"COMMIT", answered=self._chance.random() < 0.5)
        await self.a_while(0.5, 2.5)
        self._proxy.disarm()
        self._proxy.resume()


class FileMayhem(Mayhem):
    """What another program does to a SQLite file: it reads, or writes, for too long."""

    def __init__(self, name: str, seed: str, file: Path) -> None:
        super().__init__(name, seed)
        self._file = file

    def harms(self) -> list[Harm]:
        return [self._read, self._locked]

    async def _read(self) -> None:
        """Nobody can commit meanwhile, with the journal that is deleted."""
        await self._hold("BEGIN", "SELECT count(*) FROM accounts")

    async def _locked(self) -> None:
        await self._hold("BEGIN IMMEDIATE")

    async def _hold(self, *statements: str) -> None:
        stranger = sqlite3.connect(self._file, isolation_level=None, timeout=0.01)
        try:
            for statement in statements:
                stranger.execute(statement).fetchall()
        except sqlite3.OperationalError:
            pass  # one of ours writes just now
        else:
            await self.a_while(0.1, 0.8)
        finally:
            stranger.close()
