"""Pictures and the report: what is drawn where, and a page that stands alone and is safe."""

import base64
import html
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from PIL import Image
from pyro.nn import PyroModule, PyroSample, pyro_method
from torch import nn

from ppgen import charts, plots
from ppgen.data import Dataset, Split
from ppgen.models.vae import VAE
from ppgen.report import write_report


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return np.array(image)


# image_grid


def test_image_grid_places_every_pixel():
    images = torch.tensor([[[0.0, 0.2], [0.4, 0.6]], [[1.0, 0.8], [0.6, 0.4]], [[0.2] * 2] * 2])
    found = pixels(plots.image_grid(images, columns=2, pad=1, scale=1))
    g = plots.GUTTER
    expected = [
        [g, g, g, g, g, g, g],
        [g, 0, 51, g, 255, 204, g],
        [g, 102, 153, g, 153, 102, g],
        [g, g, g, g, g, g, g],
        [g, 51, 51, g, g, g, g],
        [g, 51, 51, g, g, g, g],
        [g, g, g, g, g, g, g],
    ]
    assert found.tolist() == expected


def test_image_grid_keeps_the_order_of_channels_and_clips():
    image = torch.tensor([2.0, 0.2, -1.0])[None, :, None, None].expand(1, 3, 2, 3)
    found = pixels(plots.image_grid(image, pad=0, scale=1))
    assert found.shape == (2, 3, 3)
    assert (found == [255, 51, 0]).all()


def test_other_channels_are_stacked_as_grey():
    image = torch.stack([torch.full((2, 3), k / 5) for k in range(2)])[None]
    found = pixels(plots.image_grid(image, pad=0, scale=1))
    assert found.tolist() == [[0] * 3] * 2 + [[51] * 3] * 2


@pytest.mark.parametrize(("side", "scale"), [(8, 5), (28, 2), (32, 2), (64, 1), (1, 40)])
def test_small_images_are_enlarged_by_whole_factors(side, scale):
    image = torch.rand(4, 1, side, side)
    found = pixels(plots.image_grid(image, pad=2))
    assert found.shape == (2 * (side * scale + 2) + 2,) * 2
    tile = found[2 : 2 + side * scale, 2 : 2 + side * scale]
    exact = (image[0, 0] * 255).round().byte().numpy()
    assert (tile == np.kron(exact, np.ones((scale, scale), np.uint8))).all()


def test_names_of_rows_stand_in_a_margin_and_move_nothing():
    images = torch.rand(4, 3, 8, 8)
    plain = pixels(plots.image_grid(images, 2))
    named = pixels(plots.image_grid(images, 2, rows=["cat", "山"]))
    margin = named.shape[1] - plain.shape[1]
    assert (named[:, margin:] == plain).all()
    assert (named[:, :margin] < 128).any()


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.zeros(0, 1, 4, 4), {}, r"\(0, 1, 4, 4\)"),
        (torch.zeros(4, 4), {}, r"got \(4, 4\)"),
        (torch.zeros(1, 4, 4), {"columns": 0}, "columns=0"),
        (torch.zeros(1, 4, 4), {"scale": 0}, "scale=0"),
        (torch.zeros(1, 4, 4), {"pad": -1}, "pad=-1"),
    ],
)
def test_image_grid_says_what_is_wrong(images, options, message):
    with pytest.raises(ValueError, match=message):
        plots.image_grid(images, **options)


# samples, reconstructions


def test_samples_of_every_kind():
    assert pixels(plots.samples(torch.rand(20, 1, 8, 8))).shape == (2 * 42 + 2, 10 * 42 + 2)
    points = pixels(plots.samples(torch.randn(50, 2), torch.randn(60, 2)))
    alone = pixels(plots.samples(torch.randn(50, 2)))
    assert points.shape[1] > 1.5 * alone.shape[1]  # a panel each
    assert pixels(plots.samples(torch.randn(50, 11), torch.randn(40, 11))).ndim == 3
    assert pixels(plots.samples(torch.zeros(50, 1))).ndim == 3
    assert plots.samples(torch.zeros(5, 2, 3, 4, 5)) is None


def test_points_that_are_not_finite_do_not_spoil_a_picture():
    x = torch.randn(50, 2)
    x[0] = math.nan
    x[1, 0] = math.inf
    pixels(charts.scatter(x, x))
    pixels(plots.samples(torch.full((5, 3), math.nan)))


def test_reconstructions_stand_under_their_originals():
    originals, means = torch.full((25, 4, 4), 1.0), torch.full((25, 4, 4), 0.2)
    found = pixels(plots.reconstructions(originals, means))
    assert found.shape[0] == 4 * 42 + 2  # two whole rows of ten, twice
    column = found[:, -20]
    assert [column[2 + 42 * k + 5] for k in range(4)] == [255, 51, 255, 51]
    few = pixels(plots.reconstructions(originals[:3], means[:3]))
    assert few.shape[0] == 2 * 42 + 2
    pixels(plots.reconstructions(torch.randn(9, 2), torch.randn(9, 2)))
    with pytest.raises(ValueError, match="must be the same"):
        plots.reconstructions(originals, means[:3])
    with pytest.raises(ValueError, match="images or points"):
        plots.reconstructions(torch.zeros(3, 5), torch.zeros(3, 5))


# Latent spaces


class Painter(nn.Module):
    """Decodes z to one image of two pixels, Phi(z_1) and Phi(z_2)."""

    latent_dim = 2

    def __init__(self, num_classes=None):
        super().__init__()
        self.num_classes = num_classes
        self.part = nn.Dropout()
        self.seen = []

    def decode(self, z, y=None):
        self.seen.append((z, y, self.training, torch.is_grad_enabled()))
        mean = torch.special.ndtr(z)[:, None, None, :]  # (n, 1, 1, 2)
        return dist.Normal(mean, 1.0).to_event(3)

    def encode(self, x, y=None):
        self.seen.append((x, y, self.training, torch.is_grad_enabled()))
        return dist.Normal(x.flatten(1)[:, :2], 1.0).to_event(1)


def test_manifold_decodes_the_normal_quantiles():
    from scipy.stats import norm

    program = Painter()
    program.part.eval()  # a part whose mode differs
    found = pixels(plots.manifold(program))
    (z, y, training, gradients) = program.seen[0]
    assert y is None and not training and not gradients
    assert program.training and not program.part.training
    q = norm.ppf(np.linspace(0.05, 0.95, 20))
    expected = np.stack(np.meshgrid(q, q[::-1]), -1).reshape(-1, 2)  # z_1 along rows, z_2 upwards
    np.testing.assert_allclose(z.numpy(), expected, atol=1e-6)
    # 20 x 20 tiles of 1 x 2 pixels, 40 times enlarged, no gutters: the picture is Phi(z) again.
    assert found.shape == (20 * 40, 20 * 80)
    across, up = found[::40, ::80], found[::40, 40::80]
    u = np.round(np.linspace(0.05, 0.95, 20) * 255)
    assert abs(across - u[None, :]).max() <= 1
    assert abs(up - u[::-1, None]).max() <= 1


def test_manifold_passes_the_label_on_and_wants_two_dimensions():
    program = Painter(3)
    plots.manifold(program, 2, count=4)
    assert program.seen[0][1].tolist() == [2] * 16
    program.latent_dim = 3
    with pytest.raises(ValueError, match=r"latent_dim=2; Painter has 3"):
        plots.manifold(program)
    program.latent_dim = 2
    with pytest.raises(ValueError, match="count"):
        plots.manifold(program, count=1)


def test_latents_give_labels_to_conditional_programs_only():
    x, y = torch.randn(40, 1, 2, 2), torch.arange(40) % 4
    for program, given in ((Painter(), False), (Painter(4), True)):
        pixels(plots.latents(program, x, y, ["a", "$\\frac", "山水", "d"]))
        assert (program.seen[0][1] is not None) == given
    pixels(plots.latents(Painter(), x))
    program.latent_dim = 5
    assert plots.latents(program, x, y) is None
    assert plots.latents(nn.Linear(2, 2), x, y) is None


# Learning curves


def metrics(epochs=20, per_epoch=10, **terms) -> list[dict[str, Any]]:
    rows = []
    for step in range(1, epochs * per_epoch + 1):
        epoch = step / per_epoch
        kl = 10 * (1 - math.exp(-epoch))
        reconstruction = 90 + 1e5 * math.exp(-20 * epoch) + 20 * math.exp(-epoch)
        both = {"reconstruction": reconstruction, "kl": kl, "loss": reconstruction + kl, **terms}
        place = {"step": step, "epoch": epoch, "seconds": 0.01 * step}
        rows.append({**place, "split": "train", "lr": 1e-3, **both})
        if step % per_epoch == 0:
            rows.append({**place, "split": "validation", **both})
    return rows


def test_limits_leave_out_the_first_steps():
    rows = metrics()
    assert max(r["loss"] for r in rows) > 10_000
    low, high = charts.settled(charts.series(rows, "train", "loss"))
    later = [r["loss"] for r in rows if r["epoch"] >= 1]
    assert low < min(later) and sorted(later)[-3] < high < max(later) + 3
    # A short run, less than an epoch: the first quarter is left out.
    low, high = charts.settled([(0.01 * k, 1e6 if k < 20 else 5.0 + k) for k in range(100)])
    assert 20 < low < 30 and 100 < high < 120
    # A single value, a constant.
    low, high = charts.settled([(0.0, 3.0)])
    assert low < 3 < high
    # Overfitting on few validation points is kept whole.
    low, high = charts.settled(
        [(k, 1.0) for k in range(300)], [(100 * k, 1.0 + k) for k in range(4)]
    )
    assert high > 4


def test_curves_have_a_panel_a_term():
    rows = metrics()
    assert list(charts._panels(rows)) == ["loss", "reconstruction", "kl"]
    assert list(charts._panels(metrics(**{"kl/z1": 1.0, "kl/z2": 2.0}))) == [
        "loss", "reconstruction", "kl", "kl by site"]  # fmt: skip
    same = [{**r, "negative_bound": r["loss"]} for r in rows]
    assert "negative_bound" not in charts._panels(same)
    gan = [{"step": k, "epoch": k, "split": "train", "loss": 2.0 + k, "generator/loss": 1.0,
            "discriminator/loss": 1.0 + k} for k in range(5)]  # fmt: skip
    assert list(charts._panels(gan)) == ["loss by player"]
    sizes = [pixels(charts.curves(r)).shape for r in (rows, gan, rows[:1], metrics(40))]
    assert sizes[0][1] > sizes[2][1] / 2
    pixels(charts.curves(metrics(**{f"kl/z{k}": float(k) for k in range(30)})))


def test_curves_of_odd_rows():
    rows = metrics(3)
    rows[4]["loss"] = math.nan
    rows[5]["kl"] = math.inf
    del rows[6]["reconstruction"]
    rows[7]["$\\alpha"] = 1.0
    rows[8]["山"] = 1.0
    pixels(charts.curves(rows))
    with pytest.raises(ValueError, match="none of the 1 rows"):
        charts.curves([{"step": 1, "epoch": 1.0, "split": "train", "loss": math.nan}])
    with pytest.raises(ValueError, match="none of the 0 rows"):
        charts.curves([])


def test_smoothing_is_a_running_mean():
    values = [float(k % 7) for k in range(500)]
    expected = [np.mean(values[max(0, k - 9) : k + 1]) for k in range(500)]
    np.testing.assert_allclose(charts._smooth(values), expected, atol=1e-9)


def test_importing_plots_is_cheap():
    code = "import sys, ppgen.plots; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# The report


@dataclass
class Run:
    """The part of a run that a report reads."""

    program: nn.Module
    path: Path | None
    dataset: Dataset | None = None
    shape: tuple[int, ...] = (1, 8, 8)
    config: dict = field(default_factory=dict)
    info: dict = field(default_factory=dict)
    metrics: list = field(default_factory=list)
    evaluation: dict | None = None


EVALUATION = {
    "elbo_nats": {"value": -101.254, "stderr": 0.413, "reconstruction": 80.0, "kl": 21.25},
    "log_likelihood_nats": {
        "value": -98.4213, "stderr": 0.31, "kind": "bound", "measure": "probability",
        "method": "importance-weighted bound", "particles": 500, "examples": 1000,
    },
    "bits_per_dim": 0.1811,
}  # fmt: skip


def pictures(n=60, classes=3, names=None) -> Dataset:
    generator = torch.Generator().manual_seed(3)
    x = (torch.rand(n, 1, 8, 8, generator=generator) < 0.3).float()
    return Dataset.from_tensors(
        (x, torch.arange(n) % classes), levels=2, classes=names, name="dots"
    )


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


def read(run: Run) -> Page:
    """Write the report and check what holds for every one."""
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    modes = [part.training for part in run.program.modules()]
    path = write_report(run)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert [part.training for part in run.program.modules()] == modes
    assert path == run.path / "report.html"
    text = path.read_text(encoding="utf-8")
    assert "could not be drawn" not in text
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert "url(" not in text and "@import" not in text
    figures = sorted((run.path / "figures").glob("*.png"))
    assert len(page.links) == len(figures)
    drawn = []
    for link in page.links:
        assert link.startswith("data:image/png;base64,")
        drawn.append(base64.b64decode(link.partition(",")[2], validate=True))
        pixels(drawn[-1])
    assert sorted(drawn) == sorted(f.read_bytes() for f in figures)
    page.names = {f.stem for f in figures}
    page.source = text
    return page


def test_report_of_a_vae(tmp_path):
    torch.manual_seed(0)
    program = VAE((1, 8, 8), latent_dim=2, hidden=(8,), levels=2)
    info = {"ppgen": "0.1.0", "torch": "2.13", "hardware": "an abacus", "format": 1,
            "data": {"name": "dots", "shape": [1, 8, 8]}, "training_seconds": 3725.0,
            "examples_per_second": 12345}  # fmt: skip
    config = {"model": {"class_path": "ppgen.models.VAE"}, "seed": 7}
    run = Run(program, tmp_path, pictures(), (1, 8, 8), config, info, metrics(), EVALUATION)
    page = read(run)
    assert page.names == {
        "curves", "samples", "neighbours", "reconstructions", "manifold", "latents"}  # fmt: skip
    for expected in ("VAE on dots", "−98.42 ± 0.31", "−101.25 ± 0.41", "bound", "probability",
                     "500 particles", "0.1811", "1:02:05", "12,345", "an abacus", "seed: 7",
                     f"{sum(p.numel() for p in program.parameters()):,}"):  # fmt: skip
        assert expected in page.text, expected
    grid = pixels((tmp_path / "figures" / "samples.png").read_bytes())
    assert grid.shape == (10 * 42 + 2,) * 2
    assert len(np.unique(grid)) > 3  # means, not draws of black and white
    # The same again, whatever the caller has drawn since.
    torch.rand(5)
    assert read(run).source == page.source


def test_report_without_evaluation_data_or_metrics(tmp_path):
    program = VAE((1, 8, 8), latent_dim=3, hidden=(8,), levels=2)
    page = read(Run(program, tmp_path))
    assert page.names == {"samples"}
    assert "Test" not in page.text and "Learning curves" not in page.text
    assert program.training


def test_report_of_a_conditional_program(tmp_path):
    program = VAE((1, 8, 8), latent_dim=2, hidden=(8,), levels=2, num_classes=3)
    names = ("sun", "moon", "star")
    page = read(Run(program, tmp_path, pictures(names=names), metrics=metrics(2)))
    assert page.names == {"curves", "samples", "neighbours", "reconstructions", "latents",
                          "manifold-0", "manifold-1", "manifold-2"}  # fmt: skip
    assert "y = moon" in page.text
    grid = pixels((tmp_path / "figures" / "samples.png").read_bytes())
    assert grid.shape[0] == 3 * 42 + 2  # a row a class
    run = Run(program, tmp_path, info={"data": {"classes": list(names)}})  # names without data
    write_report(run)
    assert "y = star" in run.path.joinpath("report.html").read_text(encoding="utf-8")


def test_no_manifold_by_normal_quantiles_of_another_prior(tmp_path):
    program = VAE(
        (1, 8, 8), latent_dim=2, hidden=(8,), levels=2, num_classes=3, prior="conditional"
    )
    assert read(Run(program, tmp_path, pictures())).names == {
        "samples", "neighbours", "reconstructions", "latents"}  # fmt: skip


def test_report_of_points(tmp_path):
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    data = Dataset.from_tensors(x)
    program = VAE((2,), latent_dim=2, hidden=(8,))
    page = read(Run(program, tmp_path, data, (2,), metrics=metrics(2)))
    assert page.names == {
        "curves", "samples", "reconstructions", "manifold", "latents"}  # fmt: skip
    assert "2,000 draws" in page.text


def test_report_escapes_what_files_say(tmp_path):
    evil = '<script>alert("1")</script>'
    program = VAE((1, 8, 8), latent_dim=2, hidden=(8,), levels=2, num_classes=3)
    data = pictures(names=(evil, "'><img src=x>", "&amp;"))
    evaluation = {"log_likelihood_nats": {"value": evil, "stderr": evil, "kind": evil},
                  "elbo_nats": {evil: evil}, evil: evil}  # fmt: skip
    rows = [{**row, evil: 1.0} for row in metrics(2)]
    info = {evil: {evil: evil}, "hardware": evil, "data": {"name": evil, evil: evil}}
    run = Run(program, tmp_path, data, (1, 8, 8), {evil: evil}, info, rows, evaluation)
    page = read(run)
    assert evil not in page.source
    assert html.escape(evil) in page.source
    assert page.tags.count("img") == len(page.names)
    assert evil not in read(Run(program, tmp_path / "again", None, info=info)).source


class Stranger(PyroModule):
    """Someone else's: factor analysis with its own names and no more than model and guide."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 64)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("code", dist.Normal(torch.zeros(len(x), 2), 1).to_event(1))
            probs = self.net(z).sigmoid().reshape(-1, 1, 8, 8)
            pyro.sample("pixels", dist.Bernoulli(probs).to_event(3), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("code", dist.Normal(torch.zeros(len(x), 2), 1).to_event(1))


class ConditionalStranger(Stranger):
    def model(self, x, y):
        super().model(x + 0 * y.reshape(-1, 1, 1, 1))

    def guide(self, x, y):
        super().guide(x)


@pytest.mark.parametrize("kind", [Stranger, ConditionalStranger])
def test_report_of_a_stranger(tmp_path, kind):
    page = read(Run(kind(), tmp_path, pictures(), metrics=metrics(2)))
    assert page.names == {"curves", "samples", "neighbours"}
    grid = pixels((tmp_path / "figures" / "samples.png").read_bytes())
    assert grid.shape[0] == (10 if kind is Stranger else 3) * 42 + 2
    assert len(np.unique(grid)) > 3


def test_a_picture_that_fails_does_not_lose_the_page(tmp_path):
    class Broken(Stranger):
        def model(self, x):
            raise RuntimeError("<b>no</b>")

    text = write_report(Run(Broken(), tmp_path, metrics=metrics(2))).read_text(encoding="utf-8")
    assert "samples could not be drawn: RuntimeError: &lt;b&gt;no&lt;/b&gt;" in text
    assert "Learning curves" in text


def test_a_program_without_likelihood_says_so(tmp_path):
    class Implicit(Stranger):
        density = "implicit"

    page = read(Run(Implicit(), tmp_path, evaluation={"log_likelihood_nats": None}))
    assert "Test log-likelihoodnonethe model draws samples but has no density" in page.text


def test_a_run_in_memory_has_no_report():
    with pytest.raises(ValueError, match="in memory only"):
        write_report(Run(Stranger(), None))


def test_report_of_global_latents_leaves_no_parameters_behind(tmp_path):
    class Bayesian(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = PyroSample(dist.Normal(torch.zeros(1, 8, 8), 1).to_event(3))

        @pyro_method
        def model(self, x):
            loc = self.loc
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(loc, 1).to_event(3), obs=x)

    pyro.clear_param_store()
    read(Run(Bayesian(), tmp_path))
    assert not list(pyro.get_param_store())


def test_numbers_in_words():
    from ppgen import report_text as text

    assert text.number(-1234.5678) == "−1,234.6"
    assert text.number(0.001) == "0.001"
    assert text.number(5_000_000) == "5,000,000"
    assert text.number(None) == "–"
    assert text.number(math.nan) == "nan"
    assert text.with_error(-98.4213, 0.0312) == "−98.421 ± 0.031"
    assert text.with_error(-98.4213, None) == "−98.421"
    assert text.with_error(12345.6, 150.0) == "12,346 ± 150"
    assert text.duration(59.94) == "59.9 s"
    assert json.loads(text.yaml_text({"a": object}))["a"].startswith("<class")
    assert re.search("α", text.yaml_text({"a": "α"}))


# Samples over time, nearest training examples, scores


def test_scores_of_samples_stand_with_the_features_they_are_in(tmp_path):
    score = {"metric": "fid", "value": 12.344, "stderr": 0.25, "real": 1.5, "extractor": "a <net>",
             "samples": 500, "split": "test", "means": False, "seed": 0, "note": ""}  # fmt: skip
    other = {**score, "metric": "recall", "value": 0.5, "stderr": None, "extractor": "raw"}
    program = VAE((1, 8, 8), latent_dim=2, hidden=(8,), levels=2)
    run = Run(program, tmp_path, evaluation={**EVALUATION, "scores": [score, other]})
    page = read(run)
    for expected in ("fid: Frechet distance", "12.34 +- 0.25", "1.50", "a <net>", "raw"):
        assert expected in page.text, expected
    run.evaluation["scores"][0]["value"] = "much"  # damaged: the rest of the page is worth having
    text = write_report(run).read_text(encoding="utf-8")
    assert "scores of samples could not be drawn" in text and "Samples" in text


def test_the_nearest_examples_are_those_of_brute_force(monkeypatch):
    monkeypatch.setattr(plots, "PIECE", 7)  # so that pieces have to be joined
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 1, 4, 4, generator=generator)
    split = Split((torch.rand(23, 1, 4, 4, generator=generator) * 255).byte(), (), 255)
    found = plots.nearest(x, split, 4)
    data = split.batch(slice(0, None))[0]
    for drawn, near in zip(x, found.transpose(0, 1), strict=True):
        order = (data - drawn).flatten(1).norm(dim=1).argsort()[:4]
        assert torch.equal(near, data[order])
    assert plots.nearest(x, split, 99).shape == (23, 3, 1, 4, 4)


def test_a_program_that_has_learned_by_heart_is_seen(tmp_path):
    """Its draws are training examples, and stand above themselves."""
    data = pictures()
    known = data.train.batch(slice(0, 10))[0]

    class Parrot(VAE):
        def generate(self, n, *conditions, mean=False):
            return known[torch.arange(n) % len(known)]

    read(Run(Parrot((1, 8, 8), latent_dim=2, hidden=(8,), levels=2), tmp_path, data))
    grid = pixels((tmp_path / "figures" / "neighbours.png").read_bytes())
    sheet = grid[:, -(10 * 42 + 2) :]
    top, below = sheet[2:42], sheet[2 + 42 + plots.GAP :][:40]
    assert (top == below).all()


def test_sheets_of_samples_stand_in_the_order_of_their_steps(tmp_path):
    program = VAE((1, 8, 8), latent_dim=2, hidden=(8,), levels=2)
    run = Run(program, tmp_path, pictures())
    (tmp_path / "samples").mkdir()
    sheets = {}
    for step in range(0, 900, 100):
        sheets[step] = plots.image_grid(torch.full((2, 8, 8), step / 900))
        (tmp_path / "samples" / f"step_{step:09d}.png").write_bytes(sheets[step])
    write_report(run)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    section = page[page.index("Samples over time") :]
    links = re.findall(r"base64,([^\"]+)", section[: section.index("</section>")])
    shown = [base64.b64decode(link) for link in links]
    # The first and the last among them, and no more than six.
    assert shown == [sheets[step] for step in (0, 200, 300, 500, 600, 800)]
    assert "step 800" in section
