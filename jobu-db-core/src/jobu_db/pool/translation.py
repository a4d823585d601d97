"""What an error means: the one place that asks a driver, and is prepared for a bug in it.

Invariant: an error that the driver cannot explain, or fails to explain, reaches the caller as it
is. Nothing that a backend does wrong takes its place.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from jobu_db.driver import Driver
from jobu_db.errors import DatabaseError
from jobu_db.logs import logger_of


class Translation:
    """Turns a driver's errors into those of this library.

    Args:
        name: Name of the database.
        driver: Who knows what its errors mean.
        values: Its errors keep their own text, in which values may stand.
    """

    __slots__ = ("_driver", "_name", "values")

    def __init__(self, name: str, driver: Driver[Any], *, values: bool = True) -> None:
        self._name = name
        self._driver = driver
        self.values = values

    def explain(self, error: BaseException, statement: str | None = None) -> DatabaseError | None:
        """Say what an error means, with database and statement filled in; None if unknown."""
        meaning = error if isinstance(error, DatabaseError) else self._ask(error)
        if meaning is not None:
            # What is filled in already comes from nearer by, such as the pool of another database.
            meaning.database = meaning.database or self._name
            meaning.statement = meaning.statement or statement
        return meaning

    def told(self, error: BaseException) -> str:
        """Return what a log may say of an error: the driver's own text may hold values."""
        meaning = self.explain(error)
        if meaning is None:
            return repr(error)
        code = "" if meaning.code is None else f" [{meaning.code}]"
        return f"{type(meaning).__name__}: {meaning.message}{code}"

    def translating(self, statement: str | None) -> Translating:
        """Return a context manager in which a driver's errors are raised as what they mean."""
        return Translating(self, statement)

    def _ask(self, error: BaseException) -> DatabaseError | None:
        try:
            return self._driver.translate(error)
        except Exception:
            logger_of(self._name).exception(
                "%s: the backend failed to translate an error", self._name
            )
            return None


class Translating:
    """`with translation.translating(sql):` around a call of the driver.

    The driver's error becomes the cause. An error that means itself or is unknown passes as it
    is, and so does a cancellation.
    """

    # A class, not a generator under `contextmanager`: it is on the path of every statement.
    __slots__ = ("_statement", "_translation")

    def __init__(self, translation: Translation, statement: str | None) -> None:
        self._translation = translation
        self._statement = statement

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            meaning = self._translation.explain(error, self._statement)
            if meaning is not None and meaning is not error:
                if not self._translation.values:
                    _retell(error, str(meaning))
                raise meaning from error


def _retell(error: Exception, shown: str) -> None:
    """Leave nothing of a driver's error but its class, its number, and what may be shown of it."""
    number = [part for part in error.args[:1] if isinstance(part, int)]
    error.args = (*number, shown)
    # Drivers keep the server's detail and hint, and the SQL, in attributes. Numbers stay.
    for name, value in vars(error).items():
        if not isinstance(value, int):
            setattr(error, name, None)
    if isinstance(error, UnicodeEncodeError):  # tells what is in here, whatever its `args`
        error.object = ""
    error.__cause__ = error.__context__ = None
