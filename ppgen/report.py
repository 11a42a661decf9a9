"""The report of a run: one HTML file with its figures, pictures and configuration."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import charts, plots
from .page import PAGE, STYLE
from .program import Program, generate
from .report_text import (
    Card,
    duration,
    failed,
    flat,
    likelihood_card,
    list_of,
    number,
    safe,
    split_of,
    table,
    width_of,
    with_error,
    yaml_text,
)
from .seeding import seeded
from .sites import accepted, device_of

if TYPE_CHECKING:
    from .run import Run

MOST_CLASSES = 10  # rows of samples, and manifolds
EXAMPLES = 500  # of the test data, for the program's own figures
FAILURES = (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError)

POINTS = 2000  # drawn of vectors
LIKELIHOOD = "log_likelihood_nats"

_WIDE = ("log-likelihood", "ELBO")  # cards that need room
_SHOWN = ("training_seconds", "examples_per_second", "steps")


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
    report = _Report(run)
    with seeded(0, report.device), plots.evaluating(run.program):
        page = report.page()
    for name, picture in report.pictures.items():
        write_atomically(run.path / "figures" / f"{name}.png", picture)
    path = run.path / "report.html"
    write_atomically(path, page.encode())
    return path


class _Report:
    """What the sections share; each gives HTML, "" where it does not apply."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.program: Any = run.program
        self.dataset = run.dataset
        self.device = device_of(run.program)
        self.pictures: dict[str, bytes] = {}

    def page(self) -> str:
        model, data = type(self.program).__name__, self._data_name()
        title = f"{model} on {data}" if data else model
        parts = [self.head(model, data)]
        for heading, content in self.sections():
            if content:
                parts.append(f"<section>\n<h2>{safe(heading)}</h2>\n{content}\n</section>")
        return PAGE.format(title=safe(title), style=STYLE, body="\n".join(parts))

    def sections(self) -> Iterator[tuple[str, str]]:
        yield "Learning curves", self.curves()
        yield "Samples", self.samples()
        yield "Reconstructions", self.reconstructions()
        yield "Latent space", self.latent_space()
        yield from self.own_figures()
        yield "Numbers", self.numbers()
        yield "Configuration", self.configuration()

    # Figures in words

    def head(self, model: str, data: str) -> str:
        cards = [*self._likelihood(), *self._elbo(), *self._others(), *self._facts()]
        on = f' <span class="on">on</span> {safe(data)}' if data else ""
        about = ""
        if self.dataset is not None:
            about = f'<p class="about">{safe(repr(self.dataset))}</p>\n'
        grid = "\n".join(
            f'<div class="card{" wide" if name.endswith(_WIDE) else ""}"><dt>{safe(name)}</dt>'
            f"<dd>{safe(value)}{f' <small>{safe(unit)}</small>' if unit else ''}</dd>"
            f"{f'<p>{safe(note)}</p>' if note else ''}</div>"
            for name, value, unit, note in cards
        )
        made = list_of(flat(
            {k: v for k, v in self.run.info.items() if k not in ("data", "format", *_SHOWN)}
        ))  # fmt: skip
        return (
            f"<header>\n<h1>{safe(model)}{on}</h1>\n{about}</header>\n"
            f'<dl class="cards">\n{grid}\n</dl>\n<p class="made">{made}</p>'
        )

    def _likelihood(self) -> Iterator[Card]:
        evaluation = self.run.evaluation
        if evaluation is None:
            return
        name, found = f"{split_of(evaluation)} log-likelihood", evaluation.get(LIKELIHOOD)
        if isinstance(found, Mapping):
            notes = [str(found[k]) for k in ("kind", "measure", "method") if found.get(k)]
            yield likelihood_card(name, found, notes)
            return
        density = getattr(self.program, "density", None)
        why = {
            "implicit": "the model draws samples but has no density",
            "unnormalized": "the density is known up to a constant only",
        }.get(str(density), "it was not evaluated")
        yield name, "none", "", why

    def _elbo(self) -> Iterator[Card]:
        evaluation = self.run.evaluation or {}
        found = evaluation.get("elbo_nats")
        if isinstance(found, Mapping):
            terms = [f"{k} {number(v, 4)}" for k, v in found.items()
                     if k not in ("value", "stderr") and "/" not in k]  # fmt: skip
            value = with_error(found.get("value"), found.get("stderr"))
            yield f"{split_of(evaluation)} ELBO", value, "nats", " · ".join(terms)

    def _others(self) -> Iterator[Card]:
        """The log-likelihood by further methods of the program."""
        evaluation = self.run.evaluation or {}
        others = evaluation.get("others")
        for found in others if isinstance(others, list) else ():
            if isinstance(found, Mapping):
                name = f"{split_of(evaluation)} log-likelihood, {found.get('method')}"
                notes = [str(found[k]) for k in ("kind", "measure") if found.get(k)]
                yield likelihood_card(name, found, notes)

    def _facts(self) -> Iterator[Card]:
        run, info = self.run, self.run.info
        bits = (run.evaluation or {}).get("bits_per_dim")
        if bits is not None:
            yield "Bits per dimension", number(bits, 4), "", ""
        count = sum(p.numel() for p in self.program.parameters())
        yield "Parameters", f"{count:,}", "", ""
        last = max(run.metrics, key=lambda row: row["step"], default=None)
        seconds = info.get("training_seconds", last and last.get("seconds"))
        if seconds is not None:
            note = ""
            if last is not None:
                note = f"{last['step']:,} steps, {number(last.get('epoch'))} epochs"
            yield "Training time", duration(seconds), "", note
        if info.get("examples_per_second"):
            yield "Speed", f"{info['examples_per_second']:,.0f}", "examples/s", ""

    def _data_name(self) -> str:
        if self.dataset is not None:
            return str(self.dataset.name)
        data = self.run.info.get("data")
        data = data if isinstance(data, Mapping) else {}
        return str(data.get("name") or data.get("source") or "")

    def numbers(self) -> str:
        """The last measurements of either split, and all of the evaluation."""
        parts = []
        measured = {split: self._last(split) for split in ("train", "validation")}
        shown = {split: row for split, row in measured.items() if row}
        if shown:
            keys = dict.fromkeys(k for row in shown.values() for k in row if k != "split")
            lines = [[key, *(row.get(key) for row in shown.values())] for key in keys]
            parts.append(table("The last row of each split", ["", *shown], lines))
        if self.run.evaluation:
            rows = [[name, value] for name, value in flat(self.run.evaluation)]
            parts.append(table("Evaluation on test", ["", "value"], rows))
        return f'<div class="side">{"".join(parts)}</div>' if parts else ""

    def _last(self, split: str) -> dict[str, Any]:
        rows = [row for row in self.run.metrics if row.get("split") == split]
        return max(rows, key=lambda row: row["step"], default={})

    def configuration(self) -> str:
        parts = []
        if self.run.config:
            parts.append(f"<pre>{safe(yaml_text(self.run.config))}</pre>")
        if self.run.info.get("data"):
            parts.append(f"<h3>Data</h3><pre>{safe(yaml_text(self.run.info['data']))}</pre>")
        return "\n".join(parts)

    # Pictures

    def curves(self) -> str:
        rows = self.run.metrics
        if not any(charts.series(rows, split, "loss") for split in ("train", "validation")):
            return ""
        return self._picture(
            "curves",
            lambda: charts.curves(rows),
            "Loss and its terms on train and validation. The axes leave out the first steps.",
            chart=True,
        )

    def samples(self) -> str:
        if plots.is_picture(self.run.shape):
            return self._sheet()
        n, labels = POINTS, None
        if self._classes():
            labels = torch.arange(n, device=self.device) % self._classes()
        data = None
        if self.dataset is not None:
            data = self.dataset.test.batch(slice(0, n))[0]
        return self._picture(
            "samples",
            lambda: plots.samples(self._draw(n, labels, mean=False), data),
            f"{n:,} draws" + (", beside test examples." if data is not None else "."),
            chart=True,
        )

    def _sheet(self) -> str:
        """Pictures as many as the program draws with ease, a row for each class."""
        labels, names = self._labels()
        count = getattr(self.program, "picture_count", Program.picture_count)
        columns = 10 if names is None else max(1, min(10, count // len(names)))
        each = getattr(self.program, "picture_words", Program.picture_words)
        if labels is None or names is None:
            what = " of z from the prior" if hasattr(self.program, "decode") else ""
            caption = f"{count} draws{what}, each {each}."
        else:
            labels = labels.repeat_interleave(columns)
            count = len(labels)
            caption = f"{count} draws, a row for each class, each {each}."
            if self._classes() > MOST_CLASSES:
                caption += f" The first {MOST_CLASSES} of {self._classes()} classes."
        return self._picture(
            "samples",
            lambda: plots.image_grid(self._draw(count, labels, mean=True), columns, rows=names),
            caption,
        )

    def reconstructions(self) -> str:
        shape = tuple(self.run.shape)
        if self.dataset is None or not hasattr(self.program, "reconstruct"):
            return ""
        picture = plots.is_picture(shape)
        if not picture and shape != (2,):
            return ""
        x, *conditions = self._test(20 if picture else 300)
        return self._picture(
            "reconstructions",
            lambda: plots.reconstructions(x, self.program.reconstruct(x, *conditions)),
            "Test examples, each above the mean that the model gives back."
            if picture
            else "Test examples, each joined to the mean that the model gives back.",
            chart=not picture,
        )

    def latent_space(self) -> str:
        program = self.program
        if getattr(program, "latent_dim", None) != 2:
            return ""
        parts = []
        net = not plots.is_picture(self.run.shape)
        # The grid follows the quantiles of N(0, I): it says nothing of another prior.
        if hasattr(program, "decode") and getattr(program, "prior", "standard") == "standard":
            steps = "z at the normal quantiles of 0.05 to 0.95 along both axes"
            if not self._classes():
                caption = f"The manifold: the mean of p(x | z), {steps}."
                parts.append(
                    self._picture("manifold", lambda: plots.manifold(program), caption, net)
                )
            else:
                _, names = self._labels()
                several = [
                    self._picture(
                        f"manifold-{k}",
                        lambda k=k: plots.manifold(program, k, 10),  # type: ignore[misc]
                        f"y = {name}",
                        net,
                    )
                    for k, name in enumerate(names or [])
                ]
                parts.append(f'<div class="many">{"".join(several)}</div>')
                parts.append(f'<p class="note">The manifold of each class: {steps}.</p>')
        if self.dataset is not None and hasattr(program, "encode"):
            x, *conditions = self.dataset.test.batch(slice(0, 3000))
            y = conditions[0] if conditions else None
            caption = f"The means of q(z | x) of {len(x):,} test examples"
            caption += ", coloured by class." if y is not None else "."
            parts.append(
                self._picture(
                    "latents",
                    lambda: plots.latents(program, x, y, self.dataset.classes),  # type: ignore[union-attr]
                    caption,
                    chart=True,
                )
            )
        if len(parts) == 2 and not self._classes():
            return f'<div class="pair">{"".join(parts)}</div>'
        return "\n".join(parts)

    def own_figures(self) -> Iterator[tuple[str, str]]:
        """What the program has of itself, by heading; see `Program.figures`."""
        sections: dict[str, list[str]] = {}
        try:
            found = getattr(self.program, "figures", None)
            for figure in found(*self._test(EXAMPLES)) if found is not None else ():
                if figure.name in self.pictures:
                    raise ValueError(f"there are two figures of the name {figure.name}")
                content = self._picture(figure.name, figure.draw, figure.caption, figure.chart)
                sections.setdefault(figure.heading, []).append(content)
        except FAILURES as error:
            sections["Figures"] = [failed("figures", error)]
        for heading, several in sections.items():
            yield heading, "\n".join(several)

    def _picture(
        self, name: str, draw: Callable[[], bytes | None], caption: str, chart: bool = False
    ) -> str:
        """A figure; where it fails, a line that says so: the rest of the page is worth having."""
        try:
            picture = draw()
        except FAILURES as error:
            return failed(name, error)
        if picture is None:
            return ""
        self.pictures[name] = picture
        data = base64.b64encode(picture).decode()
        # A chart at the size it was drawn for: its text is then as large as the page's.
        size = f' width="{width_of(picture) * 96 // charts.DPI}"' if chart else ""
        kind = "chart" if chart else "grid"
        return (
            f'<figure class="{kind}"><img alt="{safe(name)}"{size} '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{safe(caption)}</figcaption></figure>"
        )

    # The program

    def _classes(self) -> int:
        """Classes that the program is conditional on, 0 for none."""
        count = getattr(self.program, "num_classes", None)
        if count is None and not hasattr(self.program, "sample") and self.dataset is not None:
            # A stranger says so by its signature: model(x, y).
            x = torch.zeros(1)
            count = self.dataset.num_classes if len(accepted(self.program, (x, x))) > 1 else None
        return int(count or 0)

    def _labels(self) -> tuple[Tensor | None, list[str] | None]:
        """The labels, one of each, and their names."""
        count = min(self._classes(), MOST_CLASSES)
        if not count:
            return None, None
        classes = self.dataset.classes if self.dataset is not None else None
        classes = classes or self.run.info.get("data", {}).get("classes")
        known = isinstance(classes, Sequence) and len(classes) >= count
        names = [str(classes[k]) if known and classes else str(k) for k in range(count)]
        return torch.arange(count, device=self.device), names

    def _draw(self, n: int, labels: Tensor | None, mean: bool) -> Tensor:
        conditions = () if labels is None else (labels,)
        if hasattr(self.program, "sample"):
            return self.program.sample(n, *conditions, mean=mean)
        shape = tuple(self.run.shape)
        try:
            return generate(self.program, n, *conditions, shape=shape, mean=mean)
        except NotImplementedError:  # a distribution without a mean
            return generate(self.program, n, *conditions, shape=shape)

    def _test(self, n: int) -> tuple[Tensor, ...]:
        """Test examples with what the program takes beside them, on its device."""
        batch = self.dataset.test.batch(slice(0, n)) if self.dataset is not None else ()
        taken = batch if self._classes() else batch[:1]
        return tuple(t.to(self.device) for t in taken)
