"""What a client is told when a database refuses or fails: a status, never the database's words."""

import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from jobu_db import (
    CommitOutcomeUnknownError,
    ConnectionFailedError,
    ConnectionPoolExhaustedError,
    DatabaseError,
    DataError,
    IntegrityError,
    PartialCommitError,
    PoolClosedError,
    QueryTimeoutError,
    UniqueViolationError,
)
from shop.orders import KeyTakenError

log = logging.getLogger(__name__)


def status_of(error: DatabaseError) -> tuple[int, str]:
    """Return the HTTP status of an error and what the client is told."""
    match error:
        case UniqueViolationError():
            return 409, "it exists already"
        case IntegrityError() | DataError():
            return 422, "a value is not allowed"
        case PartialCommitError() | CommitOutcomeUnknownError():
            return 503, "it may have been done: ask again, with the same key"
        case ConnectionPoolExhaustedError() | ConnectionFailedError() | PoolClosedError():
            return 503, "too busy just now: nothing was done"
        case QueryTimeoutError():
            return 504, "it took too long"
        case DatabaseError(retryable=True):
            return 503, "it did not succeed: nothing was done"
        case _:
            return 500, "something is wrong here"


async def database_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a request during which a database refused or failed."""
    assert isinstance(error, DatabaseError)
    status, told = status_of(error)
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    body = {"detail": told, "constraint": error.constraint}
    return JSONResponse(body, status, {"Retry-After": "1"} if status == 503 else None)


async def key_taken(request: Request, error: Exception) -> JSONResponse:
    """Answer a request whose key belongs to another order."""
    return JSONResponse({"detail": "this key belongs to another order"}, 409)


def install(app: FastAPI) -> None:
    """Have an application answer in these words."""
    app.add_exception_handler(DatabaseError, database_error)
    app.add_exception_handler(KeyTakenError, key_taken)
