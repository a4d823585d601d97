"""The pool's work on one connection: open, check, reset, close. I/O is limited in time.

Invariant: whatever the driver raises, also where it must not, costs the connection and no more:
it is a failed attempt, a dead connection, or one that is not clean, and the pool goes on.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Generic, TypeVar

from jobu_db._aio.timeouts import TimeLimits
from jobu_db.driver import Driver
from jobu_db.errors import ConnectionFailedError
from jobu_db.logs import logger_of
from jobu_db.pool.slots import COMMIT, Ending
from jobu_db.pool.stats import PoolStats
from jobu_db.pool.translation import Translation
from jobu_db.settings.models import PoolConfig

C = TypeVar("C")


class Maintenance(Generic[C]):
    """Does what the pool was told to do, and knows nothing of the pool."""

    def __init__(
        self,
        name: str,
        driver: Driver[C],
        config: PoolConfig,
        time_limits: TimeLimits,
        translation: Translation,
        stats: PoolStats,
    ) -> None:
        self._stats = stats
        self._name = name
        self._driver = driver
        self._config = config
        self._time_limits = time_limits
        self._translation = translation
        self._told = translation.told
        self._always_reset = config.reset == "always"

    async def open(self) -> C:
        """Connect and set up.

        Raises:
            ConnectionFailedError: Whatever went wrong; the cause is attached.
        """
        # Each of several hosts has its own time; one of them may be silent all of it.
        limit = self._config.timeout * max(1, len(self._driver.host_figures()))
        try:
            async with asyncio.timeout(limit) as deadline:
                return await self._connect()
        except TimeoutError as error:
            if not deadline.expired():  # the driver's own, or the system's
                raise self._explained(error) from error
            raise self._failed(f"no answer within {limit:g} s", transient=True) from error
        except ConnectionFailedError as error:
            error.database = error.database or self._name
            raise
        except Exception as error:
            raise self._explained(error) from error

    async def _connect(self) -> C:
        connection = await self._driver.connect()
        if self._config.on_connect is not None:
            try:
                await self._config.on_connect(connection)
            except BaseException:
                # Also if cancelled: nobody else knows this connection yet.
                self.terminate(connection)
                raise
        if not self.is_alive(connection):  # else it would be opened again and again, at full speed
            self.terminate(connection)
            raise ConnectionFailedError(
                "the connection was lost as soon as it was opened", transient=True
            )
        return connection

    def _explained(self, error: Exception) -> ConnectionFailedError:
        meaning = self._translation.explain(error)
        transient = isinstance(meaning, ConnectionFailedError) and meaning.transient
        message = meaning.message if meaning else f"{type(error).__name__}: {error}"
        return self._failed(message, transient=transient, code=meaning.code if meaning else None)

    def _failed(
        self, message: str, *, transient: bool, code: str | None = None
    ) -> ConnectionFailedError:
        return ConnectionFailedError(
            f"cannot connect: {message}", transient=transient, database=self._name, code=code
        )

    async def check(self, connection: C) -> bool:
        """Say whether the connection answers."""
        limit = self._config.check_timeout  # else silence would use up its waiter's time
        try:
            await self._time_limits.within(limit, self._driver.ping(connection))
        except Exception as error:
            logger_of(self._name).info(
                "%s: an idle connection did not answer: %s", self._name, self._told(error)
            )
            return False
        return self.is_alive(connection)

    async def reset(
        self,
        connection: C,
        *,
        interrupted: bool = False,
        always: bool = False,
        ends: Ending | None = None,
    ) -> bool:
        """Make the connection fit for the next holder; say whether it is.

        With `always`, what was set is undone even if the settings say never. A transaction that
        is open ends as `ends` says, or is rolled back.

        Where the driver is `taskless`, and nothing was interrupted, `undo` costs less.
        """
        limit = self._config.cleanup_timeout
        undoing = self.undo(connection, interrupted=interrupted, always=always, ends=ends)
        try:
            await self._time_limits.within(limit, undoing)
        except Exception as error:
            self.tell_unclean(error)
            return False
        return self.is_alive(connection)

    def tell_unclean(self, error: Exception) -> None:
        """A connection could not be reset."""
        logger_of(self._name).info(
            "%s: a connection could not be reset: %s", self._name, self._told(error)
        )

    async def undo(
        self,
        connection: C,
        *,
        interrupted: bool = False,
        always: bool = False,
        ends: Ending | None = None,
    ) -> None:
        """Do what `reset` does, without its limit in time; raises whatever the driver raises.

        One coroutine, for each that is awaited costs every transaction something.
        """
        # In this order: nothing can be sent while a cancelled call runs, and a reset inside a
        # transaction fails or does nothing on some servers. The driver is asked each time, for any
        # of these may have ended the transaction.
        driver, clean = self._driver, not (self._always_reset or always)
        if interrupted:
            await driver.abort(connection)
        if ends is not None and driver.in_transaction(connection):
            end = driver.commit if ends is COMMIT else driver.rollback
            try:
                clean |= await end(connection, reset=not clean)
            except BaseException as error:
                self.end_failed(error)
                if not (isinstance(error, Exception) and self.is_alive(connection)):
                    raise
        if driver.in_transaction(connection):  # or still is, after an end that failed
            clean |= await driver.rollback(connection, reset=not clean)
        if not clean and driver.needs_reset(connection):
            await driver.reset(connection)

    def end_failed(self, error: BaseException) -> None:
        """Count and tell that a transaction could not be ended for whose end nobody waits."""
        self._stats.ends_failed += 1
        logger_of(self._name).warning(
            "%s: ending a read-only transaction in the background failed: %s",
            self._name,
            self._told(error),
        )

    async def close(self, connection: C, *, interrupted_at: float | None) -> None:
        """Close gracefully, or at once if that takes too long. Never raises but a cancellation.

        Where a call was interrupted, time runs since then: its holder may have tried to stop it.
        """
        limit = self._config.cleanup_timeout
        if interrupted_at is not None:
            limit = max(0.0, interrupted_at + limit - monotonic())
        closing = self._close_gracefully(connection, interrupted=interrupted_at is not None)
        try:
            await self._time_limits.within(limit, closing)
        except Exception as error:
            logger_of(self._name).info(
                "%s: a connection was terminated: %s", self._name, self._told(error)
            )
            self.terminate(connection)
        except BaseException:
            self.terminate(connection)
            raise

    async def _close_gracefully(self, connection: C, *, interrupted: bool) -> None:
        if interrupted:  # a statement must not run on, even though its rest is not wanted
            await self._driver.abort(connection)
        await self._driver.close(connection)

    def terminate(self, connection: C) -> None:
        """Close at once. Never raises."""
        try:
            self._driver.terminate(connection)
        except Exception:
            logger_of(self._name).exception("%s: a connection could not be closed", self._name)

    def is_alive(self, connection: C) -> bool:
        """Say whether the connection is not known to be dead. Never raises."""
        try:
            return self._driver.is_alive(connection)
        except Exception:
            logger_of(self._name).exception("%s: is_alive() failed", self._name)
            return False

    def in_transaction(self, connection: C) -> bool:
        """Say whether a transaction is open, as far as is known. Never raises."""
        try:
            return self._driver.in_transaction(connection)
        except Exception:  # the reset will meet it again, tell it, and have the connection closed
            return True

    def may_owe_end(self, connection: C) -> bool:
        """Say whether its end can be owed. Never raises."""
        try:
            return self._driver.may_owe_end(connection)
        except Exception:  # as above
            return False

    def needs_reset(self, connection: C) -> bool:
        """Say whether a holder may have left something behind. Never raises."""
        try:
            return self._always_reset and self._driver.needs_reset(connection)
        except Exception:  # as above
            return True
