"""The pool's I/O on one connection: open, check, reset, close. Each is limited in time."""

from __future__ import annotations

import asyncio
import logging
from typing import Generic, TypeVar

from jobu_db.driver import Driver
from jobu_db.errors import ConnectionFailedError
from jobu_db.settings import PoolConfig

C = TypeVar("C")
logger = logging.getLogger("jobu_db")

PING_LIMIT = 1.0
"""Seconds: a black-holed connection must not eat its waiter's deadline."""


class ConnectionWork(Generic[C]):
    """Does what the pool was told to do, and knows nothing of the pool."""

    def __init__(self, name: str, driver: Driver[C], config: PoolConfig) -> None:
        self._name = name
        self._driver = driver
        self._config = config

    async def open(self) -> C:
        """Connect and set up.

        Raises:
            ConnectionFailedError: Whatever went wrong; the cause is attached.
        """
        limit = self._config.timeout
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
                self._driver.terminate(connection)
                raise
        return connection

    def _explained(self, error: Exception) -> ConnectionFailedError:
        meaning = self._driver.translate(error)
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
        try:
            async with asyncio.timeout(min(PING_LIMIT, self._config.cleanup_timeout)):
                await self._driver.ping(connection)
        except Exception as error:
            logger.info("%s: an idle connection did not answer: %s", self._name, error)
            return False
        return self._driver.is_alive(connection)

    async def reset(self, connection: C, *, interrupted: bool) -> bool:
        """Make the connection fit for the next holder; say whether it is."""
        driver = self._driver
        try:
            async with asyncio.timeout(self._config.cleanup_timeout):
                if interrupted:
                    await driver.abort(connection)
                if driver.in_transaction(connection):
                    await driver.rollback(connection)
                if self._config.reset == "always" and driver.needs_reset(connection):
                    await driver.reset(connection)
        except Exception as error:
            logger.info("%s: a connection could not be reset: %s", self._name, error)
            return False
        return driver.is_alive(connection)

    async def close(self, connection: C, *, interrupted: bool) -> None:
        """Close politely, or at once if that takes too long. Never raises but a cancellation."""
        try:
            async with asyncio.timeout(self._config.cleanup_timeout):
                if interrupted:  # a statement must not run on, even though nobody wants the rest
                    await self._driver.abort(connection)
                await self._driver.close(connection)
        except Exception as error:
            logger.info("%s: a connection was closed the hard way: %s", self._name, error)
            self._driver.terminate(connection)
        except BaseException:
            self._driver.terminate(connection)
            raise
