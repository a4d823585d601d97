"""PostgreSQL for jobu-db, through asyncpg.

`connection`  the names that users import, and the hook by which the core finds this backend
`settings`    what may be configured; `url`, what a URL may say
`driver`      what the core calls: begin, commit, run a statement, reset, close

A session:
`connecting`  opens one to the first host that will do; `roles` says whether a host still does
`transport`   puts BEGIN in front of what is sent first; `owed`, the end of the reader before
`reset`       what is undone between two holders
`listening`   `db.listen`: notifications, over connections that break

Statements:
`codecs`      how values travel where asyncpg's own way will not do
`cursor`      rows read piece by piece
`effects`     what a text tells before it is sent
`schema`      whether what asyncpg remembers of statements and types still holds
`status`      what `execute` returns
`errors`, `messages`  what an error means, and what may be shown of its text

`two_phase`, `replication`  its part in atomic units; positions, for reads from replicas
`guard`       `ctx.connection`, until its block is left
`typed`       types of what statements return
`_private`    all that is used of asyncpg's private parts
"""

from jobu_db_postgres.connection import PostgresDatabase
from jobu_db_postgres.listening import Notification

__version__ = "0.1.0"

__all__ = ["Notification", "PostgresDatabase", "__version__"]
