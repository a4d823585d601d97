"""Settings of databases on a server: addresses and passwords."""

from __future__ import annotations

import asyncio
import os
import traceback
from pathlib import Path
from typing import Any

import pytest

from jobu_db.errors import ConfigurationError, ConnectionFailedError
from jobu_db.settings.server import ServerSettings
from jobu_db.settings.types import Port, Text


class DogSettings(ServerSettings):
    url_schemes = ("dog",)

    port: Port = 7777
    database: Text


def parse(**values: Any) -> DogSettings:
    return DogSettings.parse("main", {"type": "dog", **values})


def problems(**values: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(**{"database": "d", **values})
    told = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in told
    return [line.removeprefix("databases.main.") for line in caught.value.problems]


# -- addresses


@pytest.mark.parametrize("host", ["db.example", "10.0.0.1", "::1", "fe80::1%eth0", "/run/dog"])
def test_a_host_is_a_name_an_address_or_a_socket(host: str) -> None:
    assert parse(host=host, database="d").addresses == ((host, 7777),)


def test_brackets_around_an_ipv6_host_are_dropped() -> None:
    assert parse(host="[::1]", database="d").host == "::1"


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("db:5432", "must not contain a port: give it as port"),
        ("a,b", "must be one host name"),
        ("a b", "must be one host name"),
        ("dog://me:hunter2@h", "must be one host name"),
        ("", "must be non-empty text, not ''"),
    ],
)
def test_a_bad_host_is_told(host: str, told: str) -> None:
    (line,) = problems(host=host)
    assert line.startswith(f"host: {told}")


def test_hosts_are_tried_in_order_and_share_the_port() -> None:
    settings = parse(hosts=["a:1", "b", "/run/dog"], port=5, database="d")
    assert settings.addresses == (("a", 1), ("b", 5), ("/run/dog", 5))
    assert [each.unix_socket for each in settings.addresses] == [None, None, "/run/dog"]
    assert settings.unix_socket is None


def test_bad_hosts_are_told_without_them() -> None:
    told = "hosts: entry 2 must be a host, host:port, [IPv6]:port, or the path of a Unix socket"
    assert problems(hosts=["a", "dog://me:hunter2@h"]) == [told]
    assert problems(hosts=["a:70000"]) == ["hosts: entry 1 must have a port from 1 to 65535"]
    assert problems(hosts=[]) == ["hosts: must be a non-empty list or null, not an empty list"]
    assert problems(hosts=["a", 5]) == ["hosts[1]: must be non-empty text, not 5; put it in quotes"]
    assert problems(hosts="a") == ["hosts: must be a non-empty list or null, not 'a'"]


@pytest.mark.parametrize("port", [0, 65536, "7777", 77.5, True, None])
def test_a_port_is_a_number_from_1_to_65535(port: object) -> None:
    assert problems(port=port)[0].startswith("port: must be a whole number from 1 to 65535, not ")


def test_a_host_that_is_listed_twice_is_told() -> None:
    told = "hosts: must not name a host twice: entries 1 and 3 agree"
    assert problems(hosts=["a", "b", "a:5"], port=5) == [told]
    assert len(parse(hosts=["a:1", "a:2"], database="d").addresses) == 2


def test_host_and_hosts_contradict_each_other() -> None:
    assert problems(host="a", hosts=["b"]) == ["hosts: contradicts host: give only one of them"]


# -- passwords


async def test_a_password_is_given_to_the_driver_and_nobody_else() -> None:
    settings = parse(database="d", password="hunter2")
    assert await settings.current_password() == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings.model_dump_json()}"
    assert await parse(database="d").current_password() is None


def test_password_and_password_file_contradict_each_other() -> None:
    told = "password_file: contradicts password: give only one of them"
    assert problems(password="hunter2", password_file="f") == [told]


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"pw", "pw"),
        (b"pw\n", "pw"),
        (b"pw\r\n", "pw"),
        (b" p w \n\n", " p w \n"),
        ("pässword\n".encode(), "pässword"),
    ],
)
async def test_a_password_file_loses_one_trailing_newline(
    tmp_path: Path, content: bytes, password: str
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    assert await parse(database="d", password_file=str(file)).current_password() == password


async def test_a_password_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    settings = parse(database="d", password_file=str(file))
    for password in ("first", "second"):
        file.write_text(password)
        assert await settings.current_password() == password


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, ": there is no such file; give the path of one"),
        (b"", " is empty"),
        (b"\n", " is empty"),
        (b"hunter2\xff", " is not UTF-8 text"),
        (b"hunter2" * 20_000, ": is larger than 65,536 bytes"),
    ],
)
async def test_a_password_file_that_holds_none_is_told(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConnectionFailedError) as caught:
        await parse(database="d", password_file=str(file)).current_password()
    assert caught.value.message == f"password_file: {file}{told}"
    assert not caught.value.transient
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_a_password_function_is_called_each_time() -> None:
    tokens = iter(["one", "two", "three"])

    async def fetch_token() -> str:
        return next(tokens)

    by_coroutine = parse(database="d", password=fetch_token)
    assert await by_coroutine.current_password() == "one"
    assert await by_coroutine.current_password() == "two"
    assert await parse(database="d", password=lambda: next(tokens)).current_password() == "three"


@pytest.mark.parametrize(("error", "transient"), [(TimeoutError(), True), (KeyError("x"), False)])
async def test_a_failing_password_function_is_a_failed_connection(
    error: Exception, transient: bool
) -> None:
    def fail() -> str:
        raise error

    with pytest.raises(ConnectionFailedError, match=type(error).__name__) as caught:
        await parse(database="d", password=fail).current_password()
    assert caught.value.__cause__ is error
    assert caught.value.transient is transient


async def test_a_password_function_returns_text() -> None:
    with pytest.raises(ConnectionFailedError, match="returned a bytes, not a str"):
        await parse(database="d", password=lambda: b"hunter2").current_password()


async def test_a_password_file_that_is_a_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailedError, match="is a directory; give the path of a file"):
        await parse(database="d", password_file=os.fspath(tmp_path)).current_password()


async def test_a_password_file_that_is_no_regular_file_is_told(tmp_path: Path) -> None:
    """A FIFO would wait for a writer for ever, and /dev/zero never ends."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(ConnectionFailedError, match="is a pipe, socket or device") as caught:
            await parse(database="d", password_file=path).current_password()
        assert not caught.value.transient


async def test_a_password_file_that_others_may_read_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for mode, warnings in ((0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1), (0o444, 1)):
        file = tmp_path / f"password{mode:o}"
        file.write_text("hunter2")
        file.chmod(mode)
        settings = parse(database="d", password_file=file)
        caplog.clear()
        for _ in range(3):
            assert await settings.current_password() == "hunter2"
        assert len(caplog.records) == warnings, oct(mode)
        assert "hunter2" not in caplog.text
    assert f"{file} may be read by others (mode 444)" in caplog.text


async def test_a_password_function_that_hangs_is_blamed_itself() -> None:
    async def hang() -> str:
        await asyncio.Event().wait()
        raise NotImplementedError

    settings = parse(database="d", password=hang, pool={"timeout": 0.1})
    with pytest.raises(ConnectionFailedError, match=r"gave no password within 0\.05 s") as caught:
        await settings.current_password()
    assert caught.value.transient
