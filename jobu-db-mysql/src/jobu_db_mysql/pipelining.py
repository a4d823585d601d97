"""Whether several commands may share one write.

Servers take that. MySQL Router 9.7, for one, passes on the second of them as an unknown command.
"""

from __future__ import annotations

import logging
from collections import Counter

from jobu_db.settings import Address

logger = logging.getLogger("jobu_db")

_ENOUGH = 2
"""Refusals by one address after which commands go there one by one."""


class Pipelining:
    """What is known of each address.

    Args:
        wanted: False if every command is to wait for the answer to the one before, everywhere.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._refusals: Counter[Address] = Counter()

    def allows(self, address: Address) -> bool:
        """Say whether commands to this address may share a write."""
        return self._wanted and self._refusals[address] < _ENOUGH

    def refused(self, address: Address) -> None:
        """Note that a command was not understood which shared a write with another."""
        self._refusals[address] += 1
        if self._wanted and self._refusals[address] == _ENOUGH:
            logger.warning(
                "%s does not accept several commands in one write, as some proxies do not: they go "
                "there one by one from now on; set options.pipelining to false to start that way",
                address,
            )
