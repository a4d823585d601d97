"""Finds the servers, the same way as the tests do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

from jobu_db.testing.servers import Candidate, Kind, ServerError, candidates


@contextmanager
def found(
    kinds: Sequence[str], names: Sequence[str] = ()
) -> Iterator[list[tuple[str, str | None]]]:
    """Start what is asked for; yield (kind, URL) of each, URL None on SQLite.

    Taken are the servers that JOBU_TEST_POSTGRES_URL and JOBU_TEST_MYSQL_URL name; else, as private
    ones, all whose names begin like one of `names`, or the first that is found.
    """
    with ExitStack() as stack:
        places: list[tuple[str, str | None]] = []
        unmatched = set(names)
        for kind in kinds:
            if kind == "sqlite":
                places.append((kind, None))
                continue
            chosen = _chosen(cast(Kind, kind), names)
            unmatched -= {name for name in names for one in chosen if one.name.startswith(name)}
            places += [(kind, _started(one, stack)) for one in chosen]
        if unmatched:
            sys.exit(f"no server here is called {', '.join(sorted(unmatched))}")
        yield places


def _chosen(kind: Kind, names: Sequence[str]) -> list[Candidate]:
    try:
        there = candidates(kind)
    except ServerError as error:
        sys.exit(str(error))
    given = [one for one in there if one.name.startswith("url")]
    named = [one for one in there if one.name.startswith(tuple(names))]
    return given or named or there[:1]


def _started(one: Candidate, stack: ExitStack) -> str:
    try:
        server = one.start(_announce)
    except ServerError as error:
        sys.exit(str(error))
    stack.callback(server.close)
    _announce(server.describe())
    return server.url


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
