"""A GAN on two processes: both players move, the processes agree, and one of them writes.

Its weights are more than a pipe between processes holds at once.
"""

import json
import os
import subprocess
import sys

import pytest
import torch

from ppgen.models.gan import GAN
from ppgen.run import load_checkpoint

SCRIPT = """
import json, sys
import torch
from ppgen import Dataset, fit
from ppgen.models.gan import GAN

if __name__ == "__main__":
    torch.manual_seed(0)
    arguments = json.loads(sys.argv[2])
    x = torch.randint(256, (64, 1, 8, 8), generator=torch.Generator().manual_seed(5)) / 255
    y = torch.arange(64) % 3
    data = Dataset.from_tensors((x, y), (x[:8], y[:8]), (x[:8], y[:8]), levels=256)
    program = GAN((1, 8, 8), levels=256, latent_dim=3, channels=24, num_classes=3, **arguments)
    run = fit(program, data, out=sys.argv[1], steps=6, batch_size=16, devices=2, device="cpu",
              sample_epochs=0, progress=False)
    print(json.dumps([row for row in run.metrics if row["split"] == "train"][-1]))
"""
pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"
)


@pytest.mark.parametrize(
    "arguments",
    [
        {"network": "dcgan"},  # power iteration in buffers
        {"network": "dcgan", "loss": "wasserstein_gp", "normalise": "batch"},
    ],
)
def test_both_players_train_on_two_processes(tmp_path, arguments):
    file, out = tmp_path / "train.py", tmp_path / "run"
    file.write_text(SCRIPT)
    found = subprocess.run(
        [sys.executable, str(file), str(out), json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr and "cannot be traced" not in found.stderr, found.stderr
    row = json.loads(found.stdout.splitlines()[-1])
    assert row["step"] == 6
    assert {"discriminator/loss", "generator/loss"} <= row.keys()
    torch.manual_seed(0)
    start = GAN((1, 8, 8), levels=256, latent_dim=3, channels=24, num_classes=3, **arguments)
    weights, state = load_checkpoint(out)
    assert len(state["optimizers"]) == 2
    for name, value in start.named_parameters():
        changed = not torch.equal(weights[name], value)
        assert changed or name == "discriminator.head.score.bias", name  # lost in a difference
    # The averaged weights are what is saved; the discriminator's singular vectors came along.
    if "loss" not in arguments:
        raw = state["raw"]
        assert torch.equal(weights["discriminator.head.score.u"], raw["discriminator.head.score.u"])
        assert not torch.equal(
            raw["discriminator.layers.0.v"], start.state_dict()["discriminator.layers.0.v"]
        )
