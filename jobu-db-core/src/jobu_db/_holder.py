"""Who holds a connection, and where they asked for it: for errors and leak reports."""

from __future__ import annotations

import asyncio
import sys
import traceback
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_OWN_CODE = str(Path(__file__).parent)
_TESTING = str(Path(__file__).parent / "testing")


class Holder:
    """A task and the line at which it asked. The line number is looked up only when told."""

    __slots__ = ("_code", "_instruction", "stack", "task")

    def __init__(self, *, with_stack: bool) -> None:
        self.task: asyncio.Task[Any] | None = asyncio.current_task()
        frame = _callers_frame()
        self._code: CodeType = frame.f_code
        self._instruction = frame.f_lasti
        self.stack = "".join(traceback.format_stack(frame)) if with_stack else ""

    @property
    def task_name(self) -> str:
        return self.task.get_name() if self.task else "no task"

    @property
    def place(self) -> str:
        """`file:line` of the code outside this package that asked."""
        for start, end, line in self._code.co_lines():
            if start <= self._instruction < end:
                return f"{self._code.co_filename}:{line}"
        return self._code.co_filename

    def __str__(self) -> str:
        return f"task {self.task_name!r} at {self.place}"


def _callers_frame() -> FrameType:
    frame = sys._getframe(2)
    while _is_own(frame.f_code.co_filename) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _is_own(filename: str) -> bool:
    return filename.startswith(_OWN_CODE) and not filename.startswith(_TESTING)
