"""Which async generator encloses the running code.

An async generator runs in its reader's context: what it binds to a context variable is still
bound while it is suspended at a yield and the reader runs. To tell the two apart, one notes
the generator and asks later whether it is running.

`ag_running` is true from the reader's request until the generator yields, also while it waits
for something, in helpers that it awaits too; it is false while the reader runs.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import weakref
from collections.abc import Iterable
from types import AsyncGeneratorType, FrameType
from typing import Any

LENDERS = frozenset({"contextlib", "pytest_asyncio", "anyio"})
"""Packages that drive generators whose code lends what it holds at its yield, on purpose: it is a
context manager or a fixture."""


class EnclosingGenerator:
    """An async generator that code runs in.

    Attributes:
        place: `file:line` in it.
    """

    __slots__ = ("_generator", "place")

    def __init__(self, generator: AsyncGeneratorType[Any, Any], place: str) -> None:
        self._generator = weakref.ref(generator)
        self.place = place

    def is_running(self) -> bool:
        """False while it is suspended at a yield, and once it has ended."""
        generator = self._generator()
        return generator is not None and generator.ag_running


def enclosing_generator() -> EnclosingGenerator | None:
    """Return the nearest async generator around the caller; None if there is none.

    Those that `LENDERS` drive do not count.
    """
    if not _may_be_any():
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR and not _is_lent(frame):
            generator = _generator_of(frame)
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            return None if generator is None else EnclosingGenerator(generator, place)
        frame = frame.f_back
    return None


_FEW = 20
"""So many generators are asked sooner than all frames are looked at."""


def _may_be_any() -> bool:
    """False if none runs of those that the event loop knows: as a rule, and sooner than a look at
    all frames. One that is suspended, as that of a lifespan is, encloses nothing that runs."""
    # `_asyncgens` is private to asyncio's own loops: the generators that were started in it.
    # Without it, all frames are looked at.
    known = getattr(asyncio.get_running_loop(), "_asyncgens", None)
    if known is None or len(known) > _FEW:
        return True
    for reference in list(known.data):  # to iterate over a WeakSet itself takes ten times as long
        generator = reference()
        if generator is not None and generator.ag_running:
            return True
    return False


def _is_lent(frame: FrameType) -> bool:
    driver = frame.f_back
    if driver is None:
        return False
    return str(driver.f_globals.get("__name__")).partition(".")[0] in LENDERS


def _generator_of(frame: FrameType) -> AsyncGeneratorType[Any, Any] | None:
    """Find the generator that a frame belongs to. Python tells from 3.14 on; before that, its
    event loop knows all that were started. uvloop does not show them: there all objects are looked
    through, once for each generator."""
    if sys.version_info >= (3, 14):
        owner: Any = frame.f_generator
        return owner if isinstance(owner, AsyncGeneratorType) else None
    known = getattr(asyncio.get_running_loop(), "_asyncgens", None)
    if known is not None:
        return _with_frame(known, frame)
    found = _with_frame(_found, frame)
    for generation in range(3) if found is None else ():  # the youngest first
        found = _with_frame(gc.get_objects(generation), frame)
        if found is not None:
            _found.add(found)
            break
    return found


_found: weakref.WeakSet[AsyncGeneratorType[Any, Any]] = weakref.WeakSet()
"""Generators that were found once: one that works for long begins many transactions."""


def _with_frame(objects: Iterable[Any], frame: FrameType) -> AsyncGeneratorType[Any, Any] | None:
    for one in objects:
        if type(one) is AsyncGeneratorType and one.ag_frame is frame:
            return one
    return None
