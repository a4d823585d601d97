"""The settings, as they are written and as the server has them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from jobu_db import ConfigurationError, ConnectionFailedError
from jobu_db.testing.servers import Server
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.settings import PostgresOptions, PostgresSettings


def parse(**settings: Any) -> PostgresSettings:
    return PostgresSettings.parse("main", {"type": "postgres", **settings})


def problems(**settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(**settings)
    return str(caught.value)


# -- as written


def test_nothing_is_sent_to_the_server_that_was_not_asked_for() -> None:
    assert parse().options.startup == {}
    assert parse().port == 5432


def test_off_is_a_wish_too_for_the_server_may_have_another_default() -> None:
    options = {"statement_timeout": 0, "lock_timeout": None}
    assert parse(options=options).options.startup == {"statement_timeout": "0", "lock_timeout": "0"}


def test_server_settings_may_be_text_numbers_and_booleans() -> None:
    given = {"work_mem": "64MB", "jit": False, "geqo": True, "seq_page_cost": 1.5, "app.tenant": 7}
    assert parse(options={"server_settings": given}).options.startup == {
        "work_mem": "64MB",
        "jit": "off",
        "geqo": "on",
        "seq_page_cost": "1.5",
        "app.tenant": "7",
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lock_timeout", "give it as an option"),
        ("TimeZone", "give it as an option"),
        ("user", "a setting of its own"),
        ("client_encoding", "UTF8"),
        ("options", "not supported"),
        ("session_authorization", "use role"),
        ("transaction_read_only", "use default_transaction_read_only"),
        ("a; DROP TABLE jobs", "names like"),
        ("", "names like"),
    ],
)
def test_server_settings_refuse_what_has_another_place(name: str, why: str) -> None:
    assert why in problems(options={"server_settings": {name: "1"}})


def test_all_problems_are_told_at_once() -> None:
    told = problems(
        target_session_attrs="master",
        options={
            "statement_timeout": -1,
            "json": 1,
            "time_zone": "UTC",
            "statement_cache_size": -1,
        },
    )
    for part in (
        "target_session_attrs",
        "options.statement_timeout",
        "options.json: must be true or false",
        "did you mean timezone?",
        "options.statement_cache_size",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (
            "channel_binding=require",
            "asyncpg cannot do: leave it out, and write sslmode=verify",
        ),
        ("gssencmode=require", "write sslmode=verify-full"),
        ("client_encoding=latin1", "takes no other"),
        ("passfile=x", "has the parameter passfile, which is not supported: write password_file"),
        ("sslcrl=x", "has the parameter sslcrl, which is not supported: leave it out"),
        ("pgbouncer=true", "write statement_cache_size=0"),
        ("schema=tenant", "write options.server_settings.search_path"),
        ("options=endpoint%3Dx", "write the settings of the server under options.server_settings"),
        ("options=-c%20work_mem", "other than -c name=value"),
        ("options=-c%20user%3Dx", "must not contain user"),
        ("options=-c%20statement_timeout%3D5s", "its options.statement_timeout must be a whole"),
        ("aplication_name=x", "has an unknown parameter; did you mean application_name?"),
    ],
)
def test_a_parameter_that_does_not_work_is_refused_with_what_to_write(
    query: str, told: str
) -> None:
    (line,) = problems(url=f"postgresql://me:hunter2@h/d?{query}").splitlines()
    assert line.startswith("databases.main.url: ")
    assert told in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "query",
    ["channel_binding=prefer", "channel_binding=disable", "gssencmode=prefer", "sslmode=disable",
     "client_encoding=utf8", "client_encoding=auto"],
)  # fmt: skip
def test_a_parameter_that_asks_for_what_is_so_anyway_is_accepted(query: str) -> None:
    assert parse(url=f"postgresql://me@h/d?{query}") == parse(url="postgresql://me@h/d", ssl="off")


def test_options_of_a_url_are_settings_of_the_server() -> None:
    query = (
        "options=-c%20search_path%3Da,b%20-cwork_mem%3D64MB%20--statement-timeout%3D500"
        "%20-c%20app.name%3Done%5C%20two%5C%5C&application_name=worker&load_balance_hosts=random"
    )
    settings = parse(url=f"postgresql:///d?{query}")
    assert settings.options.startup == {
        "search_path": "a,b",
        "work_mem": "64MB",
        "statement_timeout": "500",
        "app.name": "one two\\",
        "application_name": "worker",
    }
    assert settings.host_order == "random"


# -- libpq's variables


def test_the_environment_gives_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGHOST": "db.example",
        "PGPORT": "6543",
        "PGAPPNAME": "worker",
        "PGCONNECT_TIMEOUT": "10",
        "PGOPTIONS": "-c search_path=tenant",
        "PGTARGETSESSIONATTRS": "primary",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/ca.pem",
    }.items():
        monkeypatch.setenv(name, value)
    settings = parse()
    assert settings.addresses == (("db.example", 6543),)
    assert settings.connect_timeout == 10.0
    assert settings.options.startup == {"application_name": "worker", "search_path": "tenant"}
    assert settings.target_session_attrs == "primary"
    assert (settings.ssl.mode, settings.ssl.ca) == ("verify-full", Path("/ca.pem"))


def test_what_the_configuration_says_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "PGHOST": "wrong",
        "PGPORT": "6543",
        "PGAPPNAME": "wrong",
        "PGOPTIONS": "-c search_path=tenant",
        "PGSSLMODE": "require",
        "PGSSLROOTCERT": "/wrong.pem",
    }.items():
        monkeypatch.setenv(name, value)
    assert parse(host="a", port=1, ssl="off").addresses == (("a", 1),)
    assert parse(hosts=["a", "b:2"], ssl="off").addresses == (("a", 6543), ("b", 2))
    by_url = parse(url="postgresql://a:1/d?application_name=mine&sslmode=disable")
    assert (by_url.addresses, by_url.ssl.mode) == ((("a", 1),), "off")
    assert by_url.options.startup == {"application_name": "mine", "search_path": "tenant"}
    given = {"application_name": "mine", "server_settings": {"search_path": "own"}}
    assert parse(ssl="off", options=given).options.startup == {
        "application_name": "mine",
        "search_path": "own",
    }


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("/run/postgresql", "", [("/run/postgresql", 5432)]),
        ("a,b", "6543", [("a", 6543), ("b", 6543)]),
        ("a,b", "1,2", [("a", 1), ("b", 2)]),
        ("a,b", "1,", [("a", 1), ("b", 5432)]),
        ("::1", "1", [("::1", 1)]),
        ("", "", [("localhost", 5432)]),
    ],
)
def test_pghost_and_pgport_may_list_several(
    monkeypatch: pytest.MonkeyPatch, host: str, port: str, expected: list[tuple[str, int]]
) -> None:
    monkeypatch.setenv("PGHOST", host)
    monkeypatch.setenv("PGPORT", port)
    assert list(parse().addresses) == expected


def test_a_bad_variable_is_told_by_its_name_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPORT", "hunter2")
    monkeypatch.setenv("PGHOST", "hunter2@host")
    monkeypatch.setenv("PGSSLMODE", "hunter2")
    told = problems()
    assert "PGPORT: its port must be a whole number from 1 to 65535" in told
    assert "PGHOST: its host must be one host name" in told
    assert "PGSSLMODE: its ssl.mode must be off, require, verify-ca or verify-full" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("variable", ["PGSERVICE", "PGHOSTADDR"])
def test_a_variable_that_would_lead_elsewhere_is_refused_where_no_host_is_given(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "hunter2")
    monkeypatch.setenv("PGHOST", "wrong")
    told = problems()
    assert f"{variable}: has the parameter" in told
    assert "which is not supported: write the" in told
    assert "hunter2" not in told
    assert parse(host="a").addresses == (("a", 5432),)
    assert parse(hosts=["a:1"]).addresses == (("a", 1),)
    assert parse(url="postgresql://a:1/d").addresses == (("a", 1),)


async def test_the_environment_leads_to_the_server(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = urlsplit(postgres_url)
    for name, value in {
        "PGHOST": parts.hostname,
        "PGPORT": parts.port,
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path[1:],
        "PGAPPNAME": "by environment",
    }.items():
        monkeypatch.setenv(name, str(value))
    async with PostgresDatabase.create("main", {}) as db:
        assert await db.fetch_val("SELECT current_database()") == parts.path[1:]
        assert await db.fetch_val("SHOW application_name") == "by environment"


def test_a_url_may_carry_what_libpq_users_expect_in_it() -> None:
    settings = parse(
        url="postgresql://jobu:pw@a:1,b:2/jobs?target_session_attrs=primary"
        "&application_name=worker&sslmode=disable"
    )
    assert [tuple(address) for address in settings.addresses] == [("a", 1), ("b", 2)]
    assert settings.target_session_attrs == "primary"
    assert settings.options.application_name == "worker"
    assert "pw" not in repr(settings)


# -- as the server has them

OPTIONS = {
    "statement_timeout": 30000,
    "idle_in_transaction_session_timeout": 40000,
    "lock_timeout": 5000,
    "timezone": "Asia/Tokyo",
    "application_name": "the 'worker'",
}


async def test_the_server_has_every_option(open_db: Any) -> None:
    db = await open_db(options=OPTIONS)
    for name, value in OPTIONS.items():
        setting = await db.fetch_val("SELECT setting FROM pg_settings WHERE name ILIKE $1", name)
        assert setting == str(value)


async def test_the_server_has_every_server_setting(open_db: Any) -> None:
    given = {"work_mem": "64MB", "jit": False, "app.tenant": "seven"}
    db = await open_db(options={"server_settings": given})
    assert await db.fetch_val("SHOW work_mem") == "64MB"
    assert await db.fetch_val("SHOW jit") == "off"
    assert await db.fetch_val("SHOW app.tenant") == "seven"


async def test_a_role_given_as_server_setting_stays(open_db: Any) -> None:
    options = {"server_settings": {"role": "pg_monitor"}}
    db = await open_db(pool={"max_size": 1}, options=options)
    for _ in range(3):
        assert await db.fetch_val("SELECT current_user") == "pg_monitor"
        async with db.transaction() as ctx:
            await ctx.execute("RESET ROLE")
            await ctx.execute("SET ROLE NONE")


async def test_settings_are_values_and_no_sql(open_db: Any) -> None:
    nasty = "x'; DROP TABLE jobs; --"
    db = await open_db(options={"application_name": nasty})
    assert await db.fetch_val("SHOW application_name") == nasty


async def test_the_parts_and_the_url_mean_the_same(open_db: Any, postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    db = await open_db(
        url=None,
        host=parts.hostname,
        port=parts.port,
        user=parts.username,
        password=parts.password,
        database=parts.path[1:],
    )
    assert await db.fetch_val("SELECT current_database()") == parts.path[1:]
    assert await db.fetch_val("SELECT inet_server_port()") == parts.port


async def test_a_unix_socket(open_db: Any, postgres_url: str, postgres_server: Server) -> None:
    if postgres_server.socket is None:
        pytest.fail("the server tells no socket: run this on a private server")
    parts = urlsplit(postgres_url)
    db = await open_db(
        url=None,
        host=postgres_server.socket,
        port=parts.port,
        user=parts.username,
        password=parts.password,
        database=parts.path[1:],
    )
    assert await db.fetch_val("SELECT inet_server_addr()") is None


async def test_json_is_decoded_and_encoded_by_option(open_db: Any) -> None:
    plain, decoding = await open_db(), await open_db("decoding", options={"json": True})
    value = {"a": [1, None, "ü"], "b": {"c": 1.5}}
    for kind in ("json", "jsonb"):
        sql = f"SELECT $1::{kind}"
        assert await decoding.fetch_val(sql, [value]) == [value]
        assert await decoding.fetch_val(sql, value) == value
        assert await decoding.fetch_val(sql, "text") == "text"
        assert await decoding.fetch_val(sql, None) is None
        assert json.loads(await plain.fetch_val(sql, json.dumps(value))) == value


async def test_no_statement_is_kept_with_a_cache_of_size_zero(open_db: Any) -> None:
    count = "SELECT count(*) FROM pg_prepared_statements"
    for size, kept in ((0, False), (100, True)):
        db = await open_db(f"cache{size}", options={"statement_cache_size": size})
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT $1::int", 1)
            assert (await ctx.fetch_val(count) > 0) is kept


# -- passwords


@pytest.fixture
async def role(observer: asyncpg.Connection) -> Any:
    name = f"{await observer.fetchval('SELECT current_database()')}_role"
    await observer.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'first'")
    yield name
    await observer.execute(f"DROP ROLE {name}")


def without_login(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {"url": None, "host": parts.hostname, "port": parts.port, "database": parts.path[1:]}


async def test_a_changed_password_file_is_read_by_the_next_connection(
    open_db: Any, postgres_url: str, observer: asyncpg.Connection, role: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    db = await open_db(**without_login(postgres_url), user=role, password_file=str(file))
    await observer.execute(f"ALTER ROLE {role} PASSWORD 'second'")
    file.write_text("second\n")
    async with db.pool.connection(), db.pool.connection():
        pass


@pytest.mark.one_server  # one that asks for passwords
async def test_a_password_that_was_changed_is_told_to_who_waits_at_once(
    open_db: Any, postgres_url: str, observer: asyncpg.Connection, role: str
) -> None:
    """psycopg #843 #1016, sqlx #865 #3241, r2d2 #147: the timeout hid the true cause."""
    db = await open_db(
        **without_login(postgres_url), user=role, password="first", pool={"timeout": 600.0}
    )
    await observer.execute(f"ALTER ROLE {role} PASSWORD 'second'")
    async with db.pool.connection():
        with pytest.raises(ConnectionFailedError, match="password") as caught:
            await asyncio.wait_for(db.pool.acquire(), 30)
    assert (caught.value.transient, caught.value.code) == (False, "28P01")


async def test_a_password_may_be_a_function(open_db: Any, postgres_url: str, role: str) -> None:
    asked: list[int] = []

    async def token() -> str:
        asked.append(1)
        return "first"

    db = await open_db(**without_login(postgres_url), user=role, password=token)
    async with db.pool.connection(), db.pool.connection():
        pass
    assert len(asked) == 2


@pytest.mark.one_server  # one that asks for passwords
async def test_a_wrong_password_is_told_at_once(open_db: Any, postgres_url: str, role: str) -> None:
    with pytest.raises(ConnectionFailedError) as caught:
        await open_db(**without_login(postgres_url), user=role, password="hunter2")
    assert (caught.value.transient, caught.value.code) == (False, "28P01")
    assert "hunter2" not in str(caught.value)


def test_editors_can_complete_every_option() -> None:
    schema = PostgresSettings.model_json_schema()
    options = schema["$defs"]["PostgresOptions"]["properties"]
    assert set(options) == set(PostgresOptions.model_fields)
    assert options["json"]["type"] == "boolean"
    assert all("description" in option for option in options.values())
