"""SQLite for jobu-db, through aiosqlite.

`connection`   the names that users import, and the hook by which the core finds this backend
`settings`     what may be configured; `uri`, SQLite's own way to name a file
`driver`       what the core calls: begin, commit, run a statement, reset, close

A connection has a thread of its own:
`proxy`        its half in the event loop: queues calls, and stops them
`thread`       its half in the thread: what happens within one hop
`call`, `arrivals`  one entry in the queue, and the way back to the loop
`database_file`  where the file is, and opening it; `fork`, what a forked child leaves alone
`write_gate`   which writers take turns
`authorizer`   what a statement may do, asked before it is prepared

Statements:
`statements`, `scripts`, `cursor`  running them; splitting scripts; rows read piece by piece
`values`       which values SQLite takes
`errors`       what its errors mean

`backup`       copying a database while others use it
`two_phase`    the row by which it decides an atomic unit
`guard`        `ctx.connection`, until its block is left
`typed`        types of what statements return
`_private`     all that is used of aiosqlite's and sqlite3's private parts
"""

from jobu_db_sqlite.connection import SQLiteDatabase

__version__ = "0.1.0"

__all__ = ["SQLiteDatabase", "__version__"]
