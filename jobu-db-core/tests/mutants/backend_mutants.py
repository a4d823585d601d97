"""Bugs to seed into a backend, the template: what its writer may get wrong."""

from __future__ import annotations

from mutant import Mutant

FILE = "__init__.py"


IN_TRANSACTION = "        return not connection.closed and connection.in_transaction\n"
RUN_EXECUTE = "lambda: connection.execute(sql, parameters or ()).rowcount"

MUTANTS = [
    Mutant(
        "a rollback that does nothing",
        FILE,
        IN_TRANSACTION,
        f"{IN_TRANSACTION}\n"
        "    async def rollback(self, connection: Connection) -> None:\n"
        "        return\n",
    ),
    Mutant("a reset that forgets", FILE, "if connection.touched:", "if False:"),
    Mutant(
        "a reset that leaves read-only on",
        FILE,
        "        self.autocommit(connection, readonly=False)\n",
        "",
    ),
    Mutant(
        "a swallowed cancellation",
        FILE,
        "        return await asyncio.wrap_future(self.call)\n",
        "        try:\n"
        "            return await asyncio.wrap_future(self.call)\n"
        "        except asyncio.CancelledError:\n"
        "            return None\n",
    ),
    Mutant(
        "a cancelled call runs on",
        FILE,
        "        while not connection.call.done():\n",
        "        while False:\n",
    ),
    Mutant("rows as tuples", FILE, "        made.row_factory = sqlite3.Row\n", ""),
    Mutant(
        "errors untranslated",
        FILE,
        "return None if meaning is None else meaning(text, code=code)",
        "return None",
    ),
    Mutant(
        "every error alike",
        FILE,
        "meaning = next(found, unknown)",
        "meaning = unknown",
    ),
    Mutant(
        "a stranger's exception translated",
        FILE,
        "errors.QueryExecutionError if isinstance(error, sqlite3.Error) else None",
        "errors.QueryExecutionError",
    ),
    Mutant(
        "savepoints ignored",
        FILE,
        IN_TRANSACTION,
        f"{IN_TRANSACTION}\n"
        "    async def savepoint(self, connection: Any, name: str, *, readonly: bool) -> None:\n"
        "        return\n\n"
        "    release_savepoint = rollback_to_savepoint = savepoint\n",
    ),
    Mutant(
        "read-only not enforced",
        FILE,
        "        self.autocommit(connection, readonly=mode.readonly)\n",
        "",
    ),
    Mutant(
        "a wrong number of rows", FILE, RUN_EXECUTE, RUN_EXECUTE.replace("rowcount", "arraysize")
    ),
    Mutant(
        "iterate reads everything first",
        FILE,
        "connection, rows, batch\n\n    async def fetch(self) -> Any:\n        return await "
        "self._connection.run(self._rows.fetchmany, self._batch)\n",
        "connection, rows, batch\n        self._all = rows.fetchall()\n\n"
        "    async def fetch(self) -> Any:\n"
        "        rows, self._all = self._all[: self._batch], self._all[self._batch :]\n"
        "        return rows\n",
    ),
    Mutant(
        "iterate ignores its batch",
        FILE,
        "self._rows.fetchmany, self._batch",
        "self._rows.fetchall",
    ),
    Mutant(
        "a cursor that is never closed",
        FILE,
        "        self._rows.close()\n",
        "        self._connection.left = [*getattr(self._connection, 'left', ()), self._rows]\n",
    ),
    Mutant("in_transaction is always true", FILE, IN_TRANSACTION, "        return True\n"),
    Mutant("in_transaction is always false", FILE, IN_TRANSACTION, "        return False\n"),
    Mutant(
        "a close that leaves the session open",
        FILE,
        "            connection.call.add_done_callback(lambda _: connection.close())\n",
        "",
    ),
    Mutant(
        "a commit that hides its failure",
        FILE,
        IN_TRANSACTION,
        f"{IN_TRANSACTION}\n"
        "    async def commit(self, connection: Connection, *, reset: bool) -> bool:\n"
        "        try:\n"
        '            await self.execute(connection, "COMMIT", None)\n'
        "        except sqlite3.Error:\n"
        "            await self.rollback(connection)\n"
        "        return False\n",
    ),
    Mutant(
        "a commit that claims to have reset",
        FILE,
        IN_TRANSACTION,
        f"{IN_TRANSACTION}\n"
        "    async def commit(self, connection: Connection, *, reset: bool) -> bool:\n"
        '        await self.execute(connection, "COMMIT", None)\n'
        "        return True\n",
    ),
    Mutant(
        "a ping that always succeeds",
        FILE,
        IN_TRANSACTION,
        f"{IN_TRANSACTION}\n"
        "    async def ping(self, connection: Connection) -> None:\n"
        "        return\n",
    ),
    Mutant(
        "a dead connection counts as alive",
        FILE,
        "        return not connection.closed\n",
        "        return True\n",
    ),
    Mutant(
        "a feature declared that is not there",
        FILE,
        '        nested_readonly=unsupported("this example leaves it out"),\n',
        "",
    ),
    Mutant(
        "a feature denied that is there",
        FILE,
        '        sessions=unsupported("SQLite runs inside the program"),\n',
        '        sessions=unsupported("SQLite runs inside the program"),\n'
        '        returning=unsupported("not looked for"),\n',
    ),
]
