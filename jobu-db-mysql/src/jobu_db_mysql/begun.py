"""A transaction of ours on one session, as far as the server has told.

Sessions are lent with autocommit off. The server then begins a transaction by itself, with the
first statement that touches a table, so that nothing need be sent ahead of it. It says behind each
statement whether one is open. Behind an error it does not, and after some statements another one
may be open than before: then it is asked before anything else is sent. Else what follows would
begin another transaction, which would look like ours.
"""

from __future__ import annotations

from dataclasses import dataclass

MARK = "jobu_db_mark"
"""A savepoint: it is gone once the transaction has ended, whatever was begun behind it."""


@dataclass(slots=True, eq=False)
class Begun:
    """What is known of a transaction that was begun, until it is committed or rolled back by us.

    Attributes:
        isolation: The level that is still to be set, or None.
        start: The statement that begins, as long as it is still to be sent; "" if the server is
            to begin by itself.
        sent: Something was sent in it.
        opened: The server has said that it is open.
        undone: An error came last after which the server has none of it left.
        marked: MARK was set before a statement that may have ended it.
        ended: It was ended by something else than its commit or rollback.
    """

    isolation: str | None = None
    start: str = ""
    sent: bool = False
    opened: bool = False
    undone: bool = False
    marked: bool = False
    ended: bool = False

    def told(self, *, is_open: bool) -> None:
        """Take note of what the server says of the session."""
        if is_open:
            self.opened = True
        # It was open, and is not any more: a COMMIT in the text did that, DDL, or an error that
        # undoes all. Not open yet says nothing: the server begins it at the first statement that
        # needs it.
        elif self.opened or self.undone:
            self.ended = True
        self.undone = False
