"""Who could release a connection: only the task that holds it, or another it was handed to.

A task that waits for a connection while it holds all of them waits for itself, unless it handed
some to other tasks. A lease that a block took is the block's. Any other one is looked for where
code keeps things at hand: in the variables of the task's own frames, and in those of other tasks.
This is asked only when a task holds a whole pool and wants more.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from jobu_db.pool.lease import PooledConnection
from jobu_db.pool.slots import Slot

_CONTAINERS = (list, tuple, set, frozenset)
_DEPTH = 2
"""Containers in containers that are looked into."""


def held_by_caller_alone(slots: Iterable[Slot[Any]], loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether certainly no other than the running task could release any of these."""
    loose = {slot for slot in slots if not slot.scoped}
    if not loose:
        return True
    if not loose <= set(_leased_in(_own_frames())):
        return False  # it is kept elsewhere, where another task may find it
    current = asyncio.current_task(loop)
    others = (task for task in asyncio.all_tasks(loop) if task is not current)
    return loose.isdisjoint(_leased_in(frame for task in others for frame in _frames_of(task)))


def _own_frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _frames_of(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    coroutine: Any = task.get_coro()
    # From the task's coroutine down to what it waits for; a future, at the end, has neither.
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)


def _leased_in(frames: Iterable[FrameType]) -> Iterator[Slot[Any]]:
    for frame in frames:
        yield from _leased_among(list(frame.f_locals.values()), _DEPTH)


def _leased_among(values: Iterable[Any], depth: int) -> Iterator[Slot[Any]]:
    for value in values:
        if isinstance(value, PooledConnection):
            slot = value.slot
            if slot is not None:
                yield slot
        elif depth and isinstance(value, dict):
            yield from _leased_among(list(value.values()), depth - 1)
        elif depth and isinstance(value, _CONTAINERS):
            yield from _leased_among(list(value), depth - 1)
