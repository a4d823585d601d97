"""What is undone between two holders of a connection.

Not undone, because the server offers no way that leaves asyncpg's cached statements alone:
statements that a function or DO block prepared by a name put together at run time; libraries
loaded with LOAD; what extensions and procedural languages keep in a session; the state of
`random()`; and names of custom settings, which become empty.
"""

from __future__ import annotations

from jobu_db_postgres._private import POSITION_MESSAGE
from jobu_db_postgres.owed import end_of

RESET = (
    # First, for what follows may be forbidden to the role that the holder took.
    "RESET SESSION AUTHORIZATION;"
    # PostgreSQL 15 and 18 end a role with the line before; the manual promises it of this one.
    "RESET ROLE;"
    # Next, for it ends timeouts, search paths and read-only defaults of the holder.
    "RESET ALL;"
    "CLOSE ALL;"
    "UNLISTEN *;"
    "SELECT pg_catalog.pg_advisory_unlock_all();"
    "DISCARD TEMP;"
    "DISCARD SEQUENCES;"
)

_COMMIT = ("COMMIT", "COMMIT")

OWED_COMMIT = end_of(_COMMIT)

OWED_COMMIT_AND_RESET = end_of(
    # The reset has a transaction of its own. In the old one, it would not see what SET LOCAL hides
    # and COMMIT brings back. In none, it would not be committed before the BEGIN that follows,
    # which would join it: a ROLLBACK would bring back all that was reset.
    _COMMIT,
    # Whatever the holder made the default: one that is deferrable would wait for others.
    ("BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN"),
    # As in RESET.
    ("RESET SESSION AUTHORIZATION", "RESET"),
    ("RESET ROLE", "RESET"),
    ("RESET ALL", "RESET"),
    ("CLOSE ALL", "CLOSE CURSOR ALL"),
    ("UNLISTEN *", "UNLISTEN"),
    ("SELECT WHERE pg_catalog.pg_advisory_unlock_all() IS NULL", "SELECT 0"),
    ("DISCARD TEMP", "DISCARD TEMP"),
    ("DISCARD SEQUENCES", "DISCARD SEQUENCES"),
    _COMMIT,
)

DEALLOCATE = (
    # DEALLOCATE ALL would take asyncpg's own statements along, which asyncpg goes on using.
    "DO $$DECLARE statement text; BEGIN "
    "FOR statement IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql LOOP "
    "EXECUTE pg_catalog.format('DEALLOCATE %I', statement); END LOOP; END$$;"
)

COMMIT_AND_RESET = (
    # The SET is refused in a failed transaction, where COMMIT alone would answer like a success.
    # It also takes effect with the COMMIT, and a completed reset ends it: where it is found set
    # after an error, the COMMIT came through and the reset did not.
    "SET jobu_db.committed = yes;COMMIT;" + RESET
)

_NOTE_DURABILITY = (
    # Ahead of the COMMIT, which ends what is set for the transaction.
    "SELECT pg_catalog.set_config('jobu_db.synchronous_commit',"
    " pg_catalog.current_setting('synchronous_commit'), false);"
)

_TELL_POSITION = (
    # At this level a message reaches the client whatever it asked for, and no log by default.
    "DO $$DECLARE place pg_lsn := CASE pg_catalog.current_setting('jobu_db.synchronous_commit')"
    " WHEN 'off' THEN pg_catalog.pg_current_wal_insert_lsn()"
    " ELSE pg_catalog.pg_current_wal_flush_lsn() END; BEGIN "
    f"RAISE INFO '{POSITION_MESSAGE}%/%/%',"
    " (SELECT system_identifier FROM pg_catalog.pg_control_system()),"
    " pg_catalog.substr(pg_catalog.pg_walfile_name(place), 1, 8), place; END$$;"
)

_COMMIT_AND_TELL = f"SET jobu_db.committed = yes;{_NOTE_DURABILITY}COMMIT;{_TELL_POSITION}"

COMMIT_TELL_AND_RESET = _COMMIT_AND_TELL + RESET

COMMIT_AND_TELL = _COMMIT_AND_TELL + "RESET jobu_db.committed;"

ROLLBACK_AND_RESET = "ROLLBACK;" + RESET

WAS_COMMITTED = "SELECT pg_catalog.current_setting('jobu_db.committed', true) = 'yes'"
