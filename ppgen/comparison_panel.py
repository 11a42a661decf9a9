"""Scores of samples in the picture of a comparison: a column a number, a line a run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .charts import INK, plain_text
from .comparison_records import Group, Row
from .comparison_scores import place_of
from .sample_scores import BETTER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 0.82  # inches
DIM = "#6b7078"
_HEADS = {"data_copying": "data\ncopying", "class_variation": "class\nvariation"}


def columns_of(groups: Sequence[Group]) -> list[str]:
    """The numbers that any run has, in their usual order."""
    present = {s.metric for group in groups for row in group.rows for s in row.scores}
    return [name for name in BETTER if name in present]


def score_panel(
    figure: "Figure",
    axes: "Axes",
    rows: Sequence[Row],
    columns: Sequence[str],
    box: tuple[float, float, float, float],
    line: float,
) -> None:
    """Draw the scores of a panel's rows.

    Args:
        rows: from the top, a line each.
        columns: which numbers.
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
    for k, name in enumerate(columns):
        middle = (k + 0.5) * COLUMN
        side = {"low": "less is better", "high": "more is better", None: ""}[BETTER[name]]
        axes.text(middle, -0.16, _HEADS.get(name, name), color=INK, fontsize=8.5, ha="center",
                  va="bottom", linespacing=1.0)  # fmt: skip
        axes.text(middle, -0.03, side, color=DIM, fontsize=6, ha="center", va="bottom")
        for number, row in enumerate(rows):
            found = {score.metric: score for score in row.scores}.get(name)
            if found is None:
                continue
            value, _, error = found.number.partition(" +- ")
            best = row.places.get(name, (2, 2))[0] == 1
            down = line * (number + 0.5)
            text = value.replace("-", "−") + place_of(row, name)
            axes.text(middle, down, plain_text(text), color=INK, fontsize=8.5, ha="center",
                      va="bottom", weight="bold" if best else "normal")  # fmt: skip
            if error:
                axes.text(middle, down + 0.02, f"± {error}", color=DIM,
                          fontsize=7, ha="center", va="top")  # fmt: skip
        own = [score for row in scored for score in row.scores if score.metric == name]
        if len({score.real for score in own}) == 1 and own[0].real is not None:
            text = own[0].real_number.replace("-", "−")
            axes.text(middle, height + 0.06, text, color=DIM, fontsize=8, ha="center", va="top")
    terms = list(dict.fromkeys(row.scores[0].how for row in scored))
    if not terms:
        return
    axes.text(0, height + 0.06, "real data", color=DIM, fontsize=7, ha="right", va="top")
    text = terms[0] if len(terms) == 1 else "scores on unlike terms: no places between them"
    axes.text(width / 2, height + 0.24, plain_text(text), color=DIM, fontsize=7, ha="center",
              va="top")  # fmt: skip
