"""Encryption, against a server with a certificate authority made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from jobu_db import ConfigurationError, ConnectionFailedError
from jobu_db.testing.servers import Server

pytestmark = pytest.mark.one_server

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"

HBA = """
local   all all trust
hostssl all certified 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 scram-sha-256
host    all plain 127.0.0.1/32 trust
"""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def folder(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a client: the authority, a stranger, and a certificate of its own."""
    folder = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "stranger.pem"))
    client = authority.issue_cert("client@example.com", common_name="certified")
    client.cert_chain_pems[0].write_to_path(str(folder / "client.pem"))
    client.private_key_pem.write_to_path(str(folder / "client.key"))
    client.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    return folder


Start = Callable[..., Server]


@pytest.fixture
def start(start_postgres: Start, authority: trustme.CA) -> Callable[[str], Server]:
    def start(name: str) -> Server:
        certificate = authority.issue_cert(name)
        return start_postgres(
            settings={
                "ssl": "on",
                "ssl_cert_file": "../server.pem",
                "ssl_key_file": "../server.key",
                "ssl_ca_file": "../ca.pem",
                "hba_file": "../hba.conf",
            },
            files={
                "server.pem": certificate.cert_chain_pems[0].bytes().decode(),
                "server.key": certificate.private_key_pem.bytes().decode(),
                "ca.pem": authority.cert_pem.bytes().decode(),
                "hba.conf": HBA,
            },
        )

    return start


async def encrypted(open_db: Any, server: Server, ssl: Any, **settings: Any) -> bool:
    db = await open_db(url=server.url, ssl=ssl, **settings)
    return await db.fetch_val(ENCRYPTED)


async def test_a_driver_tells_protocol_and_cipher(
    start: Callable[[str], Server], open_db: Any
) -> None:
    db = await open_db(url=start("127.0.0.1").url, ssl="require")
    async with db.pool.connection() as lease:
        told = await db.driver.describe(lease.connection)
    used = await db.fetch_one(
        "SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    )
    assert told.tls == f"{used['version']} {used['cipher']}"


async def test_every_mode_trusts_what_it_says(
    start: Callable[[str], Server], open_db: Any, folder: Path
) -> None:
    server = start("127.0.0.1")
    ca, stranger = str(folder / "ca.pem"), str(folder / "stranger.pem")
    assert await encrypted(open_db, server, "require")
    assert await encrypted(open_db, server, {"mode": "verify-ca", "ca": ca})
    assert await encrypted(open_db, server, {"mode": "verify-full", "ca": ca})
    refused: list[tuple[Any, str]] = [
        ("off", "no encryption"),
        ("verify-full", "certificate verify failed"),
        ({"mode": "verify-ca", "ca": stranger}, "certificate verify failed"),
        ({"mode": "verify-full", "ca": stranger}, "certificate verify failed"),
    ]
    for ssl, why in refused:
        with pytest.raises(ConnectionFailedError, match=why) as caught:
            await encrypted(open_db, server, ssl)
        assert not caught.value.transient


async def test_only_verify_full_minds_the_host_name(
    start: Callable[[str], Server], open_db: Any, folder: Path
) -> None:
    server, ca = start("another.example"), str(folder / "ca.pem")
    assert await encrypted(open_db, server, {"mode": "verify-ca", "ca": ca})
    with pytest.raises(ConnectionFailedError, match="certificate is not valid for") as caught:
        await encrypted(open_db, server, {"mode": "verify-full", "ca": ca})
    assert not caught.value.transient


async def test_a_client_certificate_logs_in(
    start: Callable[[str], Server], open_db: Any, folder: Path
) -> None:
    server = start("127.0.0.1")
    admin = await open_db("admin", url=server.url, ssl="require")
    await admin.execute("CREATE ROLE certified LOGIN")
    parts = urlsplit(server.url)
    where = {
        "url": None,
        "host": parts.hostname,
        "port": parts.port,
        "user": "certified",
        "database": "postgres",
    }
    ssl = {"mode": "verify-full", "ca": str(folder / "ca.pem")}
    pair = {"cert": str(folder / "client.pem"), "key": str(folder / "client.key")}
    for certificate in (pair, {"cert": str(folder / "both.pem")}):
        db = await open_db(**where, ssl={**ssl, **certificate})
        assert await db.fetch_val("SELECT current_user") == "certified"
    with pytest.raises(ConnectionFailedError) as caught:
        await open_db(**where, ssl=ssl)
    assert not caught.value.transient


async def test_encryption_is_never_given_up_silently(start_postgres: Start, open_db: Any) -> None:
    server = start_postgres(settings={"ssl": "off"})
    with pytest.raises(ConnectionFailedError, match="rejected SSL upgrade") as caught:
        await encrypted(open_db, server, "require")
    assert not caught.value.transient
    assert await encrypted(open_db, server, "off") is False


async def test_a_certificate_that_cannot_be_read_names_its_setting(
    open_db: Any, postgres_server: Server, tmp_path: Path
) -> None:
    with pytest.raises(ConnectionFailedError, match=r"ssl\.ca") as caught:
        await encrypted(
            open_db, postgres_server, {"mode": "verify-full", "ca": str(tmp_path / "missing.pem")}
        )
    assert isinstance(caught.value.__cause__, ConfigurationError)


async def test_cancelling_a_statement_works_on_an_encrypted_connection(
    start: Callable[[str], Server], open_db: Any
) -> None:
    db = await open_db(url=start("127.0.0.1").url, ssl="require", pool={"max_size": 1})
    async with db.transaction() as ctx:
        pid = await ctx.fetch_val("SELECT pg_backend_pid()")
    with pytest.raises(Exception, match="timeout"):
        async with db.transaction(timeout=0.1) as ctx:
            await ctx.fetch_val("SELECT pg_sleep(20)")
    assert await db.fetch_val("SELECT pg_backend_pid()") == pid


@pytest.mark.each_loop
async def test_a_transaction_begins_with_its_first_statement(
    start: Callable[[str], Server], open_db: Any
) -> None:
    db = await open_db(url=start("127.0.0.1").url, ssl="require", pool={"max_size": 1})
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as ctx:
                assert await ctx.connection.fetchval(ENCRYPTED)
                await ctx.execute("CREATE TABLE t (i int)")
                raise ZeroDivisionError
        async with db.transaction() as ctx:
            await ctx.execute("CREATE TABLE IF NOT EXISTS kept (b bytea)")
            await ctx.execute("INSERT INTO kept VALUES ($1)", b"x" * 200_000)
    assert await db.fetch_val("SELECT sum(length(b)) FROM kept") == 400_000
    assert await db.fetch_val("SELECT to_regclass('t')") is None
