"""The report of a run: one HTML file with its figures, pictures and configuration."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import plots
from .page import PAGE, STYLE
from .report_pictures import Pictures
from .report_text import safe
from .report_words import Words
from .seeding import seeded

if TYPE_CHECKING:
    from .run import Run


def write_report(run: "Run") -> Path:
    """Write `report.html`, and its pictures into `figures/`, to the run directory.

    The page is one file: no scripts, nothing fetched, pictures inside it. A part that does not
    apply to the run is left out; one whose picture cannot be drawn says why. Draws are seeded, and
    the random generators and the program's mode are left as they were.

    Returns:
        The path of the page.

    Raises:
        ValueError: the run is in memory only.
        OSError: it cannot be written.
    """
    from .run import write_atomically

    if run.path is None:
        raise ValueError("the run is in memory only: a report needs a run directory to stand in")
    words, pictures = Words(run), Pictures(run)
    with seeded(0, pictures.device), plots.evaluating(run.program):
        page = _page(words, pictures)
    for name, picture in pictures.drawn.items():
        write_atomically(run.path / "figures" / f"{name}.png", picture)
    path = run.path / "report.html"
    write_atomically(path, page.encode())
    return path


def _page(words: Words, pictures: Pictures) -> str:
    model, data = type(words.program).__name__, words.data_name()
    title = f"{model} on {data}" if data else model
    parts = [words.head(model, data)]
    for heading, content in _sections(words, pictures):
        if content:
            parts.append(f"<section>\n<h2>{safe(heading)}</h2>\n{content}\n</section>")
    return PAGE.format(title=safe(title), style=STYLE, body="\n".join(parts))


def _sections(words: Words, pictures: Pictures) -> Iterator[tuple[str, str]]:
    yield "Scores of samples", words.scores()
    yield "Learning curves", pictures.curves()
    yield "Samples", pictures.samples()
    yield "Samples over time", pictures.progress()
    yield "Nearest training examples", pictures.neighbours()
    yield "Reconstructions", pictures.reconstructions()
    yield "Latent space", pictures.latent_space()
    yield from pictures.own_figures()
    yield "Numbers", words.numbers()
    yield "Configuration", words.configuration()
