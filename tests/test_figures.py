"""Figures of programs: what they show against closed forms, and how a report takes them."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from ppgen import ELBO, Diffusion, HierarchicalVAE, plots
from ppgen.figures import Figure
from ppgen.models import diffusion_figures, hierarchical_figures
from ppgen.models.diffusion_figures import schedule_chart, score_field, terms_chart, trajectory
from ppgen.models.diffusion_terms import StepTerms, step_terms
from ppgen.models.hierarchical_figures import layer_terms, layers_chart, level_samples
from ppgen.nn.parameterisation import scales
from ppgen.nn.schedules import LinearSchedule, TableSchedule, make_schedule
from ppgen.report import write_report
from ppgen.validation import sample_picture
from tests.test_diffusion import LinearDenoiser, agrees, data, exact_terms, linear, small
from tests.test_report import EVALUATION, Run, Stranger, metrics, pictures, pixels, read


def png(value: float = 0.5) -> bytes:
    return plots.image_grid(torch.full((1, 4, 4), value))


# The hook


class Artist(Stranger):
    def figures(self, *batch):
        self.seen = [tuple(t.shape) for t in batch]
        yield Figure("Colours", "blue", png, "A <blue> one.")
        yield Figure("Shapes", "round", png, "A round one.", chart=True)
        yield Figure("Colours", "nothing", lambda: None)
        yield Figure("Colours", "broken", lambda: torch.zeros(2) @ torch.zeros(3))


def test_figures_of_a_stranger_stand_under_their_headings(tmp_path):
    program = Artist()
    text = write_report(Run(program, tmp_path, pictures())).read_text(encoding="utf-8")
    assert program.seen == [(6, 1, 8, 8)]  # the test split, without labels that it does not take
    order = ["<h2>Samples</h2>", "<h2>Colours</h2>", "A &lt;blue&gt; one.", "broken could not be",
             "<h2>Shapes</h2>", "A round one."]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count("<h2>Colours</h2>") == 1
    found = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert found == {"samples", "neighbours", "blue", "round"}
    assert (tmp_path / "figures" / "blue.png").read_bytes() == png()
    write_report(Run(program, tmp_path / "again"))
    assert program.seen == []  # no data at hand


@pytest.mark.parametrize("why", ["raises", "twice", "own"])
def test_figures_that_fail_do_not_lose_the_page(tmp_path, why):
    class Careless(Stranger):
        def figures(self, *batch):
            yield Figure("First", "first", png)
            if why == "raises":
                raise RuntimeError("<no>")
            yield Figure("Second", "first" if why == "twice" else "samples", png)

    text = write_report(Run(Careless(), tmp_path, pictures())).read_text(encoding="utf-8")
    expected = {"raises": "RuntimeError: &lt;no&gt;", "twice": "two figures of the name first",
                "own": "two figures of the name samples"}[why]  # fmt: skip
    assert f"figures could not be drawn: {'' if why == 'raises' else 'ValueError: there are '}" in (
        text
    )
    assert expected in text and "<h2>First</h2>" in text
    assert len(list((tmp_path / "figures").iterdir())) == 3  # with samples, neighbours


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a.png", "-a", "a b"])
def test_names_of_figures_are_names_of_files(name):
    with pytest.raises(ValueError, match="letters, digits, - and _ alone"):
        Figure("A", name, png)


def test_further_likelihoods_have_cards_and_rows(tmp_path):
    other = {"value": -97.5, "stderr": 0.25, "kind": "estimate", "measure": "probability",
             "method": "a <flow>", "particles": 3, "examples": 64, "unit": "probes"}  # fmt: skip
    page = read(Run(Stranger(), tmp_path, evaluation=EVALUATION | {"others": [other]}))
    for expected in ("Test log-likelihood, a <flow>", "−97.50 ± 0.25", "3 probes", "64 examples",
                     "500 particles", "others 1: value"):  # fmt: skip
        assert expected in page.text, expected


# Sheets of samples


class Few(Stranger):
    picture_count = 6
    picture_words = "a quick one"


def test_a_program_says_how_many_pictures_and_what_they_are(tmp_path):
    text = read(Run(Few(), tmp_path, pictures())).text
    assert "6 draws, each a quick one." in text
    program = small(4, 3, timesteps=5)
    program.picture_count = 7
    run = Run(program, tmp_path / "classes", None, (1, 4, 4))
    assert "6 draws, a row for each class, each the datum that" in read(run).text
    grid = pixels((tmp_path / "classes" / "figures" / "samples.png").read_bytes())
    assert grid.shape[0] == 3 * 42 + 2 and 2 * 42 < grid.shape[1] < 3 * 42
    during = pixels(sample_picture(program, run, 0))
    assert during.shape == (42 + 2, 7 * 42 + 2)
    assert pixels(sample_picture(Stranger(), Run(Stranger(), None), 0)).shape == (422, 422)


def test_heads_and_gaps_move_no_pixel_of_the_images():
    images = torch.rand(12, 1, 8, 8)
    plain = pixels(plots.image_grid(images, 3, rows=["a", "b"] * 2))
    found = pixels(plots.image_grid(images, 3, rows=["a", "b"] * 2, heads=["x", "y", "z"], group=2))
    head, gap = found.shape[0] - plain.shape[0] - plots.GAP, plots.GAP
    assert head > 0 and found.shape[1] == plain.shape[1]
    half = 2 * 42
    assert (found[head : head + half, -126:] == plain[:half, -126:]).all()
    assert (found[head + half : head + half + gap] == plots.GUTTER).all()
    assert (found[head + half + gap :, -126:] == plain[half:, -126:]).all()
    assert (found[:head] < 128).any()


# The bound by its steps


def exact_steps(program: Diffusion, x: torch.Tensor) -> torch.Tensor:
    """(n, T - 1): what a chain of t steps has more than one of t - 1, from the closed form."""
    x = x.double()
    abar = torch.sigmoid(program.schedule.steps.double())
    snr = abar / (1 - abar)
    gain, shift = program.network.gain.double(), program.network.shift.double()
    steps = []
    for t in range(2, program.timesteps + 1):
        bias = (gain[t] * abar[t].sqrt() - 1) * x + shift[t]
        error = bias.square().sum(1) + x.shape[1] * gain[t] ** 2 * (1 - abar[t])
        steps.append(0.5 * (snr[t - 1] - snr[t]) * error)
    return torch.stack(steps, 1)


def longer(total: int = 60) -> Diffusion:
    schedule = LinearSchedule(total, 0.02, 0.1)
    gain, shift = torch.linspace(0.95, 0.3, total + 1), torch.linspace(0.0, 0.4, total + 1)
    network = LinearDenoiser(schedule, "noise", gain, shift)
    program = Diffusion((2,), schedule=schedule, predict="noise", network=network)
    return program.eval().requires_grad_(False)


def test_each_step_has_its_closed_form_and_all_of_them_are_the_bound():
    torch.manual_seed(0)
    program, x = linear(), data(8)
    exact = exact_steps(program, x)
    terms = exact_terms(program, x)
    torch.testing.assert_close(exact.sum(1), terms["denoising_matching"])
    found = step_terms(program, x.repeat(8000, 1))
    assert found.edges.tolist() == [2, 3, 4, 5, 6]
    each = found.matching.double().view(8000, 8, -1)
    error = each.std(0) / 8000**0.5
    assert ((each.mean(0) - exact).abs() < 4.5 * error).all()
    torch.testing.assert_close(found.per_step.double(), exact.mean(0), rtol=0.05, atol=0)
    torch.testing.assert_close(
        found.prior_matching[:8].double(), terms["prior_matching"], rtol=1e-4, atol=1e-6
    )
    agrees(found.reconstruction, float(terms["reconstruction"].mean()))
    # The same law as that of all terms of `bound_terms`.
    bound = program.bound_terms(x.repeat(8000, 1), num_particles=4)["denoising_matching"]
    whole = found.matching.sum(1)
    assert float(whole.std()) == pytest.approx(float(bound.std()), rel=0.05)
    assert abs(float(whole.mean() - bound.mean())) < 4.5 * float(bound.std()) * (2 / 64000) ** 0.5


@pytest.mark.parametrize("stretches", [1, 7])
def test_stretches_of_steps_are_unbiased(stretches: int):
    torch.manual_seed(0)
    program, x = longer(), data(16)
    exact = exact_steps(program, x)
    found = step_terms(program, x.repeat(2000, 1), stretches=stretches)
    edges = found.edges.tolist()
    assert edges[0] == 2 and edges[-1] == 61 and len(edges) == stretches + 1
    for k, (start, end) in enumerate(pairwise(edges)):
        value = float(exact[:, start - 2 : end - 2].sum(1).mean())
        agrees(found.matching[:, k], value)
        assert float(found.per_step[k]) * (end - start) == pytest.approx(value, rel=0.1)


def test_stretches_part_the_steps_finely_at_the_start():
    for total in (2, 41, 42, 300, 1000):
        program = small(timesteps=total, schedule="linear").eval()
        with torch.no_grad():
            edges = step_terms(program, torch.zeros(1, 1, 4, 4)).edges
        widths = edges.diff()
        assert edges[0] == 2 and edges[-1] == total + 1 and widths.min() >= 1
        assert len(widths) <= 40 and (total > 41 or widths.max() == 1)
        assert widths[0] == 1
    alone = small(timesteps=1).eval()
    with torch.no_grad():
        assert step_terms(alone, torch.zeros(3, 1, 4, 4)).matching.shape == (3, 0)
        with pytest.raises(ValueError, match="stretches must be 1 or more; got 0"):
            step_terms(alone, torch.zeros(3, 1, 4, 4), stretches=0)


def test_in_continuous_time_stretches_have_their_closed_form():
    """A fresh network sees no noise: error = D / SNR, so D / 2 times the fall of log SNR."""
    torch.manual_seed(0)
    program = Diffusion(
        (3,), schedule="learned", predict="noise", network="mlp", hidden=(8,)
    ).eval()
    with torch.no_grad():
        found = step_terms(program, torch.randn(1500, 3), stretches=5)
        log_snr = program.schedule.log_snr(found.edges)
    assert found.edges.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    for k, fall in enumerate(-log_snr.diff()):
        agrees(found.matching[:, k], 1.5 * float(fall))
    with torch.no_grad():
        bound = program.bound_terms(torch.randn(1500, 3), num_particles=5)["denoising_matching"]
    agrees(found.matching.sum(1), float(bound.mean()))


def test_labels_are_those_of_the_examples():
    program = small(None, 3).eval()
    x = torch.randn(50, 1, 4, 4)
    values = []
    for label in (0, 1):
        torch.manual_seed(1)
        with torch.no_grad():
            values.append(step_terms(program, x, torch.full((50,), label)).matching)
    assert ((values[0] - values[1]).abs() > 1e-6).float().mean() > 0.9
    with pytest.raises(ValueError, match="labels y needed"):
        step_terms(program, x)


# Charts: `drawn` is left out, so that the figure itself can be read


@pytest.fixture
def shown(monkeypatch):
    for module in (diffusion_figures, hierarchical_figures):
        monkeypatch.setattr(module, "drawn", lambda figure: figure)


def test_the_chart_of_terms_says_where_half_of_the_nats_are(shown):
    matching = torch.tensor([[3.0, 2.0, 1.0, 8.0], [3.0, 2.0, 1.0, 8.0]])  # 14: half by the last
    found = StepTerms(torch.tensor([2, 3, 4, 5, 9]), matching, torch.ones(2), torch.zeros(2))
    torch.testing.assert_close(found.per_step, torch.tensor([3.0, 2.0, 1.0, 2.0]))
    axes, side = terms_chart(found, 8).axes
    assert "half of these nats\nup to t = 8" in [t.get_text() for t in axes.texts]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [bar.get_width() for bar in side.patches] == [1.0, 14.0, 0.0]
    assert side.get_title("right") == "15.00 nats"
    early = StepTerms(found.edges, matching.flip(1), torch.ones(2), torch.zeros(2))
    axes, _ = terms_chart(early, 8).axes
    assert "half of these nats\nup to t = 2" in [t.get_text() for t in axes.texts]
    continuous = StepTerms(torch.linspace(0, 1, 5), matching, torch.ones(2), torch.zeros(2))
    axes, _ = terms_chart(continuous, None).axes
    assert axes.get_ylabel() == "nats per unit of t" and axes.get_xscale() == "linear"


def test_the_schedule_stands_beside_the_others_with_its_end_points(shown):
    def lines(schedule):
        (axes,) = schedule_chart(schedule).axes
        named = {line.get_label(): line.get_xydata() for line in axes.lines}
        return {k: v for k, v in named.items() if not k.startswith("_")}, [
            text.get_text() for text in axes.texts
        ]

    learned = make_schedule("learned", 1)
    drawn, ends = lines(learned)
    assert set(drawn) == {"linear, T = 1,000", "cosine, T = 1,000", "learned"}
    assert ends == ["13.30", "−5.00"]
    t = torch.tensor(drawn["learned"][:, 0]).float()
    expected = learned.log_snr(t).detach().numpy()
    np.testing.assert_allclose(drawn["learned"][:, 1], expected, atol=1e-4)
    drawn, ends = lines(make_schedule("cosine", 1000))
    assert set(drawn) == {"linear, T = 1,000", "cosine, T = 1,000"}
    steps = make_schedule("cosine", 1000).steps
    assert ends == [f"{v:.2f}".replace("-", "−") for v in (steps[1].item(), steps[-1].item())]
    own = "this model, T = 1"
    assert len(lines(TableSchedule(torch.tensor([0.5])))[0][own]) == 1


def test_the_score_of_gaussian_data_points_home(shown):
    """x_0 ~ N(0, s^2 I) has the score -x / (signal^2 s^2 + noise^2)."""
    total, spread = 200, 0.5
    abar = torch.sigmoid(torch.linspace(6.0, -6.0, total, dtype=torch.float64))
    schedule = TableSchedule(abar)
    signal, noise = scales(schedule.at_step(torch.arange(total + 1)), torch.zeros(total + 1))
    gain = spread**2 * signal / (spread**2 * signal**2 + noise**2)
    network = LinearDenoiser(schedule, "v", gain, torch.zeros(total + 1))
    program = Diffusion((2,), schedule=schedule, predict="v", network=network).eval()
    with torch.no_grad():
        figure = score_field(program, noises=(0.7, 0.3), arrows=6)
    for axes, deviation in zip(figure.axes, (0.7, 0.3), strict=True):
        (field,) = axes.collections
        x = torch.from_numpy(np.asarray(field.XY))
        arrow = torch.from_numpy(np.stack([np.asarray(field.U), np.asarray(field.V)], 1))
        told = float(axes.get_title("right").split()[1])
        assert told == pytest.approx(deviation, abs=0.02)
        score = -told * x / ((1 - told**2) * spread**2 + told**2)
        wanted = score / (1 + score.square().sum(1, keepdim=True)).sqrt()
        ratio = arrow.norm(dim=1) / wanted.norm(dim=1)
        assert float(ratio.max() / ratio.min()) == pytest.approx(1, abs=0.05)
        assert (torch.cosine_similarity(arrow, wanted) > 0.999).all()


# Out of noise


def test_a_trajectory_goes_from_noise_to_the_sample():
    program = small(4, 3, timesteps=100).eval()
    torch.manual_seed(0)
    seen = trajectory(program, 200, 6)
    assert len(seen) == 6
    times = [one.time for one in seen]
    assert times[0] == 1 and times[-1] == 0 and times == sorted(times, reverse=True)
    assert float(seen[0].x.std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(seen[-1].x, seen[-1].x0)
    # In even stretches of the angle whose tangent is noise / signal, as far as there are levels.
    angles = [math.atan(math.exp(-0.5 * float(program.schedule.log_snr(torch.tensor(t)))))
              for t in times[:-1]]  # fmt: skip
    assert max(np.diff(angles)) < 0 and min(np.diff(angles)) > -0.45
    assert len(trajectory(small(4, timesteps=3).eval(), 2, 11)) == 4


# Hierarchies


def hierarchy(**arguments) -> HierarchicalVAE:
    torch.manual_seed(0)
    arguments = {"latent_dims": (6, 4, 2), "hidden": (16,), "latent_hidden": (8,)} | arguments
    program = HierarchicalVAE((1, 8, 8), levels=2, **arguments).eval()
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return program


@pytest.mark.parametrize("guide", ["top_down", "bottom_up"])
@pytest.mark.parametrize("layers", [(6, 4, 2), (5,)])
def test_the_kl_of_each_layer_is_that_of_the_elbo(guide: str, layers: tuple):
    program = hierarchy(guide=guide, latent_dims=layers, num_classes=3)
    x, y = (torch.rand(400, 1, 8, 8) < 0.3).float(), torch.arange(400) % 3
    objective = ELBO(program).eval()
    with torch.no_grad():
        many = [layer_terms(program, x, y) for _ in range(30)]
        runs = [objective(x, y)[1] for _ in range(30)]
    assert list(many[0]) == list(range(len(layers), 0, -1))
    for t, value in many[0].items():
        assert value.shape == (400,)
        own = torch.stack([one[t].mean() for one in many]).double()
        title = f"kl/z_{t}" if len(layers) > 1 else "kl"
        elbo = torch.stack([terms[title] for terms in runs]).double()
        error = ((own.var() + elbo.var()) / 30).sqrt()
        assert abs(float(own.mean() - elbo.mean())) < 4.5 * float(error) + 1e-4


def test_a_dead_layer_is_marked(shown):
    terms = {3: torch.full((9,), 0.04), 2: torch.full((9,), 0.2), 1: torch.full((9,), 7.0)}
    (axes,) = layers_chart(terms).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z₃, dead", "z₂", "z₁"]
    assert [round(bar.get_width(), 3) for bar in axes.patches] == [0.04, 0.2, 7.0]
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()


def test_what_is_held_fixed_stays_and_what_is_below_varies():
    program = hierarchy()
    with torch.no_grad():
        for layer, network in enumerate(program.down):
            last = network.layers[-1]
            half = last.out_features // 2
            last.weight[half:], last.bias[half:] = 0.0, -12.0 if layer == 0 else 0.0
        torch.manual_seed(0)
        found = level_samples(program, draws=3, columns=7)
    assert found.shape == (3, 2, 7, 1, 8, 8)
    spread = found.std(2).flatten(2).mean(2)  # (draws, levels) over the columns
    # p(z_1 | z_2) has next to no width: with z_2 fixed the columns agree, with z_3 alone not.
    assert (spread[:, 1] < 1e-3).all() and (spread[:, 0] > 0.01).all()
    assert float(found.mean(2).std(0).mean()) > 0.01  # other draws, other pictures
    assert found.min() > 0 and found.max() < 1


# Whole reports


IMAGES = {"samples", "denoising", "schedule", "steps", "inpainting"}


@pytest.mark.parametrize(
    ("arguments", "classes"),
    [({"timesteps": 12}, None), ({"timesteps": 4}, 3), ({"schedule": "learned"}, 3),
     ({"timesteps": 1}, None)],
)  # fmt: skip
def test_report_of_a_diffusion_of_pictures(tmp_path, arguments, classes):
    torch.manual_seed(0)
    program = Diffusion((1, 8, 8), levels=2, network="mlp", hidden=(8,), num_classes=classes,
                        **arguments)  # fmt: skip
    page = read(Run(program, tmp_path, pictures(), metrics=metrics(2)))
    assert page.names == IMAGES | {"curves", "neighbours"}
    assert "first 6 test examples" in page.text
    again = read(Run(program, tmp_path / "again", pictures(), metrics=metrics(2)))
    assert again.source == page.source
    assert read(Run(program, tmp_path / "dataless")).names == {"samples", "denoising", "schedule"}
    strip = pixels((tmp_path / "figures" / "denoising.png").read_bytes())
    x_t, x_0 = strip[20:62, -43:], strip[62:104, -43:]
    assert (x_t == x_0).all() and (x_t != plots.GUTTER).any()  # at t = 0 both are the sample
    given = pixels((tmp_path / "figures" / "inpainting.png").read_bytes())[:, -42 * 6 - 2 :]
    rows = given[2 : 2 + 3 * 42].reshape(3, 42, -1)[:, :40]
    assert (rows[0][:20] == rows[2][:20]).all()  # what is known is kept
    assert (rows[1][20:][:, 2:42] == round(0.6 * 255)).all()


def test_report_of_a_diffusion_of_points_and_of_vectors(tmp_path):
    from ppgen.data import Dataset

    torch.manual_seed(0)
    for size in (2, 5):
        x = torch.randn(100, size, generator=torch.Generator().manual_seed(0))
        program = Diffusion((size,), timesteps=8, network="mlp", hidden=(8,), num_classes=2)
        data = Dataset.from_tensors((x, torch.arange(100) % 2))
        page = read(Run(program, tmp_path / str(size), data, (size,)))
        own = {"denoising", "score"} if size == 2 else set()
        assert page.names == {"samples", "schedule", "steps"} | own


@pytest.mark.parametrize("guide", ["top_down", "bottom_up"])
def test_report_of_a_hierarchy(tmp_path, guide):
    program = hierarchy(guide=guide, num_classes=3)
    page = read(Run(program, tmp_path, pictures()))
    assert page.names == {"samples", "neighbours", "reconstructions", "layers", "levels"}
    assert ("may be negative" in page.text) == (guide == "bottom_up")
    one = hierarchy(latent_dims=(4,))
    assert read(Run(one, tmp_path / "one", pictures())).names == {
        "samples", "neighbours", "reconstructions", "layers"}  # fmt: skip
