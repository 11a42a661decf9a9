"""Extractors: what they order, how they are kept, and what they refuse."""

import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import ppgen
from ppgen import features, metrics
from ppgen.features import Extractor, default_features, extractor


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def digits():
    return ppgen.load_data("digits")


@pytest.fixture(scope="module")
def mnist():
    """Of 14x14: large enough that a blur of a pixel leaves digits."""
    whole = ppgen.load_data("mnist", size=14)
    parts = [getattr(whole, k).batch(slice(None)) for k in ("train", "test")]
    train, test = ((x[:n], y[:n]) for (x, y), n in zip(parts, (1500, 300), strict=True))
    return ppgen.Dataset.from_tensors(train, None, test, levels=None, name="mnist 14x14")


def blurred(x):
    weights = torch.tensor([1.0, 2.0, 1.0]) / 4
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return nn.functional.conv2d(padded, torch.outer(weights, weights)[None, None])


@pytest.mark.parametrize("name", ["classifier", "random"])
def test_noise_is_worse_than_blurred_is_worse_than_real(mnist, name, monkeypatch):
    monkeypatch.setattr(features, "STEPS", (100, 100))
    judge = extractor(name, mnist)
    reference = judge(mnist.test.batch(slice(None))[0])[0]
    real = mnist.train.batch(slice(0, 300))[0]
    noise = torch.rand(real.shape, generator=torch.Generator().manual_seed(0))
    found = [judge(x)[0] for x in (noise, blurred(real), real)]
    for metric in (metrics.fid, metrics.kid):
        worst, middle, best = (metric(part, reference) for part in found)
        assert worst.value - middle.value > 3 * (worst.stderr + middle.stderr)
        assert middle.value - best.value > 3 * (middle.stderr + best.stderr)
    precision = [metrics.precision_recall(part, reference)[0].value for part in found]
    assert precision[0] <= precision[1] < precision[2]
    told = [metrics.c2st(part, reference).value for part in found]
    assert min(told[:2]) > 0.8 > 0.6 > told[2]


def test_the_classifier_classifies(digits):
    judge = extractor(None, digits)
    x, y = digits.test.batch(slice(None))
    found, logits = judge(x)
    assert found.shape == (180, features.WIDTH) and logits.shape == (180, 10)
    accuracy = 100 * (logits.argmax(1) == y).double().mean().item()
    assert accuracy > 93
    assert f"test accuracy {accuracy:.1f}%" in judge.name
    train = judge(digits.train.batch(slice(None))[0])[0]
    assert train.mean(0).abs().max() < 0.3 and (train.std(0) - 1).abs().max() < 0.4  # standardised


def test_the_defaults(digits):
    assert default_features(digits) == "classifier"
    assert default_features(ppgen.load_data("moons")) == "raw"
    pictures = ppgen.Dataset.from_tensors(torch.rand(40, 1, 8, 8).round(), levels=2)
    assert default_features(pictures) == "random"
    assert extractor(None, pictures)(torch.rand(3, 1, 8, 8))[1] is None


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 40, 70), (5, 6), (1, 1, 1), (7,)])
def test_any_shape_has_random_features(shape):
    data = ppgen.Dataset.from_tensors(torch.randn(30, *shape))
    found, logits = extractor("random", data)(torch.randn(4, *shape))
    assert found.shape == (4, features.WIDTH) and found.isfinite().all() and logits is None


def test_raw_features_are_the_values():
    data = ppgen.load_data("moons")
    x = data.test.batch(slice(0, 5))[0]
    assert torch.equal(extractor("raw", data)(x)[0], x)


# The cache ------------------------------------------------------------------------------------


def small(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 3, generator=generator)
    y = (x[:, 0] > 0).long()
    return ppgen.Dataset.from_tensors((x, y), name="small")


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(features, "STEPS", (10, 10))


def test_a_cache_hit_gives_the_same_extractor_without_training(empty_cache, monkeypatch, tmp_path):
    data, x = small(), torch.randn(5, 3)
    state = torch.get_rng_state()
    first = extractor("classifier", data)
    assert torch.equal(state, torch.get_rng_state())
    (file,) = (tmp_path / "ppgen" / "features").iterdir()
    assert file.suffix == ".safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(features, "_train", lambda *_: pytest.fail("trained again"))
        again = extractor("classifier", small())
    assert str(again) == str(first)
    assert torch.equal(again(x)[0], first(x)[0]) and torch.equal(again(x)[1], first(x)[1])
    # other data, another extractor; the same data anew, the same one
    assert extractor("classifier", small(1)).digest != first.digest
    file.unlink()
    assert str(extractor("classifier", small())) == str(first)


@pytest.mark.parametrize("how", ["cut short", "a bit flipped", "not a file of weights", "empty"])
def test_a_damaged_cache_file_is_made_again(empty_cache, tmp_path, how):
    first = extractor("classifier", small())
    (file,) = (tmp_path / "ppgen" / "features").iterdir()
    whole = file.read_bytes()
    torn = {
        "cut short": whole[:-100],
        "a bit flipped": whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:],
        "not a file of weights": b"import os; os.abort()",
        "empty": b"",
    }[how]
    file.write_bytes(torn)
    with pytest.warns(UserWarning, match="is damaged: the extractor is made again"):
        again = extractor("classifier", small())
    assert str(again) == str(first) and file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.warns(UserWarning, match="not kept in the cache"):
        assert extractor("random", small())(torch.randn(2, 3))[0].shape == (2, features.WIDTH)


def test_the_cache_is_under_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert features.cache_folder() == tmp_path / ".cache" / "ppgen" / "features"


# Other people's -------------------------------------------------------------------------------


class Means(nn.Module):
    """Two features of any picture."""

    def forward(self, x):
        flat = x.flatten(1)
        return torch.stack([flat.mean(1), flat.std(1)], 1)


class Judging(nn.Module):
    """A classifier of somebody's, drawn at random."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 5)

    def forward(self, x):
        return x.flatten(1), self.layer(x.flatten(1))


class Needy(nn.Module):
    def __init__(self, size):
        super().__init__()


def test_a_module_by_its_path_or_itself(digits):
    x = digits.test.batch(slice(0, 6))[0]
    by_path = extractor("test_features.Means", digits)
    assert torch.equal(by_path(x)[0], Means()(x)) and by_path.name == "test_features.Means"
    one, two = (extractor("test_features.Judging", digits) for _ in range(2))
    assert str(one) == str(two) and one(x)[1].shape == (6, 5)  # its start is seeded
    torch.manual_seed(1)
    other = extractor(Judging(), digits)
    assert other.name == "Judging" and other.digest != one.digest


def test_modules_of_one_state_and_another_function_have_another_digest(digits):
    def digest(*layers):
        return extractor(nn.Sequential(nn.Flatten(), *layers), digits).digest

    assert digest(nn.Tanh()) != digest(nn.ReLU())
    assert digest(nn.Tanh()) == digest(nn.Tanh())
    other = type("Means", (Means,), {"__module__": "elsewhere"})
    assert extractor(Means(), digits).digest != extractor(other(), digits).digest


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("clasifier", "unknown features 'clasifier'; did you mean classifier"),
        ("test_features.Mean", "test_features has no 'Mean'; did you mean Means"),
        ("test_features.Needy", "cannot be made without arguments"),
        ("test_features.blurred", "is no class of nn.Module"),
        ("absent_package.Class", "there is no module 'absent_package'"),
        ("inception:/no/such/file", "there is no such file of weights"),
    ],
)
def test_unknown_extractors(digits, name, match):
    with pytest.raises(ValueError, match=match):
        extractor(name, digits)


def test_a_classifier_needs_labels():
    with pytest.raises(ValueError, match="has no labels to train a classifier on: choose"):
        extractor("classifier", ppgen.Dataset.from_tensors(torch.rand(40, 3)))
    one = ppgen.Dataset.from_tensors((torch.rand(40, 3), torch.zeros(40).long()))
    with pytest.raises(ValueError, match="has one class to train a classifier on"):
        extractor("classifier", one)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda x: x, r"gives \[\(4, 1, 8, 8\)\] for 4 examples: expected features"),
        (lambda x: x.flatten(1)[:2], r"gives \[\(2, 64\)\] for 4 examples"),
        (lambda x: x.flatten(1) / 0, "gives features that are not finite"),
        (lambda x: x @ torch.zeros(3, 3), r"does not take examples of shape \(1, 8, 8\)"),
        (lambda x: "features", r"gives \['str'\]"),
    ],
)
def test_an_extractor_that_does_not_fit(function, match):
    network = nn.Module()
    network.forward = function
    with pytest.raises(ValueError, match=match):
        Extractor("own", "00", network)(torch.rand(4, 1, 8, 8))


def test_inception_without_its_package_says_what_to_install(digits, tmp_path, monkeypatch):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match="pip install torch-fidelity torchvision"):
        extractor(f"inception:{file}", digits)


def test_inception_by_a_stand_in_of_its_package(digits, tmp_path, monkeypatch):
    """The calls that torch-fidelity's class is given, by one of the same form."""

    class FeatureExtractorInceptionV3(nn.Module):
        def __init__(self, name, features_list, feature_extractor_weights_path):
            super().__init__()
            assert (name, features_list) == ("inception-v3-compat", ["2048", "logits_unbiased"])
            if Path(feature_extractor_weights_path).read_bytes() != b"good":
                raise RuntimeError("no such\nweights")
            self.layer = nn.Linear(3, 7)

        def forward(self, x):
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            pooled = x.float().mean((2, 3))  # (n, 3)
            return pooled, self.layer(pooled)

    package = types.ModuleType("torch_fidelity")
    inner = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    inner.FeatureExtractorInceptionV3 = FeatureExtractorInceptionV3
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, inner.__name__, inner)
    file = tmp_path / "weights.pth"
    file.write_bytes(b"good")
    judge = extractor(f"inception:{file}", digits)
    x = digits.test.batch(slice(0, 4))[0]
    found, logits = judge(x)
    assert torch.allclose(found, (255 * x).round().mean((2, 3)).expand(4, 3), atol=1e-3)
    assert logits.shape == (4, 7) and judge.name == "Inception-v3"
    file.write_bytes(b"bad")
    with pytest.raises(ValueError, match="holds no weights of Inception-v3: no such weights"):
        extractor(f"inception:{file}", digits)
