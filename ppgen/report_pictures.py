"""The pictures of a report, each drawn where its page stands."""

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import charts, plots
from .program import Program, generate
from .report_text import failed, safe, width_of
from .sites import accepted, device_of

if TYPE_CHECKING:
    from .run import Run

MOST_CLASSES = 10  # rows of samples, and manifolds
EXAMPLES = 500  # of the test data, for the program's own figures
POINTS = 2000  # drawn of vectors
MOST_SHEETS = 6  # of samples over time
DRAWN, NEAREST = 10, 3  # draws, and training examples below each
FAILURES = (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError)


class Pictures:
    """The pictures of a run; each method gives HTML, "" where it does not apply.

    Attributes:
        drawn: the PNGs by name, as they were drawn.
    """

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.program: Any = run.program
        self.dataset = run.dataset
        self.device = device_of(run.program)
        self.drawn: dict[str, bytes] = {}

    def curves(self) -> str:
        rows = self.run.metrics
        if not any(charts.series(rows, split, "loss") for split in ("train", "validation")):
            return ""
        return self._picture(
            "curves",
            lambda: charts.curves(rows, self.run.info.get("unit", "nats")),
            "Loss and its terms on train and validation. The axes leave out the first steps.",
            chart=True,
        )

    def samples(self) -> str:
        if self._given():  # shown among its own figures, beside what each was drawn for
            return ""
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

    def progress(self) -> str:
        """The sheets of samples that training left, all of them from one noise."""
        folder = None if self.run.path is None else self.run.path / "samples"
        sheets = sorted(folder.glob("step_*.png")) if folder is not None else []
        if len(sheets) < 2:
            return ""
        count = min(len(sheets), MOST_SHEETS)
        chosen = [sheets[round(k * (len(sheets) - 1) / (count - 1))] for k in range(count)]
        several = [
            self._figure(sheet.stem, sheet.read_bytes(), f"step {int(sheet.stem[5:]):,}")
            for sheet in chosen
        ]
        note = "Draws from the same noise while the model learned."
        return f'<div class="several">{"".join(several)}</div><p class="note">{note}</p>'

    def neighbours(self) -> str:
        """Draws beside what is nearest to them in the training data: is it learned by heart?"""
        if self.dataset is None or not plots.is_picture(self.run.shape):
            return ""
        train = self.dataset.train

        def picture() -> bytes:
            drawn = self._some_draws(DRAWN)
            nearest = plots.nearest(drawn, train, NEAREST)
            return plots.image_grid(
                torch.cat([drawn.cpu()[None], nearest]).flatten(0, 1),
                len(drawn),
                rows=["draw", *(f"nearest {k + 1}" for k in range(NEAREST))],
                group=1,
            )

        return self._picture(
            "neighbours",
            picture,
            f"{DRAWN} draws, each above the {NEAREST} training examples nearest to it in Euclidean "
            f"distance, of all {len(train):,}. A draw that is one of them was learned by heart.",
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
            y = conditions[0] if conditions and self.dataset.classes else None
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
                if figure.name in self.drawn:
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
        self.drawn[name] = picture
        return self._figure(name, picture, caption, chart)

    def _figure(self, name: str, picture: bytes, caption: str, chart: bool = False) -> str:
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

    def _given(self) -> bool:
        """Whether the program is conditional on an image."""
        return getattr(self.program, "condition_shape", None) is not None

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

    def _some_draws(self, n: int) -> Tensor:
        """Pictures of the usual kind, of all classes in turn."""
        if self._given():
            image = self._test(n)[1]
            return self._draw(len(image), image, mean=True)
        classes = self._classes()
        labels = torch.arange(n, device=self.device) % classes if classes else None
        return self._draw(n, labels, mean=True)

    def _draw(self, n: int, condition: Tensor | None, mean: bool) -> Tensor:
        conditions = () if condition is None else (condition,)
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
        taken = batch if self._classes() or self._given() else batch[:1]
        return tuple(t.to(self.device) for t in taken)
