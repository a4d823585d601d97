"""The connection pool that every backend shares.

A caller asks `pool.AsyncConnectionPool` and gets a `lease.PooledConnection`. Between them:

`state`        decides, synchronously: who gets which connection, what is opened, checked, closed
`slots`        one place in the pool, the phase its connection is in, and the actions that `state`
               answers with; how a transaction is to end for whose end nobody waited
`runner`       performs those actions: tasks, wake-ups, the upkeep timer
`maintenance`  the I/O on one connection: open, check, reset, close, and the end of a transaction
               that was left to the pool; each limited in time
`silence`      noticing a peer that does not answer
`takeover`     noticing that one of several servers is silent, and another is in its place
`handover`     whether anybody else could release what a task holds
`translation`  what a driver's errors mean
`waiters`      who stands in the queue, and until when
`backoff`      when to try a server again that accepts no connection
`stats`, `messages`  the figures, and the texts of the pool's errors
`observer`     what is told to listeners (`jobu_db.events`), and to `slow_log`
`advice`       whether the pool is too large or too small for what it saw
`two_phase_notes`  what this process knows of the atomic units of this database
`fork`         which process this is, and what a forked child must not touch

Data flows one way: an event (acquire, release, a finished connect) → one call of `state` →
a list of actions → `runner`, whose results are the next events.
"""

from jobu_db.pool.lease import PooledConnection
from jobu_db.pool.pool import AsyncConnectionPool

__all__ = ["AsyncConnectionPool", "PooledConnection"]
