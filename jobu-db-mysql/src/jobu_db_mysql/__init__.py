"""MySQL and MariaDB for jobu-db, through asyncmy.

`connection`   the names that users import, and the hook by which the core finds this backend
`settings`     what may be configured
`driver`       what the core calls: begin, commit, run a statement, reset, close

A session:
`connecting`   opens one to the first host that will do; `logging_in` gives the password to no
               other, `roles` says whether the host will do, `session_setup` how each session begins
`session`      the commands that run in it, on top of `session_transaction` (its transaction, with
               `begun`, what is known of it) and `session_state` (what the server told of it)
`commands`     one command at a time, and never over unread rows
`pipelining`   whether several commands may share one write
`deadline`, `kill`  a limit for any statement, and what is stopped on the server

Statements:
`values`       from parameters to SQL, with `literals`; from results to rows
`many`, `scripts`, `cursor`  executemany, scripts, rows read piece by piece
`implicit_commit`, `reading`  what a text does to its transaction, and how a server reads it
`errors`, `messages`  what an error means, and what may be shown of its text

`two_phase`, `replication`  its part in atomic units; positions, for reads from replicas
`guard`        `ctx.connection`, until its block is left
`typed`, `aiosql_adapter`  types of what statements return; aiosql's driver
`_private`     all that is used of asyncmy's private parts
"""

from __future__ import annotations

from jobu_db_mysql.connection import MySQLDatabase

__all__ = ["MySQLDatabase", "__version__"]

__version__ = "0.1.0"
