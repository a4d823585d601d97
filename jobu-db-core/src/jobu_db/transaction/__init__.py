"""Transactions: blocks, savepoints, single statements, and units over several databases.

`async with db.transaction()` is a `block.ManagedTransaction`. On entry it makes a level:

`root`             the outermost one: takes a connection, begins, commits or rolls back
`savepoint`        one inside another, on the same connection
`session`          the leased connection that all levels share; every statement passes through it
`lender`           where its connection comes from, and another one if that had died
`context`          what the code in the block is handed: statements, `on_commit`, manual control
`statement_queue`  statements of several tasks take turns on one connection
`rows`             `iterate`: rows read piece by piece
`ambient`          which transaction the running code is in
`write_turn`       the turn to write, where a database has one writer at a time
`outcome`          how blocks end: callbacks, notes, what is raised
`group`            several transactions that end together, and what is enlisted in which block
`unit_of_work`     several databases in one block, and units inside units
`atomic`           the same, all or nothing whatever fails
`decisions`        the rows by which a database decides atomic units
`time_limit`       the seconds that a block may take
`autocommit`       one statement outside a transaction
`connection_session`  `async with db.session()`: one connection for a while, without a transaction

A statement goes context → session → driver. BEGIN need not be sent by itself: the driver may have
it travel with the first statement (`begin_later`), which `session` sends on another connection if
its own had died while it was idle. The end of a block goes block → `group` → root or savepoint →
session → driver, then `outcome` says what the caller hears; the end of a reader may be left to the
pool (`root`). Nothing here knows a database: a transaction needs a pool, which knows its name, its
driver and what an error means.
"""

from jobu_db.transaction.atomic import AtomicUnit
from jobu_db.transaction.block import ManagedTransaction
from jobu_db.transaction.connection_session import DatabaseSession, ParameterSession
from jobu_db.transaction.context import ParameterContext, TransactionContext
from jobu_db.transaction.rows import RowStream
from jobu_db.transaction.unit_of_work import UnitOfWork

__all__ = [
    "AtomicUnit",
    "DatabaseSession",
    "ManagedTransaction",
    "ParameterContext",
    "ParameterSession",
    "RowStream",
    "TransactionContext",
    "UnitOfWork",
]
