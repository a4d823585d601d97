"""What `execute` returns: the server's command tag, such as "INSERT 0 1"."""

from __future__ import annotations


class Status(str):
    """The server's own text for what a statement did, with the number in it."""

    __slots__ = ()

    @property
    def rowcount(self) -> int:
        """Rows inserted, updated, deleted, merged, copied or returned; 0 for all else.

        The tag ends with that number where there is one (PostgreSQL's manual, "CommandComplete").
        """
        number = self.rpartition(" ")[2]
        return int(number) if number.isdecimal() else 0
