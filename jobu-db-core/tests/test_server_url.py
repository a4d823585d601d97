"""`url:` in place of the parts of a server's address and login."""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from jobu_db.errors import ConfigurationError
from jobu_db.settings import Settings
from jobu_db.settings.server import ServerSettings
from jobu_db.settings.types import MillisecondsOrOff, Port, Text


class Options(Settings):
    charset: str = "utf8mb4"
    statement_timeout: MillisecondsOrOff = None


class DogSettings(ServerSettings):
    url_schemes = ("dog", "doggo")
    url_parameters: ClassVar = {
        **ServerSettings.url_parameters,
        "service": "is unknown: write parts",
        "charset": ("options", "charset"),
        "statement_timeout": ("options", "statement_timeout"),
    }

    port: Port = 7777
    database: Text
    options: Options = Options()


def parse(**values: Any) -> DogSettings:
    return DogSettings.parse("main", {"type": "dog", **values})


def parse_url(url: str, **values: Any) -> DogSettings:
    return parse(url=url, **values)


def problems(**values: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(**{"database": "d", **values})
    told = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in told
    return [line.removeprefix("databases.main.") for line in caught.value.problems]


def url_problems(url: str, **values: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url, **values)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    return [line.removeprefix("databases.main.") for line in caught.value.problems]


def secret(settings: DogSettings) -> str | None:
    assert settings.password is None or isinstance(settings.password, SecretStr)
    return settings.password.get_secret_value() if settings.password else None


def test_a_url_gives_the_same_settings_as_its_parts() -> None:
    by_url = parse_url("dog://me:p%40ss%2Fword@db.example:99/jobu")
    by_parts = parse(user="me", password="p@ss/word", host="db.example", port=99, database="jobu")
    assert by_url == by_parts


def test_what_the_url_leaves_out_has_its_default_or_is_given_beside_it() -> None:
    settings = parse_url("doggo://db.example/jobu", user="me", password="pw")
    assert (settings.host, settings.port, settings.user) == ("db.example", 7777, "me")
    assert secret(settings) == "pw"
    assert parse_url("dog:///jobu").host == "localhost"
    assert secret(parse_url("dog://me@/jobu")) is None


def test_a_driver_in_the_scheme_is_ignored() -> None:
    assert parse_url("dog+asyncdog://h/d").host == "h"


def test_a_url_may_name_several_hosts_an_ipv6_address_or_a_socket() -> None:
    several = parse_url("dog://me:pw@a:1,b,[::1]:3/d")
    assert several.addresses == (("a", 1), ("b", 7777), ("::1", 3))
    assert parse_url("dog://[fe80::1]:5/d").addresses == (("fe80::1", 5),)
    assert parse_url("dog://%2Frun%2Fdog:5/d").unix_socket == "/run/dog"
    assert parse_url("dog:///d?host=/run/dog").unix_socket == "/run/dog"


def test_parameters_of_a_url_are_settings() -> None:
    settings = parse_url(
        "dog://h/d?sslmode=verify-full&sslrootcert=%2Fca.pem&charset=latin1&statement_timeout=500"
    )
    assert (settings.ssl.mode, settings.ssl.ca) == ("verify-full", Path("/ca.pem"))
    assert settings.options == Options(charset="latin1", statement_timeout=500)
    assert parse_url("dog://h/d?ssl-mode=VERIFY_IDENTITY").ssl.mode == "verify-full"
    assert parse_url("dog://h/d?sslmode=disable").ssl.mode == "off"
    assert parse_url("dog://h/d?charset=Disable").options.charset == "Disable"


def test_white_space_at_the_ends_of_a_url_is_no_part_of_it() -> None:
    """As a file or a variable ends in a newline."""
    for url in (" dog://h:5/d", "dog://h:5/d\n", "\t dog://h:5/d \r\n"):
        assert (parse_url(url).port, parse_url(url).database) == (5, "d")
    assert parse_url("\ndog://h/d?charset=latin1\n").options.charset == "latin1"
    assert parse_url("dog://h/d%20").database == "d "


def test_a_special_character_of_a_password_is_written_with_percent() -> None:
    assert secret(parse_url("dog://me:%40%2F%23%3F%25:x@h/d")) == "@/#?%:x"


def test_parameters_that_every_server_knows() -> None:
    settings = parse_url("dog:///d?host=h&port=5&user=me&password=p%40&connect_timeout=10")
    assert (settings.addresses, settings.user) == ((("h", 5),), "me")
    assert (secret(settings), settings.connect_timeout) == ("p@", 10.0)
    for written in ("DISABLE", "disabled"):
        assert parse_url(f"dog://h/d?sslmode={written}").ssl.mode == "off"
    for written in ("sslmode=prefer", "sslmode=Allow", "ssl-mode=PREFERRED"):
        settings = parse_url(f"dog://db.example/d?{written}")
        assert settings.prefers_tls(settings.addresses[0]), "as where nothing is said"
        stricter = parse_url(f"dog://db.example/d?{written}", ssl="verify-full")
        assert not stricter.prefers_tls(stricter.addresses[0])
        assert stricter.ssl.mode == "verify-full"
    several = parse_url("dog:///d?host=a,b,c&port=1,,3")
    assert several.addresses == (("a", 1), ("b", 7777), ("c", 3))


def test_a_parameter_of_a_url_joins_the_options_beside_it() -> None:
    settings = parse_url("dog://h/d?charset=latin1", options={"statement_timeout": 5})
    assert settings.options == Options(charset="latin1", statement_timeout=5)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"user": "you"}, "url: sets the same as user: give only one of them"),
        ({"password": "pw"}, "url: sets the same as password: give only one of them"),
        ({"host": "b"}, "url: sets the same as host: give only one of them"),
        ({"port": 5}, "url: sets the same as port: give only one of them"),
        ({"database": "b"}, "url: sets the same as database: give only one of them"),
        ({"hosts": ["b"]}, "hosts: contradicts url: give only one of them"),
        ({"password_file": "f"}, "password_file: contradicts url: give only one of them"),
        (
            {"options": {"charset": "x"}},
            "url: sets the same as options.charset: give only one of them",
        ),
        ({"ssl": "off"}, "url: sets the same as ssl.mode: give only one of them"),
    ],
)
def test_a_url_and_a_part_it_contains_contradict_each_other(
    values: dict[str, Any], told: str
) -> None:
    url = "dog://me:hunter2@a:1/d?charset=latin1&sslmode=require"
    assert told in url_problems(url, **values)


def test_a_part_that_is_null_is_not_given() -> None:
    assert parse_url("dog://me:pw@a/d", password=None, password_file=None).user == "me"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("hunter2", "must be dog://user:password@host:port/database"),
        ("", "must be dog://user:password@host:port/database"),
        ("dog:me:hunter2@h/d", "must be dog://user:password@host:port/database"),
        ("cat://me:hunter2@h/d", "must begin with dog:// or doggo://"),
        ("dog://me:hunter2#@h/d", "must be dog://user:password@host:port/database"),
        ("dog://me:hunt/hunter2@h/d", "@ as %40, / as %2F, # as %23"),
        ("dog://me:1/hunter2@h/d", "must be dog://user:password@host:port/database"),
        ("dog://me:1#hunter2@h/d", "must be dog://user:password@host:port/database"),
        ("dog://me:hunt@hunter2@h/d", "must be dog://user:password@host:port/database"),
        ("dog://me:hunter2@@h/d", "must be dog://user:password@host:port/database"),
        ("dog://me:hunter2@h/d@e", "must be dog://user:password@host:port/database"),
        ("dog://me:hunter2?x@h/d", "must be dog://user:password@host:port/database"),
        ("dog://me:1?charset=hunter2@h/d", "must be dog://user:password@host:port/database"),
        ("dog://me:hunter2:x@h:1:2/d", "has no valid host and port; special characters"),
        ("dog://me:hunter2@h:0/d", "has no valid host and port"),
        ("dog://me:hunter2@h:65536/d", "has no valid host and port"),
        ("dog://me:hunter2@h:port/d", "has no valid host and port"),
        ("dog://me:hunter2@h h/d", "has no valid host and port"),
        ("dog://me:hunter2%zz@h/d", "has a % without two hexadecimal digits"),
        ("dog://me:hunter2%@h/d", "has a % without two hexadecimal digits"),
        ("dog://me:hunter2%ff@h/d", "has % sequences that are not UTF-8"),
        ("dog://h/d?hunter2=x", "has an unknown parameter; allowed: host, port"),
        ("dog://h/d?sslmod=hunter2", "has an unknown parameter; did you mean sslmode?"),
        ("dog://h/d?charset=a&charset=hunter2", "gives its options.charset twice"),
        ("dog://h/d?host=hunter2", "gives its host twice"),
        ("dog://h/d?sslrootcert=system", "write sslmode=verify-full"),
        ("dog://h/d?connect_timeout=0", "its connect_timeout must be a number above 0"),
        ("dog://h/d?service=hunter2", "has the parameter service, which is unknown: write parts"),
        ("dog://a,b/d?port=1,2,3", "its port must be a whole number"),
        ("dog://h/d?sslmode=hunter2", "its ssl.mode must be off, require"),
        ("dog://h/d?statement_timeout=hunter2", "its options.statement_timeout must be a whole"),
        ("dog://me:hunter2%00@h/d", "contains a NUL character"),
        ("dog:///d?host=hunter2%20", "must be one host name"),
        ("dog://a,hunter2%20/d", "entry 2 must be a host"),
    ],
)
def test_a_bad_url_is_told_without_any_of_it(url: str, told: str) -> None:
    (line,) = url_problems(url)
    assert line.startswith("url: ")
    assert told in line


def test_a_bad_url_hides_no_other_problem_and_makes_up_none() -> None:
    told = url_problems("dog://me:hunter2%@h/d", pool={"timeout": 0})
    assert [line.split(":")[0] for line in told] == ["url", "pool.timeout"]


def test_a_url_that_is_no_text_is_told() -> None:
    assert "url: must be text or null; put it in quotes" in problems(url=5)


def test_no_url_stays_in_the_settings() -> None:
    settings = parse_url("dog://me:hunter2@h/d")
    assert settings.url is None
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    by_secret = parse(url=SecretStr("dog://me:hunter2@h/d"))
    assert by_secret == settings


@settings(deadline=None)
@given(st.text(max_size=30))
@example("")
def test_any_text_as_url_gives_settings_or_a_problem(text: str) -> None:
    for url in (text, f"dog://{text}", f"dog://u:p@h/d?{text}"):
        with contextlib.suppress(ConfigurationError):
            assert parse(url=url).database
