"""The commands on real servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from jobu_db.testing.proxy import TcpProxy


def configure(bare: Any, kind: str, url: str, **more: Any) -> None:
    bare.configure(json.dumps({"databases": {"main": {"type": kind, "url": url, **more}}}))


def with_parts(url: str, **parts: Any) -> str:
    """Return a URL with another password, port or database."""
    split = urlsplit(url)
    user, _, host = split.netloc.rpartition("@")
    login, _, password = user.partition(":")
    address, _, port = host.partition(":")
    netloc = f"{login}:{parts.get('password', password)}@{address}:{parts.get('port', port)}"
    return urlunsplit((split.scheme, netloc, parts.get("path", split.path), split.query, ""))


CREATE = {
    "postgres": "CREATE TABLE t (id INT PRIMARY KEY, n NUMERIC(5,2), at TIMESTAMP, b BYTEA, j XML)",
    "mysql": "CREATE TABLE t (id INT PRIMARY KEY, n DECIMAL(5,2), at DATETIME, b BLOB, j TEXT)",
}
BYTES = {"postgres": r"'\xAB'::bytea", "mysql": "x'AB'"}
PRODUCT = {"postgres": "PostgreSQL", "mysql": "MySQL|MariaDB"}


def all_commands(bare: Any, kind: str, url: str) -> None:
    """Try each command that connects."""
    configure(bare, kind, url)
    done = bare("ping")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"main +ok +({PRODUCT[kind]}) [\d.]+ +primary +no +[\d.,]+ ms", done.stdout)
    answer = json.loads(bare.inside("ping", "--json").stdout)["main"]
    assert re.fullmatch(PRODUCT[kind], answer["server"])
    assert (answer["role"], answer["tls"]) == ("primary", None)

    refused = bare.inside("sql", "main", CREATE[kind])
    assert refused.returncode == 1
    assert "--write" in refused.stderr
    assert bare.inside("sql", "main", CREATE[kind], "--write").returncode == 0
    insert = f"INSERT INTO t VALUES (1, 1.50, '2026-01-02 03:04:05', {BYTES[kind]}, NULL)"
    assert "1" in bare.inside("sql", "main", insert, "--write").stderr
    rows = json.loads(bare.inside("sql", "main", "SELECT * FROM t", "--format", "json").stdout)
    assert rows == [{"id": 1, "n": "1.50", "at": "2026-01-02T03:04:05", "b": "\\xab", "j": None}]
    table = bare.inside("sql", "main", "SELECT id, n FROM t ORDER BY id")
    assert re.search(r"id +n\s", table.stdout)
    assert re.search(r"1 +1\.50\s", table.stdout)
    assert bare.inside("sql", "main", "SELECT 1; SELECT 2").returncode == 2
    assert bare.inside("sql", "main", "SELECT 1; DROP TABLE t", "--write").returncode == 2
    wrong = bare.inside("sql", "main", "SELEC 1")
    assert (wrong.returncode, "SELEC" in wrong.stderr) == (1, True)

    assert "the backend's own SQL" in bare.inside("init", "main", "--builtin").stdout
    assert "0" in bare.inside("sql", "main", "SELECT count(*) AS n FROM cron_jobs").stdout


async def test_each_command_on_postgres(bare: Any, postgres_url: str) -> None:
    await asyncio.to_thread(all_commands, bare, "postgres", postgres_url)


async def test_each_command_on_mysql(bare: Any, mysql_url: str) -> None:
    await asyncio.to_thread(all_commands, bare, "mysql", mysql_url)


def wrong_ways_in(bare: Any, kind: str, url: str) -> None:
    """A wrong password and a wrong database are told in words, at once, whatever `--wait` says."""
    for other, expected in (({"password": "hunter2"}, "password|denied|authentication"),
                            ({"path": "/nowhere_db"}, "nowhere_db")):  # fmt: skip
        configure(bare, kind, with_parts(url, **other))
        done = bare("ping", "--wait", "300")
        assert done.returncode == 1
        assert re.search(expected, done.stderr, re.IGNORECASE), done.stderr
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr + done.stdout


async def test_wrong_ways_into_mysql(bare: Any, mysql_url: str) -> None:
    await asyncio.to_thread(wrong_ways_in, bare, "mysql", mysql_url)


async def test_a_postgres_database_that_is_not_there(bare: Any, postgres_url: str) -> None:
    configure(bare, "postgres", with_parts(postgres_url, path="/nowhere_db"))
    done = await asyncio.to_thread(bare, "ping", "--wait", "300")
    assert done.returncode == 1
    assert "nowhere_db" in done.stderr
    assert "Traceback" not in done.stderr


async def test_ping_waits_for_a_server_that_is_still_starting(bare: Any, postgres_url: str) -> None:
    split = urlsplit(postgres_url)
    proxy = TcpProxy(split.hostname or "127.0.0.1", split.port or 5432)
    async with proxy:
        port = proxy.port
    # Nobody listens there now.
    configure(bare, "postgres", with_parts(postgres_url, port=port))
    assert (await asyncio.to_thread(bare.inside, "ping")).returncode == 1
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from jobu_db.cli import main; main()", "ping", "--wait", "120",
        cwd=bare.folder, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    await asyncio.sleep(1)
    assert program.returncode is None

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(split.hostname, split.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    async with await asyncio.start_server(forward, "127.0.0.1", port):
        out, errors = await program.communicate()
    assert program.returncode == 0, errors
    assert b"ok" in out
