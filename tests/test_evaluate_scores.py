"""Scores of the samples of runs: what is judged, what is kept, and what is refused."""

import dataclasses
import json
import re
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppgen
from ppgen import cli, metrics
from ppgen.evaluation_record import NOT_ASKED, Evaluation
from ppgen.sample_scores import sample_scores
from ppgen.score_record import BETTER, METRICS, NUMBERS, WHAT, Score

ALL = list(METRICS)
SMALL = {"latent_dim": 2, "hidden": (16,)}


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def digits():
    return ppgen.load_data("digits")


@pytest.fixture
def run(digits, tmp_path):
    program = ppgen.VAE(digits.shape, levels=17, **SMALL)
    return ppgen.fit(program, digits, steps=5, out=tmp_path / "run", progress=False,
                     sample_epochs=0, device="cpu")  # fmt: skip


class Fixed(ppgen.Program):
    """Draws what it is told to, by label where it is conditional; no density."""

    density = "implicit"

    def __init__(self, shape, num_classes=None):
        super().__init__()
        self.shape = tuple(shape)
        self.num_classes = num_classes
        self.dummy = nn.Parameter(torch.zeros(()))
        self.asked = []
        self.source = lambda n, y, mean: torch.rand(n, *self.shape)

    def model(self, x, y=None):
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.deterministic("x", z)

    def generate(self, n, *conditions, mean=False):
        self.asked.append((n, conditions, mean))
        return self.source(n, conditions, mean)


def values(scores):
    return {score.metric: score.value for score in scores}


def stored(run):
    return json.loads((run.path / "evaluation.json").read_text())


# What is judged -------------------------------------------------------------------------------


def test_the_tables_of_names_agree():
    assert [number for name in METRICS for number in NUMBERS[name]] == list(BETTER) == list(WHAT)


def test_copies_of_the_data_score_as_data_and_noise_does_not(digits):
    train = digits.train.batch(slice(None))[0]
    program = Fixed(digits.shape)
    order = iter(torch.randperm(len(train)))
    program.source = lambda n, y, mean: torch.stack([train[next(order)] for _ in range(n)])
    copies = {s.metric: s for s in sample_scores(program, digits, ALL)}
    assert set(copies) == set(BETTER)
    for name in ("fid", "kid", "inception", "precision", "recall", "c2st", "class_variation"):
        near = 4 * copies[name].stderr + 0.03
        assert copies[name].value == pytest.approx(copies[name].real, abs=near), name
    assert copies["classes"].value == 10
    assert copies["neighbours"].value > 0.95 and copies["data_copying"].value < -3
    assert {s.real is None for s in (copies["neighbours"], copies["data_copying"])} == {True}
    noise = values(sample_scores(Fixed(digits.shape), digits, ALL))
    assert noise["fid"] > 10 * copies["fid"].value and noise["c2st"] > 0.9
    assert noise["kid"] > 1 and noise["precision"] < 0.3 and noise["neighbours"] < 0.1


def test_a_conditional_program_gets_the_labels_of_the_examples(digits):
    x, y = digits.train.batch(slice(None))
    given = []

    def source(n, conditions, mean):
        (labels,) = conditions
        given.append(labels)
        return torch.stack([x[y == label][0] for label in labels])

    program = Fixed(digits.shape, num_classes=10)
    program.source = source
    found = {s.metric: s for s in sample_scores(program, digits, ["classes"], samples=150)}
    assert len(torch.cat(given)) == 150
    assert found["classes"].value == 10 and found["class_variation"].value < 0.05
    whole = digits.test.conditions[0].bincount(minlength=10)
    assert (torch.cat(given).bincount(minlength=10) <= whole).all()
    plain = Fixed(digits.shape)
    sample_scores(plain, digits, ["kid"], samples=30)
    assert plain.asked == [(30, (), False)]


class Coloured(Fixed):
    """Given an image."""

    def __init__(self, shape):
        super().__init__(shape, None)
        del self.num_classes

    def model(self, x, y):
        super().model(x)


@pytest.mark.parametrize(
    ("program", "given"),
    [
        (lambda shape: Fixed(shape), ""),
        (lambda shape: Fixed(shape, num_classes=10), "labels"),
        (Coloured, "images"),
    ],
)
def test_a_score_tells_what_its_samples_were_given(digits, program, given):
    data = digits
    if given == "images":
        data = digits._map(
            lambda split: dataclasses.replace(split, conditions=(split.stored,)),
            classes=None,
            condition_names=("sketch",),
        )
    (score,) = sample_scores(program(digits.shape), data, ["kid"], samples=30, features="random")
    assert score.given == given and score.terms[-1] == given
    assert (f"30 draws given the {given} of as many test" in score.how) == bool(given)
    content = Evaluation("", "test", None, None, None, None, 0.0, scores=(score,)).to_dict()
    assert Score.from_dict(content["scores"][0]) == score
    for name in ("given", "real_split"):  # of a file that is older
        del content["scores"][0][name]
    assert Score.from_dict(content["scores"][0]).terms == (*score.terms[:-1], "")


def test_draws_or_means_in_batches_of_a_bounded_size(digits, monkeypatch):
    monkeypatch.setattr("ppgen.sample_scores.ROWS", 50)
    program = Fixed(digits.shape)
    (score,) = sample_scores(program, digits, ["kid"], samples=120, means=True)
    assert program.asked == [(50, (), True), (50, (), True), (20, (), True)]
    assert score.means and "120 means against as many test" in score.how
    assert program.training  # as it was


def test_one_seed_one_score(digits):
    first, again, other = (
        sample_scores(Fixed(digits.shape), digits, ["fid", "c2st"], samples=100, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again and first[0].value != other[0].value
    state = torch.get_rng_state()
    sample_scores(Fixed(digits.shape), digits, ["kid"], samples=100)
    assert torch.equal(state, torch.get_rng_state())


def test_pictures_are_clamped_and_reals_are_not(digits):
    seen = []

    class Seeing(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1)[:, :2]

    program = Fixed(digits.shape)
    program.source = lambda n, y, mean: 3 * torch.randn(n, *program.shape)
    sample_scores(program, digits, ["kid"], features=Seeing())
    assert all(x.min() >= 0 and x.max() <= 1 for x in seen)
    moons = ppgen.load_data("moons")
    points = Fixed((2,))
    points.source = lambda n, y, mean: 9 * torch.randn(n, 2)
    seen.clear()
    (score,) = sample_scores(points, moons, ["kid"], samples=50, features=Seeing())
    assert max(x.abs().max() for x in seen) > 5
    assert sample_scores(points, moons, ["kid"], samples=50)[0].extractor.startswith("raw")
    assert score.extractor.startswith("Seeing")


def test_points_by_their_values_and_a_program_that_fits(tmp_path):
    moons = ppgen.load_data("moons")
    x = moons.train.batch(slice(None))[0]
    perfect = Fixed((2,))
    perfect.source = lambda n, y, mean: x[torch.randint(len(x), (n,))] + 0.06 * torch.randn(n, 2)
    found = {s.metric: s for s in sample_scores(perfect, moons, ["fid", "c2st"], samples=500)}
    assert abs(found["c2st"].value - 0.5) < 4 * found["c2st"].stderr
    assert found["fid"].value < 0.05


# What is kept ---------------------------------------------------------------------------------


def test_scores_are_written_and_read_back(run):
    found = ppgen.evaluate(run, particles=2, limit=20, metrics=["fid", "kid"])
    content = stored(run)
    assert content["step"] == 5 and content["log_likelihood_nats"]["examples"] == 20
    assert [score["metric"] for score in content["scores"]] == ["fid", "kid"]
    back = Evaluation.from_dict(content)
    assert back.scores == found.scores and back.log_likelihood == found.log_likelihood
    assert re.search(r"fid [\d.]+ \+- [\d.]+, real data [\d.]+ \(180 draws against as many test "
                     r"examples, classifier of digits \(test accuracy", str(found))  # fmt: skip


def test_neither_likelihood_nor_scores_are_lost_or_computed_again(run, monkeypatch):
    first = ppgen.evaluate(run, particles=2, limit=20)
    assert first.scores == ()
    from ppgen import evaluation

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "_weighted", lambda *_: pytest.fail("computed again"))
        scored = ppgen.evaluate(run, metrics=["kid"])
        assert scored.log_likelihood == first.log_likelihood and scored.elbo == first.elbo
        more = ppgen.evaluate(run.path, metrics=["c2st"], likelihood=False)
        other = ppgen.evaluate(run, metrics=["kid"], samples=100)
    assert [s.metric for s in more.scores] == ["kid", "c2st"]
    assert [(s.metric, s.samples) for s in other.scores] == [("kid", 180), ("c2st", 180),
                                                             ("kid", 100)]  # fmt: skip
    # the same metric on the same terms is replaced
    again = ppgen.evaluate(run, metrics=["kid"], seed=5)
    kept = [(s.metric, s.seed) for s in again.scores if s.samples == 180]
    assert kept == [("c2st", 0), ("kid", 5)]
    # a new likelihood leaves the scores; asked for by its options it is computed with metrics too
    anew = ppgen.evaluate(run, particles=3, limit=30)
    assert anew.scores == again.scores and anew.log_likelihood.examples == 30
    both = ppgen.evaluate(run, particles=2, limit=10, metrics=["kid"])
    assert both.log_likelihood.examples == 10
    assert stored(run) == both.to_dict() | {"step": 5}


def test_scores_of_another_split_leave_the_likelihood(run):
    first = ppgen.evaluate(run, particles=2, limit=20)
    scored = ppgen.evaluate(run, metrics=["kid"], split="validation")
    assert scored.split == "test" and scored.log_likelihood == first.log_likelihood
    assert [score.split for score in scored.scores] == ["validation"]
    assert stored(run)["log_likelihood_nats"]["examples"] == 20
    # one that is asked for is computed
    anew = ppgen.evaluate(run, metrics=["kid"], split="validation", limit=10)
    assert anew.split == "validation" and anew.log_likelihood.examples == 10


def test_scores_alone_say_that_no_likelihood_was_asked_for(run):
    found = ppgen.evaluate(run, metrics=["kid"], likelihood=False)
    assert found.log_likelihood is None and found.reason == NOT_ASKED
    # it is computed when it is asked for, and with the next metric
    assert ppgen.evaluate(run, metrics=["c2st"]).log_likelihood is not None
    assert [s["metric"] for s in stored(run)["scores"]] == ["kid", "c2st"]


def test_what_was_trained_on_since_is_forgotten(run, digits):
    ppgen.evaluate(run, metrics=["kid"], likelihood=False)
    content = stored(run)
    (run.path / "evaluation.json").write_text(json.dumps(content | {"step": 4}))
    assert ppgen.evaluate(run, particles=2, limit=10).scores == ()


def test_a_program_without_likelihood_has_scores(digits):
    found = ppgen.evaluate(Fixed(digits.shape), digits, metrics=["kid", "classes"])
    assert found.log_likelihood is None and "is implicit" in found.reason
    assert [s.metric for s in found.scores] == ["kid", "classes", "class_variation"]


def test_samples_that_fail_leave_the_likelihood(run, monkeypatch):
    monkeypatch.setattr(type(run.program), "generate", lambda *_, **__: torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"draws samples of shape \(3,\), and examples of digits"):
        ppgen.evaluate(run, particles=2, limit=10, metrics=["kid"])
    assert stored(run)["log_likelihood_nats"]["examples"] == 10


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"metric": "fids"}, ValueError, "metric 'fids'"),
        ({"value": "1"}, ValueError, "value '1'"),
        ({"means": 1}, ValueError, "means 1"),
        ({"samples": True}, ValueError, "samples True"),
        ({"given": "label"}, ValueError, "given 'label' of a score"),
        ({"real_split": "tests"}, ValueError, "real_split 'tests' of a score"),
        ({"stderr": None}, None, ""),
    ],
)
def test_a_damaged_score_is_not_read(change, error, match):
    whole = {"metric": "fid", "value": 1.0, "stderr": 0.1, "real": None, "extractor": "raw [x]",
             "samples": 5, "split": "test", "means": False, "seed": 0, "note": ""}  # fmt: skip
    if error is None:
        assert Score.from_dict(whole | change).number == "1.00"
        return
    with pytest.raises(error, match=match):
        Score.from_dict(whole | change)


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"metrics": ["fidd"]}, "unknown metric 'fidd'; did you mean fid.* neighbours, classes"),
        ({"metrics": []}, "name a metric or more: fid, kid"),
        ({"metrics": "fid"}, "expected a list of names"),
        ({"metrics": ["kid"], "samples": 181}, "181 samples are asked for and the test split of"),
        ({"metrics": ["kid"], "samples": 0}, "samples must be 1 or more; got 0"),
        ({"metrics": ["kid"], "samples": 19}, "kid needs at least 20 samples of each set; got 19"),
        ({"metrics": ["fid"], "samples": 64}, "more samples than features, 65 here.* got 64"),
        ({"metrics": ["kid", "inception"], "features": "raw"}, "inception needs a classifier"),
        ({"metrics": ["classes"], "features": "random"}, "classes needs a classifier"),
    ],
)
def test_bad_input_is_refused_before_anything_is_drawn(digits, options, match):
    program = Fixed(digits.shape)
    with pytest.raises(ValueError, match=match):
        sample_scores(program, digits, **options)
    assert program.asked == []


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"metrics": ["kid"], "features": "clasifier"}, "unknown features 'clasifier'"),
        ({"metrics": ["kid"], "features": "torch.nn.Absent"}, "torch.nn has no 'Absent'"),
        ({"metrics": ["kid"], "features": "torch.nn"}, "is no class of nn.Module"),
        ({"metrics": ["kid"], "features": "absent.Class"}, "there is no module 'absent'"),
        ({"metrics": ["inception"], "features": "raw"}, "inception needs a classifier"),
        ({"metrics": ["kid"], "samples": 5}, "kid needs at least 20"),
        ({"metrics": ["kid"], "samples": 5000}, "5,000 samples are asked for"),
        ({"metrics": ["fid"], "samples": 30}, "fid needs more samples than features"),
    ],
)
def test_what_is_refused_costs_no_likelihood(run, monkeypatch, options, match, before):
    from ppgen import evaluation

    file = run.path / "evaluation.json"
    if before:
        ppgen.evaluate(run, particles=2, limit=10)
    kept = file.read_bytes() if before else None
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "_weighted", lambda *_: pytest.fail("computed"))
        with pytest.raises(ValueError, match=match):
            ppgen.evaluate(run, likelihood=True, **options)
    assert (file.read_bytes() if file.exists() else None) == kept


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (lambda n, y, mean: torch.full((n, 1, 8, 8), torch.nan), "30 of 30 samples of Fixed are"),
        (lambda n, y, mean: torch.zeros(n, 1, 4, 4), r"draws samples of shape \(1, 4, 4\)"),
    ],
)
def test_samples_that_cannot_be_scored(digits, source, match):
    program = Fixed(digits.shape)
    program.source = source
    with pytest.raises(ValueError, match=match):
        sample_scores(program, digits, ["kid"], samples=30)


def test_a_program_without_means(digits):
    def source(n, y, mean):
        raise NotImplementedError

    program = Fixed(digits.shape)
    program.source = source
    with pytest.raises(ValueError, match="Fixed has no means: score its draws"):
        sample_scores(program, digits, ["kid"], samples=30, means=True)


@pytest.mark.parametrize(
    ("sizes", "split", "from_split"),
    [
        ((100, 60, 60), "test", "validation"),
        ((100, 60, 40), "validation", "train"),
        ((100, 60, 60), "validation", "test"),
        ((100, 40, 60), "test", "train"),
        ((40, 40, 60), "test", None),
    ],
)
def test_real_data_are_unseen_examples_where_there_are_enough(sizes, split, from_split):
    parts = [torch.full((n, 2), float(k)) + torch.randn(n, 2) / 9 for k, n in enumerate(sizes)]
    data = ppgen.Dataset.from_tensors(*parts)
    (score,) = sample_scores(Fixed((2,)), data, ["kid"], split=split)
    if from_split is None:
        assert score.real is None and score.samples == 60
        return
    where = ("train", "validation", "test")
    means = [float(k) for k in range(3)]
    apart = means[where.index(split)] - means[where.index(from_split)]
    assert score.real_split == from_split and apart != 0
    reference, real = (parts[where.index(name)] for name in (split, from_split))
    if len(real) == score.samples:
        assert score.real == pytest.approx(metrics.kid(real, reference).value, rel=1e-5)
    told = "training examples" if from_split == "train" else f"{from_split} examples"
    assert score.real_how.startswith(told)


# The command ----------------------------------------------------------------------------------


def command(*words):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return cli.main(["evaluate", *map(str, words)])


def test_the_command_prints_a_table_that_names_the_extractor(run, capsys):
    words = ["--metrics", "kid,precision_recall", "--samples", "100", "--features", "random"]
    assert command(run.path, *words, "--particles", 2, "--limit", 10) == 0
    said = " ".join(capsys.readouterr().out.split())
    for score in stored(run)["scores"]:
        found = Score.from_dict(score)
        assert f"{found.metric} │ {found.number} │ {found.real_number} │" in said
    assert "100 draws against as many test examples, random network standardised on" in said
    assert "real data: validation examples in the place of the samples" in said
    assert "log-likelihood" in said and "importance-weighted, 2" in said
    assert command(run.path, "--metrics", "kid", "--likelihood", "false", "--means") == 0
    assert "180 means against as many test examples, classifier" in " ".join(
        capsys.readouterr().out.split()
    )
    assert len(stored(run)["scores"]) == 4 and stored(run)["log_likelihood_nats"] is not None


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--metrics", "fud"], "unknown metric 'fud'; did you mean fid"),
        (["--metrics", ""], "name a metric or more"),
        (["--samples", "0"], "--samples is for scores of samples: add --metrics"),
        (["--metrics", "kid", "--samples", "0"], "--samples must be 1 or more; got 0"),
        (["--samples", "100"], "--samples is for scores of samples: add --metrics"),
        (["--means"], "--means is for scores of samples"),
        (["--features", "raw"], "--features is for scores of samples"),
        (["--likelihood", "false"], "name a metric or more"),
        (["--metrics", "kid", "--features", "classifer"], "unknown features 'classifer'"),
        (["--metrics", "kid", "--samples", "500"], "500 samples are asked for and the test"),
    ],
)
def test_what_the_command_refuses(run, capsys, words, match):
    assert command(run.path, "--particles", 1, "--limit", 2, *words) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if "error" in line]
    assert printed.out == "" and len(lines) == 1 and re.search(match, lines[0]), printed.err


def test_the_report_shows_no_evaluation_of_an_earlier_step(run):
    from ppgen.report import write_report

    ppgen.evaluate(run, particles=2, limit=10, metrics=["kid"])
    ppgen.evaluate(run, particles=2, limit=10, split="validation")
    text = write_report(run).read_text(encoding="utf-8")
    assert "Evaluation on validation" in text and "Frechet" not in text and "kid: " in text
    assert "Real data: validation examples in the place of the samples." in text
    content = stored(run)
    (run.path / "evaluation.json").write_text(json.dumps(content | {"step": 4}))
    assert run.evaluation is None
    text = write_report(run).read_text(encoding="utf-8")
    assert "Evaluation on" not in text and "kid: " not in text


def test_every_metric_is_documented():
    for name in METRICS:
        assert getattr(metrics, name).__doc__
