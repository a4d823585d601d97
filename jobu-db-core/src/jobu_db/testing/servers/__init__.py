"""Real database servers for tests: found, started as private throw-away ones, or installed.

`jobu_db.testing.plugin` turns them into pytest fixtures.
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
