"""A false server does not get the password, and a true one still lets us in."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from jobu_db import ConfigurationError, ConnectionFailedError
from jobu_db.hosts import tell_unencrypted
from jobu_db.settings import Address
from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.settings import MySQLSettings

from .conftest import OpenDatabase
from .fake_mysql import OK, SALT, FakeMySQL, switch

PASSWORD = b"the secret password"
FULL = b"\x01\x04"
"""The second part of caching_sha2_password: the password itself is wanted."""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is taken for one on another machine."""
    monkeypatch.setattr("jobu_db_mysql.logging_in.is_loopback", lambda host: False)
    monkeypatch.setattr(Address, "is_local", False)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def public(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def decrypted(key: rsa.RSAPrivateKey, text: bytes) -> bytes:
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    xored = key.decrypt(text, oaep)
    return bytes(byte ^ SALT[index % 20] for index, byte in enumerate(xored)).rstrip(b"\0")


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def refusal(fake: FakeMySQL, **settings: Any) -> str:
    """Why we do not log in to a false server, which does not get the password."""
    with pytest.raises(ConnectionFailedError) as caught:
        await asyncio.wait_for(MySQLDatabase.create("main", fake.settings | settings), 20)
    assert not caught.value.transient
    assert PASSWORD not in fake.all_heard
    assert PASSWORD.decode() not in str(caught.value)
    return str(caught.value)


async def logs_in(fake: FakeMySQL, **settings: Any) -> None:
    """The login ends; what comes then, the false server does not understand."""
    with pytest.raises(ConnectionFailedError):
        limited = {"pool": {"timeout": 1.0}}
        await asyncio.wait_for(MySQLDatabase.create("main", fake.settings | limited | settings), 20)


# -- plugins that always tell the password


@pytest.mark.parametrize("plugin", ["mysql_clear_password", "dialog"])
@pytest.mark.parametrize("first", ["caching_sha2_password", "mysql_native_password", "dialog", ""])
async def test_the_password_is_not_told_for_the_asking(plugin: str, first: str) -> None:
    """Not on this machine either: another user may listen where the server has gone."""
    async with FakeMySQL(switch(plugin, b"\x04Password: "), OK, plugin=first) as fake:
        text = await refusal(fake)
        assert f"unsafe_logins: [{plugin}]" in text
        assert len(fake.heard) == 1


async def test_a_plugin_is_allowed_by_name_alone() -> None:
    async with FakeMySQL(switch("mysql_clear_password"), OK) as fake:
        await refusal(fake, unsafe_logins=["dialog", "caching_sha2_password"])
        await logs_in(fake, unsafe_logins=["mysql_clear_password"])
        assert PASSWORD + b"\0" in fake.heard
    async with FakeMySQL(switch("dialog", b"\x04Password: "), OK) as fake:
        await logs_in(fake, unsafe_logins=["dialog"])
        assert PASSWORD + b"\0" in fake.heard


async def test_a_dialog_tells_nothing_but_the_password() -> None:
    async with FakeMySQL(switch("dialog", b"\x02Your card number: "), OK) as fake:
        assert "something other" in await refusal(fake, unsafe_logins=["dialog"])


# -- plugins that prove it, or ask for it


@pytest.mark.parametrize(
    "lines",
    [(FULL,), (switch("caching_sha2_password"), FULL), (switch("sha256_password"),)],
    ids=["at once", "switched", "sha256"],
)
async def test_a_false_server_gets_no_password_by_its_own_key(
    elsewhere: None, key: rsa.RSAPrivateKey, lines: tuple[bytes, ...]
) -> None:
    async with FakeMySQL(*lines, b"\x01" + public(key), OK) as fake:
        text = await refusal(fake)
        assert "server_public_key" in text
        assert not {b"\x01", b"\x02"} & set(fake.heard), "not even its key is asked for"


async def test_nor_as_the_plugin_that_it_begins_with(
    elsewhere: None, key: rsa.RSAPrivateKey, self_signed: ssl.SSLContext
) -> None:
    for tls in (None, self_signed):
        lines = (switch("sha256_password"), b"\x01" + public(key), OK)
        async with FakeMySQL(*lines, plugin="sha256_password", tls=tls) as fake:
            await refusal(fake)


async def test_nor_over_tls_that_was_not_asked_for(
    elsewhere: None, self_signed: ssl.SSLContext
) -> None:
    async with FakeMySQL(FULL, OK, tls=self_signed) as fake:
        assert "verify-full" in await refusal(fake)
        assert len(fake.heard[0]) == 32, "it was encrypted nevertheless"


async def test_nor_by_a_certificate_that_nobody_has_signed(self_signed: ssl.SSLContext) -> None:
    async with FakeMySQL(FULL, OK, tls=self_signed) as fake:
        await refusal(fake, ssl="verify-full")
        await refusal(fake, ssl="verify-ca")


async def test_whoever_asks_for_any_server_gets_any_server(self_signed: ssl.SSLContext) -> None:
    async with FakeMySQL(FULL, OK, tls=self_signed) as fake:
        await logs_in(fake, ssl="require")
        assert PASSWORD + b"\0" in fake.heard


async def test_a_server_on_this_machine_may_send_its_key(key: rsa.RSAPrivateKey) -> None:
    async with FakeMySQL(FULL, b"\x01" + public(key), OK) as fake:
        await logs_in(fake)
        assert fake.heard[1] == b"\x02"
        assert decrypted(key, fake.heard[2]) == PASSWORD
        assert PASSWORD not in fake.all_heard


async def test_a_key_may_be_taken_from_anybody_by_name(
    elsewhere: None, key: rsa.RSAPrivateKey
) -> None:
    async with FakeMySQL(FULL, b"\x01" + public(key), OK) as fake:
        await logs_in(fake, unsafe_logins=["caching_sha2_password"])
        assert decrypted(key, fake.heard[2]) == PASSWORD


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "sha256_password"])
async def test_only_who_has_the_configured_key_can_read_the_password(
    elsewhere: None, key: rsa.RSAPrivateKey, tmp_path: Path, plugin: str
) -> None:
    true_key = rsa.generate_private_key(65537, 2048)
    path = tmp_path / "server.pem"
    path.write_bytes(public(true_key))
    lines = [switch(plugin)] + ([FULL] if plugin.startswith("caching") else [])
    async with FakeMySQL(*lines, b"\x01" + public(key), OK) as fake:
        with pytest.raises(ConnectionFailedError):
            settings = fake.settings | {"server_public_key": str(path)}
            await asyncio.wait_for(MySQLDatabase.create("main", settings), 20)
        sent = fake.heard[-1]
        assert decrypted(true_key, sent) == PASSWORD
        with pytest.raises(ValueError, match="ecryption"):
            decrypted(key, sent)


async def test_a_key_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    path.write_text("no key")
    async with FakeMySQL(FULL, OK) as fake:
        assert "not a valid RSA key" in await refusal(fake, server_public_key=str(path))
        missing = str(tmp_path / "missing")
        assert "server_public_key: " in await refusal(fake, server_public_key=missing)
    with pytest.raises(ConfigurationError, match="has no use where ssl is on"):
        MySQLSettings.parse(
            "main", fake.settings | {"server_public_key": str(path), "ssl": "require"}
        )


@pytest.mark.parametrize(
    "line",
    [
        b"\xfe",
        switch("mysql_old_password"),
        switch("authentication_ldap_sasl_client"),
        switch("no such; plugin\x1b[31m"),
        b"\x01\x09",
        b"\x02",
        b"",
    ],
)
async def test_what_is_not_known_is_refused(line: bytes) -> None:
    async with FakeMySQL(line, OK) as fake:
        text = await refusal(fake)
        assert "\x1b" not in text
        assert len(fake.heard) == 1


async def test_a_server_that_changes_its_mind_for_ever_is_left() -> None:
    lines = [switch(f"{name}_password") for name in ("mysql_native", "caching_sha2") * 10]
    async with FakeMySQL(*lines) as fake:
        await refusal(fake)
        assert len(fake.heard) <= 6


# -- the true ones


@pytest.fixture
async def true_key(observer: Any, mariadb: bool, tmp_path: Path) -> Path | None:
    if mariadb:
        return None
    rows = await observer.fetch("SHOW STATUS LIKE 'Caching_sha2_password_rsa_public_key'")
    path = tmp_path / "true.pem"
    path.write_text(rows[0]["Value"])
    return path


async def test_the_true_server_is_known_by_its_key(
    open_db: OpenDatabase, elsewhere: None, observer: Any, true_key: Path | None, account: Any
) -> None:
    if true_key is None:
        return  # MariaDB has no plugin of that kind
    settings = await account("secret")
    assert "server_public_key" in await text_of(open_db(**settings, ssl="off"))
    db = await open_db(**settings, server_public_key=str(true_key))
    assert await db.fetch_val("SELECT 1") == 1
    # From now on the server has the proof in its cache.
    db = await open_db("cached", **settings, ssl="off")
    assert await db.fetch_val("SELECT 1") == 1


async def text_of(opening: Any) -> str:
    with pytest.raises(ConnectionFailedError) as caught:
        await opening
    return str(caught.value)


@pytest.fixture
async def account(observer: Any, mysql_url: str) -> AsyncIterator[Callable[..., Any]]:
    import secrets

    from server_urls import parts_of

    created: list[str] = []

    async def create(password: str) -> dict[str, Any]:
        user = f"test_{secrets.token_hex(4)}"
        await observer.execute("CREATE USER %s IDENTIFIED BY %s", user, password)
        created.append(user)
        where = {"user": user, "password": password, "database": "information_schema"}
        return parts_of(mysql_url) | where

    yield create
    for user in created:
        await observer.execute("DROP USER %s", user)


async def test_elsewhere_what_can_be_encrypted_is_and_what_cannot_is_told_once(
    db: MySQLDatabase, open_db: OpenDatabase, elsewhere: None, caplog: pytest.LogCaptureFixture
) -> None:
    tell_unencrypted.cache_clear()
    caplog.set_level(logging.WARNING, "jobu_db")
    for name in ("first", "second"):
        other = await open_db(name)
        cipher = (await other.fetch_one("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))["Value"]
    told = [each for each in caplog.messages if "not encrypted" in each]
    assert len(told) == (0 if cipher else 1)
    off = await open_db("off", ssl="off")
    assert not (await off.fetch_one("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))["Value"]
    assert [each for each in caplog.messages if "not encrypted" in each] == told


async def test_on_this_machine_nothing_is_encrypted_and_nothing_told(
    db: MySQLDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    assert not (await db.fetch_one("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))["Value"]
    assert not [each for each in caplog.messages if "not encrypted" in each]


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("LOCALHOST", True), ("127.3.2.1", True), ("::1", True),
     ("/run/mysqld.sock", True), ("10.0.0.1", False), ("db.example", False), ("0.0.0.0", False),
     ("fe80::1%eth0", False), ("127.0.0.1.example", False)],
)  # fmt: skip
def test_what_is_on_this_machine(host: str, local: bool) -> None:
    assert Address(host, 3306).is_local is local
