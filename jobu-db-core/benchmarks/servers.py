"""Finds the servers, the same way as the tests do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

from jobu_db.testing.servers import Kind, ServerError, candidates


@contextmanager
def found(kinds: Sequence[str]) -> Iterator[list[tuple[str, str | None]]]:
    """Start what is asked for; yield (kind, URL) of each, URL None on SQLite.

    Taken are the servers that JOBU_TEST_POSTGRES_URL and JOBU_TEST_MYSQL_URL name; else the first
    that is found, as a private one.
    """
    with ExitStack() as stack:
        places: list[tuple[str, str | None]] = []
        for kind in kinds:
            if kind == "sqlite":
                places.append((kind, None))
                continue
            places += [(kind, url) for url in _urls(cast(Kind, kind), stack)]
        yield places


def _urls(kind: Kind, stack: ExitStack) -> list[str]:
    try:
        there = candidates(kind)
        given = [one for one in there if one.name.startswith("url")]
        servers = [one.start(_announce) for one in given or there[:1]]
    except ServerError as error:
        sys.exit(str(error))
    for server in servers:
        stack.callback(server.close)
        _announce(server.describe())
    return [server.url for server in servers]


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
