"""A progress bar for what takes longer than a person likes to wait without a sign of life."""

import time
from types import TracebackType
from typing import Any

PATIENCE = 2.0  # seconds without a bar


class Bar:
    """A bar on the error stream of a terminal, from the third second on.

    Args:
        text: what is going on.
        total: steps, None where nobody knows how many.
        shown: False for no bar at all.
    """

    def __init__(self, text: str, total: int | None = None, shown: bool = True) -> None:
        self.text, self.total, self.shown = text, total, shown
        self._progress: Any = None
        self._started = time.monotonic()

    def __enter__(self) -> "Bar":
        return self

    def at(self, done: int, note: str = "") -> None:
        """So many steps are done."""
        if self._progress is None:
            if not self.shown or time.monotonic() - self._started < PATIENCE:
                return
            self._show()
        self._progress.update(self._task, completed=done, description=f"{self.text} {note}")

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Elapsed())
        self._progress = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._progress.add_task(self.text, total=self.total)
        self._progress.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
