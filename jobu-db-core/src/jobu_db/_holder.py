"""Who holds a connection, and where they asked for it: for errors and leak reports."""

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

_OWN_CODE = str(Path(__file__).parent) + os.sep
_TESTING = _OWN_CODE + "testing" + os.sep


class Holder:
    """A task and the line at which it asked. The line number is looked up only when told.

    It does not keep the task alive: a task keeps its result, and that may be the very lease whose
    garbage collection the pool waits for.
    """

    __slots__ = ("_code", "_instruction", "_stack", "_task", "task_name")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, with_stack: bool) -> None:
        task = asyncio.current_task(loop)  # given the loop, Python 3.11 needs no system call
        self._task = task and weakref.ref(task)
        self.task_name = task.get_name() if task else "no task"
        frame = _callers_frame()
        self._code: CodeType = frame.f_code
        self._instruction = frame.f_lasti
        self._stack = _walk(frame) if with_stack else None

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task, or None if it is gone."""
        return self._task() if self._task else None

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


def _walk(frame: FrameType) -> traceback.StackSummary:
    inner_first = list(traceback.walk_stack(frame))
    # Source lines are read only when told: a leak is rare, an acquire is not.
    return traceback.StackSummary.extract(iter(inner_first[::-1]), lookup_lines=False)


def _callers_frame() -> FrameType:
    frame = sys._getframe(3)  # above whoever made the holder
    while _is_own(frame.f_code.co_filename) and frame.f_back is not None:
        frame = frame.f_back
    return frame


@lru_cache(maxsize=1024)  # asked two or three times per acquire
def _is_own(filename: str) -> bool:
    return filename.startswith(_OWN_CODE) and not filename.startswith(_TESTING)
