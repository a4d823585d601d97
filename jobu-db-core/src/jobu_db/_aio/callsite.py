"""Which task asked for a connection or a turn, and at which line: for errors and leak reports."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
import weakref
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_OWN_CODE = str(Path(__file__).parents[1]) + os.sep
# What fixtures and conformance tests ask for is asked by the test, not by the library.
_TESTING = _OWN_CODE + "testing" + os.sep

Place = tuple[CodeType, int, traceback.StackSummary | None]
"""The code that asked, the instruction in it, and the stack if it is to be kept."""

Asked = tuple[weakref.ref["asyncio.Task[Any]"] | None, str, Place]
"""What is noted of every acquire: the task, its name, and the place. `Callsite` tells of it.

It does not keep the task alive: a task keeps its result, and that may be the very lease whose
garbage collection the pool waits for.
"""


_YET_TO_BE_NOTED: Asked = (None, "pending", (compile("", "?", "exec"), 0, None))


class Callsite:
    """A task and the line at which it asked. The line number is looked up only when told.

    Args:
        asked: What was noted. None: somebody has been granted the connection and not been told
            yet; a listener to events can see that moment.
    """

    __slots__ = ("_code", "_instruction", "_stack", "_task", "task_name")

    def __init__(self, asked: Asked | None) -> None:
        asked = asked or _YET_TO_BE_NOTED
        self._task, self.task_name, (self._code, self._instruction, self._stack) = asked

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task, or None if it is gone."""
        return self._task() if self._task else None

    @property
    def interrupted(self) -> bool:
        """True if the task ended by Ctrl-C or the like, wherever it was: it tidied nothing up."""
        task = self.task
        if task is None or not task.done() or task.cancelled():
            return False
        return isinstance(task.exception(), (KeyboardInterrupt, SystemExit))

    @property
    def stack(self) -> str:
        """The stack at which it asked, if it was kept, as text."""
        return "".join(self._stack.format()) if self._stack else ""

    @property
    def place(self) -> str:
        """`file:line` of the code outside this package that asked."""
        for start, end, line in self._code.co_lines():
            if start <= self._instruction < end:
                return f"{self._code.co_filename}:{line}"
        return self._code.co_filename

    def __str__(self) -> str:
        return f"task {self.task_name!r} at {self.place}"


def note(task: asyncio.Task[Any] | None, place: Place) -> Asked:
    """Return what is to be noted of a task that asks."""
    return (weakref.ref(task), task.get_name(), place) if task else (None, "no task", place)


def where_asked(*, with_stack: bool) -> Place:
    """Return where the code outside this package is that asked."""
    frame: FrameType | None = sys._getframe(2)  # above the one that wants to know
    while frame is not None:
        asking = frame
        if not _is_own(frame.f_code.co_filename):
            break
        frame = frame.f_back
    return asking.f_code, asking.f_lasti, _walk(asking) if with_stack else None


def _walk(frame: FrameType) -> traceback.StackSummary:
    inner_first = list(traceback.walk_stack(frame))
    # Source lines are read only when told: a leak is rare, an acquire is not.
    return traceback.StackSummary.extract(iter(inner_first[::-1]), lookup_lines=False)


@lru_cache(maxsize=1024)  # asked two or three times per acquire
def _is_own(filename: str) -> bool:
    return filename.startswith(_OWN_CODE) and not filename.startswith(_TESTING)


def task_name() -> str:
    """Name the current task, for messages."""
    task = asyncio.current_task()
    return f"task {task.get_name()!r}" if task else "no task"
