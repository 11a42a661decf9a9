"""Every example runs, draws its picture and gets its key figures right.

To add an example: write `examples/NAME.py` with `main(argv)`, which takes `--out PICTURE` and
returns a dictionary of its figures; add a line to `examples/README.md`; and add a function here,
decorated with `@example`, named as the script is, that checks the figures.
"""

import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pyro
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CHECKS = {}  # script name: the check of its figures


def example(check):
    CHECKS[check.__name__] = check
    return check


@example
def entropy_of_coins(found):
    texts = {"H(p), p = (.5, .5)": 1, "H(q), q = (.2, .8)": 0.72, "H(p, q)": 1.32}
    for name, value in texts.items():
        assert found[name] == pytest.approx(value, abs=5e-3)
    assert found["information of a fair coin's head"] == 1
    assert found["JS of disjoint coins"] == 1
    assert found["KL(p || q)"] == pytest.approx(found["H(p, q)"] - found["H(p), p = (.5, .5)"])
    assert found["KL(p || q)"] != pytest.approx(found["KL(q || p)"], abs=0.02)
    assert found["maximum likelihood P(red)"] == pytest.approx(0.3, abs=1e-3)
    assert found["fitted posterior a"] == pytest.approx(32, rel=0.05)
    assert found["fitted posterior b"] == pytest.approx(72, rel=0.05)


@example
def variational_inference(found):
    x = 1.5
    log_cdf = math.log((1 + math.erf((x - 1) / math.sqrt(2))) / 2)
    assert found["log p(x)"] == pytest.approx(0.5 - x + log_cdf, abs=1e-12)
    assert found["log p(x) by quadrature"] == pytest.approx(found["log p(x)"], abs=1e-8)
    families = ("log-normal", "softplus-normal", "truncated normal")
    for family in families:
        # two measurements that share nothing: Pyro's samples, and quadrature
        total = found[f"{family}: ELBO"] + found[f"{family}: KL"]
        error = found[f"{family}: ELBO error"]
        assert total == pytest.approx(found["log p(x)"], abs=4 * error + 1e-6)
        assert error < 2e-3
    gaps = [found[f"{family}: KL"] for family in families]
    assert gaps[0] > 0.1 > gaps[1] > 0.02
    assert 0 <= gaps[2] < 1e-3
    for moment in ("mean", "std"):
        exact = found[f"posterior {moment}"]
        assert found[f"truncated normal: {moment}"] == pytest.approx(exact, abs=0.02)
    # the exact moments themselves, by brute force
    z = torch.linspace(0, 12, 120_001, dtype=torch.float64)
    weight = (-z - (x - z) ** 2 / 2).exp()
    mean = (torch.trapezoid(weight * z, z) / torch.trapezoid(weight, z)).item()
    var = (torch.trapezoid(weight * (z - mean) ** 2, z) / torch.trapezoid(weight, z)).item()
    assert found["posterior mean"] == pytest.approx(mean, abs=1e-7)
    assert found["posterior std"] == pytest.approx(math.sqrt(var), abs=1e-7)


@example
def evidence_gap(found):
    for guide in ("full covariance", "mean field"):
        assert found[f"{guide}: worst |ELBO + KL - log p(x)|"] < 1e-5
        assert found[f"{guide}: KL at the start"] > 10
        # the closed form against Pyro's samples
        error = found[f"{guide}: ELBO by Pyro, error"]
        exact = found[f"{guide}: ELBO at the end"]
        assert found[f"{guide}: ELBO by Pyro"] == pytest.approx(exact, abs=4 * error + 1e-6)
        assert error < 5e-3
        assert exact <= found["log p(x)"]
    assert 0 <= found["full covariance: KL at the end"] < 5e-3
    gap = found["mean-field gap, closed form"]
    assert gap > 0.5
    assert gap - 1e-12 <= found["mean field: KL at the end"] < gap + 5e-3


@example
def gradient_estimators(found):
    for dimension in (1, 4, 16, 64):
        ratios = []
        for name in ("reparameterisation", "score function, baseline", "score function"):
            key = f"{name}, d={dimension}"
            assert found[f"{key}: mean"] == pytest.approx(1, abs=4 * found[f"{key}: error"]), key
            closed = found[f"{key}: closed form"]
            assert found[f"{key}: variance"] == pytest.approx(closed, rel=0.05), key
            ratios.append(found[f"{key}: ratio"])
        assert ratios[0] == 1 < ratios[1] < ratios[2]
    assert found["score function, d=64: error"] < 0.1


@pytest.mark.parametrize("name", CHECKS)
def test_example(name, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    before = set(pyro.get_param_store().keys())
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name=name)["main"]
    found = main(["--out", str(picture)])
    assert picture.name in capsys.readouterr().out.replace("\n", "")
    assert all(math.isfinite(value) for value in found.values())
    CHECKS[name](found)
    pixels = matplotlib.image.imread(picture)
    assert min(pixels.shape[:2]) >= 300
    assert 0.02 < (pixels[..., :3].min(-1) < 0.95).mean() < 0.9, "blank, or all ink"
    assert set(pyro.get_param_store().keys()) == before, (
        "the example left something in Pyro's store"
    )
    assert torch.get_default_dtype() == torch.float32


def test_as_a_command(tmp_path):
    command = [sys.executable, "-W", "error", str(EXAMPLES / "gradient_estimators.py")]
    done = subprocess.run(
        [*command, "--out", "picture.png"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "reparameterisation" in done.stdout
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_every_example_is_listed_and_tested():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    listed = set(re.findall(r"^\| `(\w+)\.py` \|", (EXAMPLES / "README.md").read_text(), re.M))
    assert listed == scripts, "examples/README.md lists every script, and only those"
    assert set(CHECKS) == scripts, "tests/test_examples.py checks every script, and only those"
    for name in scripts:
        source = (EXAMPLES / f"{name}.py").read_text()
        assert source.endswith('\n\nif __name__ == "__main__":\n    main()\n'), name
