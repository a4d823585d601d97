"""What a seeded bug is."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` must occur exactly once in `file`, so that no mutant quietly stops applying."""

    name: str
    file: str
    old: str
    new: str
