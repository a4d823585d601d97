"""What happens in pools and transactions, told to listeners, by pluggy.

A listener is any object or module with functions named below and marked with
`jobu_db.plugins.hookimpl`; it may take fewer arguments. Durations are in seconds. Parameters of
statements are never told. A listener that raises is logged and otherwise ignored: watching a
database must not break it.

`database` is the database's name, which is its pool's too; `driver` is its driver, whose
`attributes` say where it is. `transaction` stands for one outermost transaction in all events that
belong to it.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from typing import Any

import pluggy

from jobu_db.driver import Driver
from jobu_db.placeholders import Dialect

hookspec = pluggy.HookspecMarker("jobu_db")
logger = logging.getLogger("jobu_db")

NAMES = (
    *("connect", "acquire", "release", "close"),
    *("statement", "transaction_begin", "transaction_end", "host_changed"),
)


class EventSpecs:
    """The hooks."""

    @hookspec
    def jobu_db_connect(
        self, database: str, driver: Driver[Any], seconds: float, error: BaseException | None
    ) -> None:
        """A connection was opened, or failed to."""

    @hookspec
    def jobu_db_acquire(self, database: str, driver: Driver[Any], seconds: float) -> None:
        """A connection was lent after waiting that long."""

    @hookspec
    def jobu_db_release(self, database: str, driver: Driver[Any], seconds: float) -> None:
        """A connection came back after being held that long."""

    @hookspec
    def jobu_db_close(self, database: str, driver: Driver[Any], reason: str) -> None:
        """A connection is being closed."""

    @hookspec
    def jobu_db_statement(
        self,
        database: str,
        driver: Driver[Any],
        statement: str,
        seconds: float,
        error: BaseException | None,
        operation: str,
        batch_size: int | None,
        dialect: Dialect | None,
        transaction: object | None,
    ) -> None:
        """A statement of the context or the database ended; `seconds` include what it waited.

        `operation` is "execute", "executemany", "fetch_one", …; `batch_size` is the number of
        rows given to executemany, where it is known; `dialect` is how the session reads quotes,
        None if it was not sent or that is not known.
        """

    @hookspec
    def jobu_db_transaction_begin(
        self, database: str, driver: Driver[Any], transaction: object, readonly: bool
    ) -> None:
        """An outermost transaction began, in the task that called."""

    @hookspec
    def jobu_db_transaction_end(
        self,
        database: str,
        driver: Driver[Any],
        outcome: str,
        seconds: float,
        transaction: object,
        error: BaseException | None,
    ) -> None:
        """An outermost transaction ended: "committed", "rolled back" or "outcome unknown".

        `error` is why it could not be committed, None if it was not to be.
        """

    @hookspec
    def jobu_db_host_changed(
        self, database: str, driver: Driver[Any], host: str, role: str | None, before: str | None
    ) -> None:
        """A server of a database with several has another role than before.

        `host` is its address; a role is "primary", "standby" or "read-only", None where it does
        not answer or has left its cluster.
        """


class Events:
    """Knows which hooks have listeners, so that the others cost nothing."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("jobu_db")
        self._manager.add_hookspecs(EventSpecs)
        self._refresh()

    def register(self, listener: object) -> None:
        """Let a listener hear from now on.

        Args:
            listener: An object or module with functions named `jobu_db_...`, marked `@hookimpl`.

        Raises:
            ValueError: It listens already.
            TypeError: One of its functions is not marked, is misspelt, is `async def` or takes an
                argument that the event does not have, or it has none.
        """
        self._check(listener)
        try:
            self._manager.register(listener)
        except pluggy.PluginValidationError as error:
            raise TypeError(f"{listener!r}: {error}") from error
        self._refresh()

    def _check(self, listener: object) -> None:
        # pluggy leaves out functions without the mark, and keeps marked ones of unknown names,
        # without a word: the listener would hear nothing, and that would be noticed by what is
        # missing.
        known = [f"jobu_db_{name}" for name in NAMES]
        found = [name for name in dir(listener) if name.startswith("jobu_db_")]
        for name in found:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
                raise TypeError(f"{listener!r} listens to {name}, which is no event{hint}")
            if self._manager.parse_hookimpl_opts(listener, name) is None:
                raise TypeError(f"{listener!r}: mark {name} with @jobu_db.plugins.hookimpl")
            if inspect.iscoroutinefunction(getattr(listener, name)):
                raise TypeError(f"{listener!r}: {name} is called, not awaited: write it with def")
        if not found:
            raise TypeError(f"{listener!r} listens to nothing; there are {', '.join(known)}")

    def unregister(self, listener: object) -> None:
        """Let it hear no more."""
        self._manager.unregister(listener)
        self._refresh()

    def tell(self, name: str, **what: Any) -> None:
        """Call the listeners of one hook."""
        try:
            getattr(self._manager.hook, f"jobu_db_{name}")(**what)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a CancelledError too: its own, not this task's
            logger.exception("a listener of jobu_db_%s failed", name)

    def _refresh(self) -> None:
        hook = self._manager.hook
        heard = {name: bool(getattr(hook, f"jobu_db_{name}").get_hookimpls()) for name in NAMES}
        # Attributes, and one each: they are looked at for every statement, and a look is to cost
        # less than a call.
        self.connect = heard["connect"]
        self.acquire = heard["acquire"]
        self.release = heard["release"]
        self.close = heard["close"]
        self.statement = heard["statement"]
        self.transaction_begin = heard["transaction_begin"]
        self.transaction_end = heard["transaction_end"]
        self.host_changed = heard["host_changed"]


events = Events()
"""The one place where listeners register."""

register, unregister = events.register, events.unregister
