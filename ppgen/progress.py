"""What a person sees while a model trains, or while anything else takes long."""

import time
from collections.abc import Mapping
from typing import Any

PATIENCE = 2.0  # seconds without a bar


def losses(row: Mapping[str, Any], unit: str = "") -> str:
    """The loss in a row of metrics; of several players, whose sum says nothing, each one's."""
    players = [key for key in row if key.endswith("/loss")]
    if not players:
        return f"{row['loss']:.2f} {unit}".rstrip()
    return ", ".join(f"{key.removesuffix('/loss')} {row[key]:.2f}" for key in players)


class Bar:
    """A progress bar on a terminal, and one line an epoch."""

    def __init__(self, shown: bool, total: int, step: int, unit: str = "nats") -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.shown, self.total, self.reported, self.unit = shown, total, step, unit
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
            refresh_per_second=4,
        )
        self.task = self.progress.add_task("", total=total, completed=step, loss="-")
        self.next = 0.0

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def update(self, step: int, row: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        if not self.shown or (row is None and now < self.next):
            return
        self.next = now + 0.25
        if row is None:
            self.progress.update(self.task, completed=step)
        else:
            self.progress.update(self.task, completed=step, loss=losses(row, self.unit))

    def report(self, rows: list[dict[str, Any]]) -> None:
        """Print the newest figures, in at most twenty lines a run."""
        step = rows[-1]["step"]
        if not self.shown or (step < self.total and step - self.reported < self.total / 20):
            return
        self.reported = step
        row = next(row for row in reversed(rows) if row["split"] == "validation")
        train = next(row for row in reversed(rows) if row["split"] == "train")
        hidden = ("step", "epoch", "seconds", "split", "lr", "loss")
        terms = [f"{k} {v:.2f}" for k, v in row.items() if k not in hidden and "/" not in k]
        self.progress.console.print(
            f"epoch {row['epoch']:.4g}: train {losses(train)}, validation {losses(row)} "
            + (f"({', '.join(terms)})" if terms else ""),
            style="dim",
            highlight=False,
            soft_wrap=True,
        )


class WaitingBar:
    """A bar on the error stream of a terminal, once it took longer than `PATIENCE`."""

    def __init__(self, text: str, total: int, shown: bool) -> None:
        self.text, self.total, self.shown = text, total, shown
        self.started = time.monotonic()
        self.progress: Any = None

    def __enter__(self) -> "WaitingBar":
        return self

    def at(self, done: int) -> None:
        if self.progress is None:
            if not self.shown or time.monotonic() - self.started < PATIENCE:
                return
            from rich.console import Console
            from rich.progress import Progress

            console = Console(stderr=True)
            self.progress = Progress(
                console=console, transient=True, disable=not console.is_terminal
            )
            self.task = self.progress.add_task(self.text, total=self.total)
            self.progress.start()
        self.progress.update(self.task, completed=done)

    def __exit__(self, *exception: object) -> None:
        if self.progress is not None:
            self.progress.stop()
