"""Reads from replicas, which show what the reader itself has committed.

`own_positions`  where the running task's writes are in what the primary has written
`host_watch`     asks one server again and again how it is
`lag`            how far a replica is behind
`choice`         the replicas of a database, and which of them answers the next read
`transaction`    a read-only transaction on the replica that was chosen, or on the primary
`statements`     `db.replica`: a read outside a transaction

Invariants:
    A read is never answered by a server that is not known to have all that the reader's task, and
    the tasks that share its positions, have committed through the database.
    A replica that is lost, lagging or promoted answers nothing until it was seen to be well.

What a position is, only the backend knows (`jobu_db.replication`): here they are compared, merged
and written down.
"""

from jobu_db.replicas.choice import Replicas
from jobu_db.replicas.own_positions import OwnPositions
from jobu_db.replicas.statements import ParameterReplicaStatements, ReplicaStatements
from jobu_db.replicas.transaction import ReplicaTransaction

__all__ = [
    "OwnPositions",
    "ParameterReplicaStatements",
    "ReplicaStatements",
    "ReplicaTransaction",
    "Replicas",
]
