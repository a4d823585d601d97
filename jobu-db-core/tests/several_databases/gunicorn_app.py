"""An application that opens its database where it must not: when it is imported.

With gunicorn's `preload_app` that is in the master, which forks the workers. It is gunicorn's
configuration, too: at its end, the master commits what it had begun.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from jobu_db import DatabaseError
from jobu_db.plugins import database_class

preload_app = True
workers = 2
wsgi_app = "gunicorn_app:app"
bind = os.environ["JOBU_APP_BIND"]
control_socket_disable = True

TYPE, SETTINGS = json.loads(os.environ["JOBU_APP_DATABASE"])
INSERT = "INSERT INTO requests VALUES (:id)"
IDS = "SELECT id FROM requests ORDER BY id"


async def open_database() -> Any:
    return await database_class(TYPE).create("main", SETTINGS)


async def inherited(row: int) -> str:
    """Use what the master opened."""
    await db.execute(INSERT, {"id": row})
    return "written"


async def suspended(row: int) -> str:
    """Use the transaction that the master has open."""
    await ctx.execute(INSERT, {"id": row})
    return "written"


async def own(row: int) -> str:
    """Open a database in the worker, as should be done."""
    database = await open_database()
    try:
        await database.execute(INSERT, {"id": row})
        return "written"
    finally:
        await database.close()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer `/FUNCTION/ID` with what the function returned or raised, and by which process."""
    _, function, row = environ["PATH_INFO"].split("/")
    work = {"inherited": inherited, "suspended": suspended, "own": own}[function]
    try:
        told = asyncio.run(work(int(row)))
    except DatabaseError as error:
        told = f"{type(error).__name__}: {error}"
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([os.getpid(), told]).encode()]


def on_exit(_: Any) -> None:
    """Called in the master, once its workers have ended."""
    loop.run_until_complete(ctx.execute(INSERT, {"id": 2}))
    loop.run_until_complete(block.__aexit__(None, None, None))
    rows = loop.run_until_complete(db.fetch_all(IDS))
    loop.run_until_complete(db.close())
    print(json.dumps([row["id"] for row in rows]), flush=True)


loop = asyncio.new_event_loop()
db = loop.run_until_complete(open_database())
loop.run_until_complete(db.execute("CREATE TABLE requests (id int PRIMARY KEY)"))
block = db.transaction()
ctx = loop.run_until_complete(block.__aenter__())
loop.run_until_complete(ctx.execute(INSERT, {"id": 1}))
