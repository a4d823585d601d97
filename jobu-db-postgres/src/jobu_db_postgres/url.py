"""What a URL may say after "?", and libpq's variables, which mean the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from jobu_db.settings import UrlParameter

OPTIONS = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "timezone",
    "application_name",
)
"""Settings of the server that have an option of their own."""

_ONE_OPTION = re.compile(
    r"(?:-c\s*|--)(?P<name>[A-Za-z_][\w.-]*)=(?P<value>(?:[^\s\\]|\\.)*)(?:\s+|$)", re.DOTALL
)


def options(text: str) -> Mapping[tuple[str, ...], Any]:
    """Read `options` of libpq: `-c name=value` and `--name=value`, with blanks as `\\ `."""
    found: dict[tuple[str, ...], Any] = {}
    others: dict[str, str] = {}
    kind, at, text = type(text), 0, text.strip()
    while at < len(text):
        match = _ONE_OPTION.match(text, at)
        if match is None:
            raise ValueError(
                "has options other than -c name=value: write the settings of the server under "
                "options.server_settings"
            )
        name = match["name"].replace("-", "_")
        value = re.sub(r"\\(.)", r"\1", match["value"], flags=re.DOTALL)
        if name.lower() in OPTIONS:
            found["options", name.lower()] = kind(value)
        else:
            others[name] = value
        at = match.end()
    return {**found, ("options", "server_settings"): others} if others else found


def _without_effect(*harmless: str, advice: str) -> Callable[[str], Mapping[tuple[str, ...], Any]]:
    """Read a parameter whose harmless values ask for what is so anyway."""

    def read(text: str) -> Mapping[tuple[str, ...], Any]:
        if text.lower() not in harmless:
            raise ValueError(advice)
        return {}

    return read


def _host_order(text: str) -> Mapping[tuple[str, ...], Any]:
    # libpq's load_balance_hosts knows `disable` and `random`.
    return {("host_order",): {"disable": "listed"}.get(text, text)}


_NOT_KNOWN = "is not supported: leave it out"
_KEEPALIVE = "is not supported: write silence_timeout under pool"

PARAMETERS: Mapping[str, UrlParameter] = {
    "dbname": ("database",),
    "target_session_attrs": ("target_session_attrs",),
    "load_balance_hosts": _host_order,
    "options": options,
    "statement_cache_size": ("options", "statement_cache_size"),
    **{name: ("options", name) for name in OPTIONS},
    "channel_binding": _without_effect(
        "disable",
        "prefer",
        advice="asks for channel_binding=require, which asyncpg cannot do: leave it out, and write "
        "sslmode=verify-full, which makes sure of the server, too",
    ),
    "gssencmode": _without_effect(
        "disable",
        "prefer",
        advice="asks for gssencmode=require, which asyncpg cannot do: leave it out, and write "
        "sslmode=verify-full",
    ),
    "client_encoding": _without_effect(
        "utf8",
        "utf-8",
        "unicode",
        "auto",
        advice="asks for a client_encoding other than UTF8, and asyncpg takes no other: leave it "
        "out",
    ),
    "passfile": "is not supported: write password_file, a file with nothing but the password",
    "hostaddr": "is not supported: write the address as the host",
    "fallback_application_name": "is not supported: write application_name",
    "keepalives": _KEEPALIVE,
    "keepalives_idle": _KEEPALIVE,
    "keepalives_interval": _KEEPALIVE,
    "keepalives_count": _KEEPALIVE,
    "tcp_user_timeout": _KEEPALIVE,
    "sslpassword": "is not supported: give a key that is not encrypted",
    "service": "is not supported: write the parts themselves",
    **dict.fromkeys(
        (
            "gsslib",
            "krbsrvname",
            "replication",
            "require_auth",
            "requirepeer",
            "requiressl",
            "ssl_max_protocol_version",
            "ssl_min_protocol_version",
            "sslcertmode",
            "sslcompression",
            "sslcrl",
            "sslcrldir",
            "sslnegotiation",
            "sslsni",
        ),
        _NOT_KNOWN,
    ),
    # Of other libraries' URLs.
    "ssl": "is not known to PostgreSQL: write sslmode",
    "schema": "is not known to PostgreSQL: write options.server_settings.search_path",
    "search_path": "belongs elsewhere: write options.server_settings.search_path",
    "pgbouncer": "is not known to PostgreSQL: write statement_cache_size=0",
    "prepared_statement_cache_size": "is not known to PostgreSQL: write statement_cache_size",
    "connection_limit": "is not known to PostgreSQL: write max_size under pool",
    "pool_timeout": "belongs elsewhere: write timeout under pool",
}

ENVIRONMENT = {
    "PGHOST": "host",
    "PGPORT": "port",
    "PGAPPNAME": "application_name",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGOPTIONS": "options",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGCHANNELBINDING": "channel_binding",
    "PGSSLMODE": "sslmode",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLCERT": "sslcert",
    "PGSSLKEY": "sslkey",
    "PGTZ": "timezone",
    "PGHOSTADDR": "hostaddr",
    "PGSERVICE": "service",
}
"""Those that asyncpg does not read itself, or only without the settings that it is given."""
