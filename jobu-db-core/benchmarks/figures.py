"""The figures of a run, and how it was made: what main.py writes, and others read."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from outcome import Figure, Outcome

PINNED, APART, NETWORK = "pinned", "apart", "latency 1"
"""The ways to measure for which there are targets."""
TITLES = {
    PINNED: "One processor",
    APART: "Two processors",
    NETWORK: "A network of 1 ms",
}
CONDITIONS = {
    PINNED: "All on one processor, servers included: no waiting hides any work.",
    APART: "The servers on one processor, everything else on another.",
    NETWORK: "A proxy makes each round trip to a server 1 ms longer.",
}
NAME = "figures.json"


def mode_of(given: Namespace) -> str:
    """Say how the command line wants it measured: PINNED, APART, NETWORK, or something else.

    Behind a network it matters little whether the servers and the proxy have a processor.
    """
    if given.latency:
        return f"latency {given.latency:g}" + ", pinned" * (given.pinned and not given.apart)
    return APART if given.apart else PINNED if given.pinned else "free"


@dataclass(frozen=True)
class Run:
    """What was measured in one go.

    Attributes:
        mode: See `mode_of`.
        quick: Its figures mean nothing.
        machine: What it ran on, and the versions of all that took part.
    """

    mode: str
    quick: bool
    machine: str
    outcomes: Sequence[Outcome]

    @property
    def conditions(self) -> str:
        """How it was measured, as a sentence."""
        return CONDITIONS.get(self.mode, f"Measured as: {self.mode}.")

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAME).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read what `save` wrote."""
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        outcomes = [
            Outcome(**{**one, "figures": tuple(Figure(**each) for each in one["figures"])})
            for one in found.pop("outcomes")
        ]
        return cls(**found, outcomes=outcomes)
