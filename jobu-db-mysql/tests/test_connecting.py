"""Getting in: logins, encryption, several hosts, and why not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from server_urls import parts_of
from waiting import eventually

from jobu_db import ConfigurationError, ConnectionFailedError, QueryTimeoutError
from jobu_db.testing.proxy import TcpProxy
from jobu_db.testing.servers import Server

from .conftest import OpenDatabase

Start = Callable[..., Server]


async def cipher(db: Any) -> str:
    """The cipher of the connection; empty if it is not encrypted."""
    row = await db.fetch_one("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    return str(row["Value"])


# -- logins


@pytest.fixture
async def account(observer: Any, mysql_url: str) -> AsyncIterator[Callable[..., Any]]:
    """`await account(password, identified)`: settings of a new user, who may read little."""
    created = []

    async def create(password: str, identified: str = "BY %s") -> dict[str, Any]:
        user = f"test_{secrets.token_hex(4)}"
        values = (user, password) if "%s" in identified else (user,)
        await observer.execute(f"CREATE USER %s IDENTIFIED {identified}", *values)
        created.append(user)
        database = "information_schema"  # open to everybody
        settings = {"user": user, "password": password, "database": database}
        return parts_of(mysql_url) | settings

    yield create
    for user in created:
        await observer.execute("DROP USER %s", user)


@pytest.mark.parametrize("password", ["simple", "it's \\ a:@/% пароль 😀", ""])
async def test_passwords(open_db: OpenDatabase, account: Any, password: str) -> None:
    settings = await account(password)
    for number in range(2):
        db = await open_db(f"db{number}", **settings)
        assert (await db.fetch_val("SELECT USER()")).startswith(settings["user"])


async def test_the_login_of_mysql_8_with_and_without_encryption(
    open_db: OpenDatabase, account: Any, mariadb: bool, observer: Any
) -> None:
    if mariadb:
        pytest.skip("MariaDB has no caching_sha2_password")
    settings = await account("secret", "WITH caching_sha2_password BY %s")
    for ssl in ("off", "require"):
        await observer.execute("FLUSH PRIVILEGES")  # which forgets whom it has seen
        for time in ("by the whole password", "from the cache"):
            db = await open_db(f"{ssl} {time}", **settings, ssl=ssl)
            assert bool(await cipher(db)) == (ssl == "require")


async def test_native_passwords(open_db: OpenDatabase, account: Any, mariadb: bool) -> None:
    if not mariadb:
        pytest.skip("MySQL 9 has dropped mysql_native_password")
    settings = await account("secret", "VIA mysql_native_password USING PASSWORD(%s)")
    db = await open_db(**settings)
    assert await db.fetch_val("SELECT 1") == 1


async def test_a_password_file_is_read_for_each_connection(
    open_db: OpenDatabase, account: Any, observer: Any, tmp_path: Path
) -> None:
    settings = await account("first")
    path = tmp_path / "password"
    path.write_text("first\n")
    settings = settings | {"password": None, "password_file": str(path)}
    db = await open_db(**settings, pool={"max_size": 1})
    path.write_text("second")
    await observer.execute("ALTER USER %s IDENTIFIED BY 'second'", settings["user"])
    async with db.pool.connection() as lease:
        await observer.execute(f"KILL {lease.connection.thread_id()}")
    async with db.transaction() as ctx:
        assert await ctx.fetch_val("SELECT 1") == 1


async def test_a_password_that_was_changed_is_told_to_who_waits_at_once(
    open_db: OpenDatabase, account: Any, observer: Any
) -> None:
    """psycopg #843 #1016, sqlx #865 #3241, r2d2 #147: the timeout hid the true cause."""
    settings = await account("first")
    db = await open_db(**settings, pool={"timeout": 600.0})
    await observer.execute("ALTER USER %s IDENTIFIED BY 'second'", settings["user"])
    async with db.pool.connection():
        with pytest.raises(ConnectionFailedError, match="denied") as caught:
            await asyncio.wait_for(db.pool.acquire(), 30)
    assert (caught.value.transient, caught.value.code) == (False, "1045")


async def test_a_password_can_be_called_for(open_db: OpenDatabase, account: Any) -> None:
    settings = await account("token-1")
    asked = []

    async def token() -> str:
        asked.append(1)
        return "token-1"

    db = await open_db(**settings | {"password": token}, pool={"min_size": 0, "max_size": 3})
    async with db.pool.connection(), db.pool.connection(), db.pool.connection():
        assert len(asked) == 3


# -- refusals


async def refusal(open_db: OpenDatabase, **settings: Any) -> ConnectionFailedError:
    with pytest.raises(ConnectionFailedError) as caught:
        await open_db("refused", **settings)
    assert "secret" not in f"{caught.value!r} {caught.value}"
    assert caught.value.__cause__ is not None
    return caught.value


async def test_why_not(open_db: OpenDatabase, mysql_url: str) -> None:
    parts = parts_of(mysql_url)
    for wrong, code, transient in (
        ({"password": "secret-wrong"}, "1045", False),
        ({"user": "nobody"}, "1045", False),
        ({"database": "no_such_database"}, "1049", False),
        ({"port": 1}, "2003", True),
        ({"host": "no-such-host.invalid"}, "2003", True),
        ({"host": "/no/such/socket"}, "2003", True),
        ({"options": {"timezone": "No/Where"}}, "1298", False),
        ({"options": {"sql_mode": "NO_SUCH_MODE"}}, "1231", False),
    ):
        error = await refusal(open_db, **parts | wrong)
        assert (error.code, error.transient) == (code, transient), wrong
        assert error.database == "refused"


async def test_a_server_that_says_nothing(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    proxy.stall()
    error = await refusal(open_db, url=proxied_url, pool={"timeout": 0.5})
    assert error.transient
    proxy.resume()


async def test_a_server_that_hangs_up(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    proxy.cut_at(b"asyncmy", answered=False)  # in the login
    error = await refusal(open_db, url=proxied_url)
    assert error.transient


async def test_something_that_is_no_mysql_server(open_db: OpenDatabase, mysql_url: str) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-something\r\n" * 10)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        settings = parts_of(mysql_url) | {"port": port}
        await refusal(open_db, **settings, pool={"timeout": 2.0})


async def test_too_many_connections(
    open_db: OpenDatabase, mysql_url: str, set_global: Callable[..., Any]
) -> None:
    await set_global("max_connections", 10)
    holder = await open_db("holder", pool={"min_size": 12, "max_size": 12})

    async def full() -> bool:
        return bool(holder.stats()["errors"])

    await eventually(full)
    error = await refusal(open_db, url=mysql_url)
    assert (error.code, error.transient) == ("1040", True)
    await holder.close()


# -- encryption


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
    client.private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))
    return folder


@pytest.fixture
def start(start_mysql: Start, authority: trustme.CA) -> Callable[..., Server]:
    def start(name: str = "127.0.0.1", **settings: str) -> Server:
        certificate = authority.issue_cert(name)
        return start_mysql(
            settings={
                "ssl-cert": "../server.pem",
                "ssl-key": "../server.key",
                "ssl-ca": "../ca.pem",
                **settings,
            },
            files={
                "server.pem": certificate.cert_chain_pems[0].bytes().decode(),
                "server.key": certificate.private_key_pem.bytes().decode(),
                "ca.pem": authority.cert_pem.bytes().decode(),
            },
        )

    return start


async def test_every_mode_trusts_what_it_says(
    start: Callable[..., Server], open_db: OpenDatabase, folder: Path
) -> None:
    url = start(**{"require-secure-transport": "ON"}).url
    ca, stranger = str(folder / "ca.pem"), str(folder / "stranger.pem")
    trusting: list[Any] = [
        "require", {"mode": "verify-ca", "ca": ca}, {"mode": "verify-full", "ca": ca},
    ]  # fmt: skip
    for ssl in trusting:
        db = await open_db(url=url, ssl=ssl)
        async with db.pool.connection() as lease:
            told = await db.driver.describe(lease.connection)
        used = await cipher(db)
        assert used
        assert told.tls is not None
        assert told.tls.startswith("TLSv1.")
        assert used in told.tls
        assert await db.fetch_val("SELECT 1") == 1, "after a reset as well"
    for ssl, why in (
        ("off", "secure|denied"),
        ("verify-full", "certificate verify failed"),
        ({"mode": "verify-ca", "ca": stranger}, "certificate verify failed"),
        ({"mode": "verify-full", "ca": stranger}, "certificate verify failed"),
    ):
        with pytest.raises(ConnectionFailedError, match=why) as caught:
            await open_db(url=url, ssl=ssl)
        assert not caught.value.transient


async def test_only_verify_full_minds_the_host_name(
    start: Callable[..., Server], open_db: OpenDatabase, folder: Path
) -> None:
    url, ca = start("another.example").url, str(folder / "ca.pem")
    assert await cipher(await open_db(url=url, ssl={"mode": "verify-ca", "ca": ca}))
    with pytest.raises(ConnectionFailedError, match="certificate is not valid for") as caught:
        await open_db(url=url, ssl={"mode": "verify-full", "ca": ca})
    assert not caught.value.transient


async def test_a_client_certificate_lets_in(
    start: Callable[..., Server], open_db: OpenDatabase, folder: Path
) -> None:
    url = start().url
    admin = await open_db("admin", url=url, ssl="require")
    await admin.execute("CREATE USER certified@'%' IDENTIFIED BY 'pw' REQUIRE X509")
    await admin.execute("GRANT ALL ON jobu.* TO certified@'%'")
    settings = parts_of(url) | {"user": "certified", "password": "pw"}
    ssl = {"mode": "verify-full", "ca": str(folder / "ca.pem")}
    db = await open_db(**settings, ssl=ssl | {"cert": str(folder / "client.pem")})
    assert (await db.fetch_val("SELECT CURRENT_USER()")).startswith("certified")
    assert not (await refusal(open_db, **settings, ssl=ssl)).transient


async def test_encryption_is_never_given_up_silently(
    start_mysql: Start, open_db: OpenDatabase, mysql_server: Server
) -> None:
    name = {"mysql": "tls-version", "mariadb": "ssl"}[mysql_server.kind]
    server = start_mysql(settings={name: "" if name == "tls-version" else "OFF"})
    error = await refusal(open_db, url=server.url, ssl="require")
    assert not error.transient
    assert await cipher(await open_db(url=server.url)) == ""


async def test_the_servers_own_certificate_is_verified(
    open_db: OpenDatabase, mysql_url: str, mariadb: bool, observer: Any, tmp_path: Path
) -> None:
    if mariadb:
        pytest.skip("MariaDB makes itself no certificate")
    pem = await observer.value("SELECT LOAD_FILE(CONCAT(@@datadir, 'ca.pem'))")
    path = tmp_path / "ca.pem"
    path.write_bytes(pem if isinstance(pem, bytes) else pem.encode())
    db = await open_db(url=mysql_url, ssl={"mode": "verify-ca", "ca": str(path)})
    assert await cipher(db)
    error = await refusal(open_db, url=mysql_url, ssl="verify-full")
    assert not error.transient


async def test_a_certificate_that_cannot_be_read_names_its_setting(
    open_db: OpenDatabase, mysql_url: str, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.pem")
    error = await refusal(open_db, url=mysql_url, ssl={"mode": "verify-full", "ca": missing})
    assert "ssl.ca" in str(error)
    assert isinstance(error.__cause__, ConfigurationError)


async def test_a_cancelled_statement_is_killed_on_an_encrypted_connection(
    start: Callable[..., Server], open_db: OpenDatabase
) -> None:
    db = await open_db(url=start().url, ssl="require", pool={"max_size": 2, "timeout": 5.0})
    with pytest.raises(QueryTimeoutError):
        async with db.transaction(timeout=0.2) as ctx:
            await ctx.execute("DO SLEEP(20)")

    async def stopped() -> bool:
        sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'DO SLEEP(20)'"
        return bool(await db.fetch_val(sql) == 0)

    await eventually(stopped)


async def test_a_stream_waits_for_its_reader_on_an_encrypted_connection(
    start: Callable[..., Server], open_db: OpenDatabase
) -> None:
    db = await open_db(url=start().url, ssl="require")
    sql = "SELECT a.column_name FROM information_schema.columns a LIMIT 1000"
    async with db.transaction() as ctx:
        assert len([row async for row in ctx.iterate(sql, batch=7)]) == 1000
        async for _ in ctx.iterate(sql, batch=7):
            break
        assert await ctx.fetch_val("SELECT 1") == 1
