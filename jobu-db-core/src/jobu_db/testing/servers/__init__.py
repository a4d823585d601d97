"""Real database servers for tests: found, started as private throw-away ones, or installed.

`jobu_db.testing.plugin` turns them into pytest fixtures.

`find`        which servers can be had: given by URL, installed here, or in a container
`server`      one that runs, and its `Control`
`private`     one that the tests start and throw away; `postgres` and `mysql` know their programs
`given`       one that a URL names
`containers`  one in a container; `debian` installs packages
`lend`        one that the workers of pytest-xdist share
`processes`, `wire`  ending processes; asking whether a server answers
"""

from jobu_db.testing.servers.find import Candidate, Given, Private, candidates
from jobu_db.testing.servers.lend import Lender, borrow
from jobu_db.testing.servers.server import Control, Kind, Server, ServerError

__all__ = [
    "Candidate",
    "Control",
    "Given",
    "Kind",
    "Lender",
    "Private",
    "Server",
    "ServerError",
    "borrow",
    "candidates",
]
