"""Starts one process per comparison and reads what it measured."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from compare import Order
from outcome import Figure, Outcome
from places import describe

LIMIT = 1800
"""Seconds after which a comparison that hangs is ended."""


def outcome(order: Order) -> Outcome:
    """Make one comparison."""
    place = asyncio.run(describe(order.kind, order.url))
    results = compared(order)
    if order.work == "h":
        for result in results:
            if result["error"] is None:
                (alone,) = compared(replace(order, memory=result["title"]))
                result["notes"] |= alone["notes"]
    return Outcome(order.work, order.kind, place, tuple(Figure.of(result) for result in results))


def compared(order: Order) -> list[dict[str, Any]]:
    """Run compare.py in a process of its own."""
    program = Path(__file__).with_name("compare.py")
    done = subprocess.run(
        [sys.executable, str(program), json.dumps(asdict(order))],
        stdout=subprocess.PIPE,
        timeout=LIMIT,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
