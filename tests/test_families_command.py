"""Every model by the command: trained, gone on with, drawn from, and made again as configured."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from ppgen import cli, load
from ppgen.models import MODELS
from ppgen.run import read_yaml

# Small versions; the rest of their options are the defaults, as a run writes them down.
SMALL = {
    "VAE": ["--model.hidden", "[8]"],
    "HierarchicalVAE": ["--model.hidden", "[8]", "--model.latent_hidden", "[8]"],
    "Diffusion": ["--model.network", "mlp", "--model.hidden", "[8]", "--model.timesteps", "4"],
    "RealNVP": ["--model.layers", "1", "--model.hidden", "[4]"],
    "Glow": ["--model.steps", "1", "--model.hidden", "4"],
    "MAF": ["--model.layers", "2", "--model.hidden", "[8]"],
    "IAF": ["--model.layers", "1", "--model.hidden", "[8]"],
    "NeuralSpline": ["--model.layers", "2", "--model.hidden", "[8]"],
    "GAN": ["--model.hidden", "[8]"],
    "Pix2Pix": ["--model.channels", "2"],
}


def command(*words) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture
def source(tmp_path):
    """Where data of a model come from."""

    def find(model: str) -> list[str]:
        if model != "Pix2Pix":
            return ["digits"]
        generator = np.random.default_rng(0)
        (tmp_path / "images").mkdir()
        for k in range(12):
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"{k}.png")
        return [f"pairs:{tmp_path / 'images'}", "--size", "16"]

    return find


@pytest.mark.parametrize("model", MODELS)
def test_train_resume_configure_and_sample(model, source, tmp_path, capsys):
    run, again = tmp_path / "run", tmp_path / "again"
    data = source(model)
    common = ["--batch_size", "16", "--sample_epochs", "0", "--validate_epochs", "0"]
    given = ["--model", model, *SMALL.get(model, []), "--data", *data, *common]
    assert command("train", *given, "--steps", "2", "--out", run) == 0, capsys.readouterr().err
    assert command("train", "--resume", "--out", run, "--steps", "3") == 0, capsys.readouterr().err
    assert json.loads((run / "run.json").read_text())["steps"] == 3
    config = ["--config", run / "config.yaml", "--out", again]
    assert command("train", *config) == 0, capsys.readouterr().err
    assert read_yaml(again / "config.yaml") == read_yaml(run / "config.yaml")
    mine, theirs = load(run).state_dict(), load(again).state_dict()
    assert mine.keys() == theirs.keys()  # three steps at once, or two and one
    arrays = tmp_path / "drawn.npz"
    assert command("sample", run, "--n", "2", "--out", arrays) == 0, capsys.readouterr().err
    drawn = np.load(io.BytesIO(arrays.read_bytes()))["x"]
    assert drawn.shape[0] == 2 and np.isfinite(drawn).all()


def test_a_second_training_goes_on_from_where_the_first_ended(tmp_path):
    """What starts from data does so once: fine-tuning begins at the likelihood it was given."""
    import ppgen

    data = ppgen.load_data("moons")
    x = data.test.batch(slice(0, None))[0]
    for program in (
        ppgen.MAF(data.shape, layers=2, hidden=(16,)),
        ppgen.GaussianMixture(data.shape, components=3),
    ):
        ppgen.fit(program, data, steps=200, device="cpu", progress=False, validate_epochs=0)
        with torch.no_grad():
            before = program.log_prob(x).mean()
        ppgen.fit(program, data, steps=1, lr=1e-9, batch_size=16, seed=5, device="cpu",
                  progress=False, validate_epochs=0)  # fmt: skip
        with torch.no_grad():
            after = program.log_prob(x).mean()
        torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
