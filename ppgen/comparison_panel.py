"""Scores of samples in the picture of a comparison: a column a number, a line a run."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .charts import INK, plain_text
from .comparison_records import Group, Row
from .comparison_scores import place_of, real_text
from .score_record import BETTER, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, CHARACTER = 0.82, 0.078  # inches: the least width of a column, and of its characters
TERMS = 0.053  # inches a character of the line below
DIM = "#6b7078"
_HEADS = {"data_copying": "data\ncopying", "class_variation": "class\nvariation"}


def columns_of(groups: Sequence[Group]) -> dict[str, float]:
    """The numbers that any run has, in their usual order, with the widths of their columns."""
    longest: dict[str, int] = {}
    for row in (row for group in groups for row in group.rows):
        for score in row.scores:
            size = len(_value(row, score))
            longest[score.metric] = max(size, longest.get(score.metric, 0))
    return {name: max(COLUMN, CHARACTER * longest[name] + 0.15)
            for name in BETTER if name in longest}  # fmt: skip


def _value(row: Row, score: Score) -> str:
    return score.number.partition(" +- ")[0].replace("-", "−") + place_of(row, score.metric)


def score_panel(
    figure: "Figure",
    axes: "Axes",
    rows: Sequence[Row],
    columns: Mapping[str, float],
    box: tuple[float, float, float, float],
    line: float,
) -> None:
    """Draw the scores of a panel's rows.

    Args:
        rows: from the top, a line each.
        columns: which numbers, with the widths in inches.
        box: left, bottom, width and height in inches.
        line: height of a line in inches.
    """
    wide, high = figure.get_size_inches()
    left, bottom, width, height = box
    axes.set_position((left / wide, bottom / high, width / wide, height / high))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)  # inches, down from the first line
    scored = [row for row in rows if row.scores]
    end = 0.0
    for name, column in columns.items():
        end += column
        middle = end - column / 2
        side = {"low": "less is better", "high": "more is better", None: ""}[BETTER[name]]
        axes.text(middle, -0.16, _HEADS.get(name, name), color=INK, fontsize=8.5, ha="center",
                  va="bottom", linespacing=1.0)  # fmt: skip
        axes.text(middle, -0.03, side, color=DIM, fontsize=6, ha="center", va="bottom")
        for number, row in enumerate(rows):
            found = {score.metric: score for score in row.scores}.get(name)
            if found is None:
                continue
            error = found.number.partition(" +- ")[2]
            best = row.places.get(name, (2, 2))[0] == 1
            down = line * (number + 0.5)
            axes.text(middle, down, plain_text(_value(row, found)), color=INK, fontsize=8.5,
                      ha="center", va="bottom", weight="bold" if best else "normal")  # fmt: skip
            if error:
                axes.text(middle, down + 0.02, f"± {error}", color=DIM,
                          fontsize=7, ha="center", va="top")  # fmt: skip
        own = [score for row in scored for score in row.scores if score.metric == name]
        text = real_text(own).replace("-", "−")
        axes.text(middle, height + 0.06, text, color=DIM, fontsize=8, ha="center", va="top")
    terms = list(dict.fromkeys(row.scores[0].how for row in scored))
    if not terms:
        return
    axes.text(0, height + 0.06, "real data", color=DIM, fontsize=7, ha="right", va="top")
    text = terms[0] if len(terms) == 1 else "scores on unlike terms: no places between them"
    text = "\n".join(textwrap.wrap(text, max(24, int(width / TERMS)))[:3])
    axes.text(width / 2, height + 0.22, plain_text(text), color=DIM, fontsize=6.5, ha="center",
              va="top", linespacing=1.0)  # fmt: skip
