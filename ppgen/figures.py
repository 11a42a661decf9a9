"""A figure that a program has of itself: a picture with its heading and caption."""

import re
from collections.abc import Callable
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Figure:
    """What `Program.figures` yields, and a report shows.

    Attributes:
        heading: of its section; figures that follow each other under one heading share it.
        name: of its file, without the ending: letters, digits, - and _.
        draw: gives the picture as the bytes of a PNG, or None where there is none after all.
            It is called in evaluation mode, without gradients and under a seed.
        caption: a sentence or two below it.
        chart: whether it is shown in the size that `ppgen.charts` draws in; else it is pixels.

    Raises:
        ValueError: a name that would be no file of its folder.
    """

    heading: str
    name: str
    draw: Callable[[], bytes | None]
    caption: str = ""
    chart: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"the name of a figure has letters, digits, - and _ alone; got {self.name!r}"
            )
