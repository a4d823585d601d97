"""What happens in pools and transactions, told to whoever listens, by pluggy.

A listener is any object or module with functions named below and marked with
`jobu_db.plugins.hookimpl`; it may take fewer arguments. Durations are in seconds. Parameters of
statements are never told. A listener that raises is logged and otherwise ignored: watching a
database must not break it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from time import monotonic
from typing import Any, TypeVar

import pluggy

T = TypeVar("T")
hookspec = pluggy.HookspecMarker("jobu_db")
logger = logging.getLogger("jobu_db")

NAMES = ("connect", "acquire", "release", "close", "statement", "transaction_end")


class EventSpecs:
    """The hooks."""

    @hookspec
    def jobu_db_connect(self, database: str, seconds: float, error: BaseException | None) -> None:
        """A connection was opened, or failed to."""

    @hookspec
    def jobu_db_acquire(self, database: str, seconds: float) -> None:
        """A connection was lent after waiting that long."""

    @hookspec
    def jobu_db_release(self, database: str, seconds: float) -> None:
        """A connection came back after being held that long."""

    @hookspec
    def jobu_db_close(self, database: str, reason: str) -> None:
        """A connection is being closed."""

    @hookspec
    def jobu_db_statement(
        self, database: str, statement: str, seconds: float, error: BaseException | None
    ) -> None:
        """A statement of the context or the database ended."""

    @hookspec
    def jobu_db_transaction_end(self, database: str, outcome: str, seconds: float) -> None:
        """An outermost transaction ended: "committed", "rolled back" or "unknown"."""


class Events:
    """Knows which hooks have listeners, so that nobody pays for the others."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("jobu_db")
        self._manager.add_hookspecs(EventSpecs)
        self._refresh()

    def register(self, listener: object) -> None:
        """Let a listener hear from now on; ValueError if it listens already."""
        self._manager.register(listener)
        self._refresh()

    def unregister(self, listener: object) -> None:
        """Let it hear no more."""
        self._manager.unregister(listener)
        self._refresh()

    async def observe_statement(self, database: str, sql: str, running: Awaitable[T]) -> T:
        """Await a statement, and tell of its end; its parameters are never told."""
        started = monotonic()
        failure: BaseException | None = None
        try:
            return await running
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = monotonic() - started
            self.tell("statement", database=database, statement=sql, seconds=seconds, error=failure)

    def tell(self, name: str, **what: Any) -> None:
        """Call the listeners of one hook."""
        try:
            getattr(self._manager.hook, f"jobu_db_{name}")(**what)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a CancelledError too: nobody was cancelled
            logger.exception("a listener of jobu_db_%s failed", name)

    def _refresh(self) -> None:
        hook = self._manager.hook
        heard = {name: bool(getattr(hook, f"jobu_db_{name}").get_hookimpls()) for name in NAMES}
        self.connect = heard["connect"]
        self.acquire = heard["acquire"]
        self.release = heard["release"]
        self.close = heard["close"]
        self.statement = heard["statement"]
        self.transaction_end = heard["transaction_end"]


events = Events()
"""The one place where listeners register."""
