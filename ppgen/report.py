"""The report of a run: one HTML file with its figures, pictures and configuration."""

import base64
import html
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor

from . import charts, plots
from .page import PAGE, STYLE
from .program import generate
from .seeding import seeded
from .sites import accepted, device_of

if TYPE_CHECKING:
    from .run import Run

MOST_CLASSES = 10  # rows of samples, and manifolds


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
        model, data = _title(self.program), self._data_name()
        title = f"{model} on {data}" if data else model
        sections = [
            ("Learning curves", self.curves),
            ("Samples", self.samples),
            ("Reconstructions", self.reconstructions),
            ("Latent space", self.latent_space),
            ("Numbers", self.numbers),
            ("Configuration", self.configuration),
        ]
        parts = [self.head(model, data)]
        for heading, section in sections:
            content = section()
            if content:
                parts.append(f"<section>\n<h2>{heading}</h2>\n{content}\n</section>")
        return PAGE.format(title=_safe(title), style=STYLE, body="\n".join(parts))

    # Figures in words

    def head(self, model: str, data: str) -> str:
        cards = [card for card in (self._likelihood(), self._elbo(), *self._facts()) if card]
        on = f' <span class="on">on</span> {_safe(data)}' if data else ""
        about = ""
        if self.dataset is not None:
            about = f'<p class="about">{_safe(repr(self.dataset))}</p>\n'
        grid = "\n".join(
            f'<div class="card{" wide" if name.endswith(_WIDE) else ""}"><dt>{_safe(name)}</dt>'
            f"<dd>{_safe(value)}{f' <small>{_safe(unit)}</small>' if unit else ''}</dd>"
            f"{f'<p>{_safe(note)}</p>' if note else ''}</div>"
            for name, value, unit, note in cards
        )
        made = _list_of(_flat(
            {k: v for k, v in self.run.info.items() if k not in ("data", "format", *_SHOWN)}
        ))  # fmt: skip
        return (
            f"<header>\n<h1>{_safe(model)}{on}</h1>\n{about}</header>\n"
            f'<dl class="cards">\n{grid}\n</dl>\n<p class="made">{made}</p>'
        )

    def _likelihood(self) -> tuple[str, str, str, str] | None:
        evaluation = self.run.evaluation
        if evaluation is None:
            return None
        found = evaluation.get("log_likelihood_nats")
        if not isinstance(found, Mapping):
            density = getattr(self.program, "density", None)
            why = {
                "implicit": "the model draws samples but has no density",
                "unnormalized": "the density is known up to a constant only",
            }.get(str(density), "it was not evaluated")
            return f"{_split(evaluation)} log-likelihood", "none", "", why
        notes = [str(found[k]) for k in ("kind", "measure", "method") if found.get(k)]
        for key, unit in (("particles", "particles"), ("examples", "examples")):
            if found.get(key):
                notes.append(f"{_number(found[key])} {unit}")
        value = _with_error(found.get("value"), found.get("stderr"))
        return f"{_split(evaluation)} log-likelihood", value, "nats", " · ".join(notes)

    def _elbo(self) -> tuple[str, str, str, str] | None:
        evaluation = self.run.evaluation or {}
        found = evaluation.get("elbo_nats")
        if not isinstance(found, Mapping):
            return None
        terms = [f"{k} {_number(v, 4)}" for k, v in found.items()
                 if k not in ("value", "stderr") and "/" not in k]  # fmt: skip
        value = _with_error(found.get("value"), found.get("stderr"))
        return f"{_split(evaluation)} ELBO", value, "nats", " · ".join(terms)

    def _facts(self) -> Iterator[tuple[str, str, str, str]]:
        run, info = self.run, self.run.info
        bits = (run.evaluation or {}).get("bits_per_dim")
        if bits is not None:
            yield "Bits per dimension", _number(bits, 4), "", ""
        count = sum(p.numel() for p in self.program.parameters())
        yield "Parameters", f"{count:,}", "", ""
        last = max(run.metrics, key=lambda row: row["step"], default=None)
        seconds = info.get("training_seconds", last and last.get("seconds"))
        if seconds is not None:
            note = ""
            if last is not None:
                note = f"{last['step']:,} steps, {_number(last.get('epoch'))} epochs"
            yield "Training time", _duration(seconds), "", note
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
            parts.append(_table("The last row of each split", ["", *shown], lines))
        if self.run.evaluation:
            rows = [[name, value] for name, value in _flat(self.run.evaluation)]
            parts.append(_table("Evaluation on test", ["", "value"], rows))
        return f'<div class="side">{"".join(parts)}</div>' if parts else ""

    def _last(self, split: str) -> dict[str, Any]:
        rows = [row for row in self.run.metrics if row.get("split") == split]
        return max(rows, key=lambda row: row["step"], default={})

    def configuration(self) -> str:
        parts = []
        if self.run.config:
            parts.append(f"<pre>{_safe(_yaml(self.run.config))}</pre>")
        if self.run.info.get("data"):
            parts.append(f"<h3>Data</h3><pre>{_safe(_yaml(self.run.info['data']))}</pre>")
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
        labels, names = self._labels()
        if plots.is_picture(self.run.shape):
            what = "100 draws of z from the prior" if hasattr(self.program, "decode") else ""
            caption = f"{what or '100 draws'}, each the mean of the picture given its latents."
            if labels is not None:
                caption = (
                    f"{len(labels)} draws, ten of each class, each the mean given its latents."
                )
                if self._classes() > MOST_CLASSES:
                    caption += f" The first {MOST_CLASSES} of {self._classes()} classes."
            n = 100 if labels is None else len(labels)
            return self._picture(
                "samples",
                lambda: plots.image_grid(self._draw(n, labels, mean=True), 10, rows=names),
                caption,
            )
        n = 2000
        if labels is not None:
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

    def _picture(
        self, name: str, draw: Callable[[], bytes | None], caption: str, chart: bool = False
    ) -> str:
        """A figure; where it fails, a line that says so: the rest of the page is worth having."""
        try:
            picture = draw()
        except (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return f'<p class="note">{_safe(name)} could not be drawn: {_safe(reason)}</p>'
        if picture is None:
            return ""
        self.pictures[name] = picture
        data = base64.b64encode(picture).decode()
        # A chart at the size it was drawn for: its text is then as large as the page's.
        size = f' width="{_width(picture) * 96 // charts.DPI}"' if chart else ""
        kind = "chart" if chart else "grid"
        return (
            f'<figure class="{kind}"><img alt="{_safe(name)}"{size} '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{_safe(caption)}</figcaption></figure>"
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
        """Ten of each label, in rows, and the names of the rows."""
        count = min(self._classes(), MOST_CLASSES)
        if not count:
            return None, None
        classes = self.dataset.classes if self.dataset is not None else None
        classes = classes or self.run.info.get("data", {}).get("classes")
        known = isinstance(classes, Sequence) and len(classes) >= count
        names = [str(classes[k]) if known and classes else str(k) for k in range(count)]
        return torch.arange(count, device=self.device).repeat_interleave(10), names

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


# Text

_WIDE = ("log-likelihood", "ELBO")  # cards that need room
_SHOWN = ("training_seconds", "examples_per_second", "steps")


def _split(evaluation: Mapping[str, Any]) -> str:
    return str(evaluation.get("split", "test")).capitalize()


def _width(picture: bytes) -> int:
    return int.from_bytes(picture[16:20], "big")  # of a PNG, whose header comes first


def _title(program: Any) -> str:
    return type(program).__name__


def _safe(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _number(value: Any, figures: int = 5) -> str:
    """The figures that matter, thousands apart, a true minus."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("-", "−")
    size = abs(value)
    if float(value).is_integer() and size < 1e15:
        text = f"{int(value):,}"
    elif 1e-4 <= size < 1:
        text = f"{value:.{figures}g}"
    elif 1 <= size < 1e9:
        text = f"{value:,.{max(0, figures - 1 - math.floor(math.log10(size)))}f}"
    else:
        text = f"{value:.3e}"
    return text.replace("-", "−")


def _with_error(value: Any, error: Any) -> str:
    """ "−98.42 ± 0.31": as many decimals as the error has two figures."""
    numbers = [v for v in (value, error) if isinstance(v, (int, float)) and math.isfinite(v)]
    if len(numbers) < 2 or error <= 0:
        return _number(value)
    decimals = min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:,.{decimals}f} ± {error:.{decimals}f}".replace("-", "−")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested mapping, named by their paths."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}: ")
        else:
            yield f"{prefix}{key}", value


def _list_of(pairs: Iterator[tuple[str, Any]]) -> str:
    return " · ".join(
        f"<span>{_safe(key)} {_safe(value if isinstance(value, str) else _number(value))}</span>"
        for key, value in pairs
        if value not in (None, "")
    )


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    columns = "".join(f'<th scope="col">{_safe(name)}</th>' for name in head)
    lines = []
    for name, *values in rows:
        cells = "".join(f"<td>{_safe(_number(value))}</td>" for value in values)
        lines.append(f'<tr><th scope="row">{_safe(name)}</th>{cells}</tr>')
    return (
        f"<table><caption>{_safe(caption)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _yaml(content: Any) -> str:
    try:
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).strip()
    except yaml.YAMLError:
        return json.dumps(content, indent=2, default=str, ensure_ascii=False)
