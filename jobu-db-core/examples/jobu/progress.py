"""How far the run is: a bar on a terminal, a line for every tenth elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar


class Progress:
    """Counts finished executions, inside `with`."""

    def __init__(self, console: Console, total: int, finished: int) -> None:
        self._console = console
        self._total = total
        self._finished = finished
        columns = (TextColumn("executions"), BarColumn(None), MofNCompleteColumn())
        self._bar = Bar(*columns, TimeElapsedColumn(), console=console)
        self._task = self._bar.add_task("", total=total, completed=finished)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def advance(self) -> None:
        """One more is finished."""
        self._finished += 1
        self._bar.advance(self._task)
        tenth = 10 * self._finished // self._total
        if not self._console.is_terminal and tenth > 10 * (self._finished - 1) // self._total:
            self._console.print(f"{self._finished:,} of {self._total:,} executions finished")

    def interrupt(self, message: str) -> None:
        """Give the terminal back, say why, and see to it that the message gets out."""
        self._stop()
        self._console.print(message, soft_wrap=True)
        self._console.file.flush()

    def _stop(self) -> None:
        if self._console.is_terminal:
            self._bar.stop()
