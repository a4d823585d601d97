"""Canaries: they fail when aiosqlite or sqlite3 no longer are what `_private` builds on."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType

import aiosqlite
import aiosqlite.core
import aiosqlite.cursor

import jobu_db_sqlite
from jobu_db_sqlite import _private


def _calls_of(cls: type[object], module: ModuleType) -> dict[str, set[str]]:
    """What the public methods of a class use of `self`, by method."""
    tree = ast.parse(inspect.getsource(module))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__)
    return {
        method.name: {
            node.attr
            for node in ast.walk(method)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        }
        for method in body.body
        if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_every_public_method_reaches_the_thread_through_execute() -> None:
    ours = {"close", "stop", "interrupt"}  # overridden, or not for the thread
    uses = _calls_of(aiosqlite.Connection, aiosqlite.core)
    for name, attributes in uses.items():
        if not name.startswith("_") and name not in ours:
            assert "_tx" not in attributes, name
            assert attributes <= {"_conn", "_execute", "_execute_insert", "_execute_fetchall"}, name


def test_a_cursor_reaches_the_thread_through_its_connection() -> None:
    uses = _calls_of(aiosqlite.Cursor, aiosqlite.cursor)
    assert uses["__init__"] == {"iter_chunk_size", "_conn", "_cursor"}
    assert uses["_execute"] == {"_conn"}
    assert "conn._iter_chunk_size" in inspect.getsource(aiosqlite.Cursor.__init__)


def test_the_connection_has_the_attributes_that_we_replace() -> None:
    uses = _calls_of(aiosqlite.Connection, aiosqlite.core)
    assert {"_running", "_connection", "_tx", "_iter_chunk_size", "_thread"} <= uses["__init__"]
    assert uses["__del__"] == {"_connection", "stop"}


def test_busy_timeout_takes_effect_while_it_is_compiled_and_that_past_the_cache() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        raw.execute("BEGIN")
        for milliseconds in (7, 0, 7, 5000, 7):
            _private.set_busy_timeout(raw, milliseconds)
            # A text of its own each time: a cached statement would give the old answer.
            told = raw.execute(f"PRAGMA busy_timeout -- {object()}").fetchone()
            assert told == (milliseconds,)
        assert raw.in_transaction


async def test_private_parts_are_used_in_one_file_alone() -> None:
    package = Path(jobu_db_sqlite.__file__).parent
    private = {
        "_tx",
        "_thread",
        "_queue",
        "_connection",
        "_running",
        "_execute",
        "_conn",
        "_iter_chunk_size",
    }
    for file in package.glob("*.py"):
        tree = ast.parse(file.read_text())
        used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} & private
        if file.name != "_private.py":
            used.discard("_connection")  # a name that our own classes have as well
            assert not used, file.name


def test_a_thread_that_is_left_behind_does_not_keep_the_program() -> None:
    async def leave() -> _private.QueuedConnection:
        connection = _private.QueuedConnection()
        connection.start()
        return connection

    connection = asyncio.run(leave())
    assert connection._thread.daemon
    assert connection.has_thread
    connection.shut(lambda: None)
    connection._thread.join(10)
    assert not connection.has_thread


def test_the_event_loop_asks_sqlite_nothing_that_waits_for_a_running_statement() -> None:
    """SQLite 3.53 answers these under the connection's mutex, and Python waits holding the GIL."""
    waiting = {"in_transaction", "total_changes"}
    asked = [
        (path.name, function.name)
        for path in sorted(Path(jobu_db_sqlite.__file__).parent.glob("*.py"))
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and node.attr in waiting
        and ast.unparse(node.value).endswith("raw")
    ]
    in_the_thread = {
        ("statements.py", "execute_script"),
        ("thread.py", "_note"),
        ("thread.py", "_is_in_transaction"),
    }
    assert set(asked) == in_the_thread


def test_what_is_never_freed_has_a_reference_more() -> None:
    thing = object()
    before = sys.getrefcount(thing)
    _private.never_free(thing)
    assert sys.getrefcount(thing) == before + 1
