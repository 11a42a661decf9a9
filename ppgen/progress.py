"""What a person sees while a model trains."""

import time
from typing import Any


class Bar:
    """A progress bar on a terminal, and one line an epoch."""

    def __init__(self, shown: bool, total: int, step: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.shown = shown
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]} nats"),
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

    def update(self, step: int, loss: float | None = None) -> None:
        now = time.monotonic()
        if not self.shown or (loss is None and now < self.next):
            return
        self.next = now + 0.25
        if loss is None:
            self.progress.update(self.task, completed=step)
        else:
            self.progress.update(self.task, completed=step, loss=f"{loss:.2f}")

    def report(self, rows: list[dict[str, Any]]) -> None:
        if not self.shown:
            return
        parts = []
        for split in ("train", "validation"):
            row = next((row for row in reversed(rows) if row["split"] == split), None)
            if row is None:
                continue
            skip = ("step", "epoch", "seconds", "split", "lr", "loss")
            terms = ", ".join(
                f"{k} {v:.2f}" for k, v in row.items() if k not in skip and "/" not in k
            )
            parts.append(f"{split} {row['loss']:.2f} ({terms})")
        self.progress.console.print(
            f"epoch {rows[-1]['epoch']:g}: " + "; ".join(parts), style="dim"
        )
