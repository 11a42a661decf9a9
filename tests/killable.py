"""Programs and scripts that the tests of training kill, stop, resume and run on two processes.

    python killable.py OUT '{"model": "Noisy", "devices": 2, "steps": 10}'

trains with these options of `fit` and prints, as its last line, the digest of the final weights.
"""

import hashlib
import json
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppgen.data import Dataset, load_data
from ppgen.objective import ELBO, Objective
from ppgen.training import fit


class Noisy(PyroModule):
    """A stranger's program with all that a checkpoint has to remember: BatchNorm and dropout."""

    def __init__(self, shape: tuple[int, ...], width: int = 8, rate: float = 0.3) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(size, width), nn.BatchNorm1d(width), nn.Tanh(),
            nn.Dropout(rate), nn.Linear(width, 4),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(2, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(rate),
            nn.Linear(width, size), nn.Unflatten(-1, tuple(shape)),
        )  # fmt: skip

    def model(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(3), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("batch", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Quiet(PyroModule):
    """A program without noise: a normal density whose mean is a network of nothing but biases."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.linspace(-1, 1, shape[0]))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def model(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            scale = self.log_scale.exp().expand(len(x), -1)
            pyro.sample("x", dist.Normal(self.loc.expand(len(x), -1), scale).to_event(1), obs=x)


class Draws(ELBO):
    """An ELBO whose draws come back from every process, as the greatest and least of them."""

    def forward(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super().forward(*batch)
        noise = torch.rand(())
        print(f"draw {noise.item():.9f}", flush=True)
        return loss, terms


class Generator(Objective):
    """Moves the generator's mean so that the critic takes its draws for data."""

    def player(self) -> list[nn.Parameter]:
        return list(self.program.generator.parameters())

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = self.program.generator(torch.randn_like(x))
        loss = nn.functional.softplus(-self.program.critic(drawn)).mean()
        return loss, {"fooled": loss.detach()}


class Critic(Objective):
    """Moves the critic, twice a turn, to tell data from draws."""

    steps = 2
    lr_factor = 2.0

    def player(self) -> list[nn.Parameter]:
        return list(self.program.critic.parameters())

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = self.program.generator(torch.randn_like(x))
        real = nn.functional.softplus(-self.program.critic(x)).mean()
        fake = nn.functional.softplus(self.program.critic(drawn)).mean()
        return real + fake, {"real": real.detach(), "fake": fake.detach()}


class Duel(PyroModule):
    """Two objectives over one program: each runs modules whose parameters the other moves."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.generator = nn.Linear(shape[0], shape[0])
        self.critic = nn.Sequential(nn.Linear(shape[0], 8), nn.Tanh(), nn.Linear(8, 1))

    def model(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
            pyro.deterministic("draw", self.generator(z), event_dim=1)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))

    def objectives(self) -> dict[str, Objective]:
        return {"critic": Critic(self), "generator": Generator(self)}


class NoGuide(PyroModule):
    """A local latent without a guide: refused."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(shape))

    def model(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc.expand_as(x), 1.0).to_event(x.dim() - 1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(x.dim() - 1), obs=x)


class NoModel(PyroModule):
    """A class without `model`: refused."""


def digest(program: nn.Module) -> str:
    """The bits of all weights and buffers."""
    whole = hashlib.sha256()
    for name, value in program.state_dict().items():
        whole.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def points(n: int) -> Dataset:
    """Points of a normal law far from the program's start; n of them to train on."""
    x = torch.randn(n + 8, 3, generator=torch.Generator().manual_seed(5)) * 2 + 3
    return Dataset.from_tensors(x[:n], x[n : n + 4], x[n + 4 :])


def train(out: str | Path | None, options: dict) -> tuple[nn.Module, list[dict]]:
    """One run of a program of this file (or the VAE) with options of `fit`."""
    options = {"progress": False, "sample_epochs": 0, "batch_size": 256} | options
    name, examples = options.pop("model", "Noisy"), options.pop("examples", 50)
    objective = options.pop("objective", None)
    torch.manual_seed(0)
    if name == "VAE":
        from ppgen.models import VAE

        dataset = load_data("digits", binarize="static")
        program: nn.Module = VAE(dataset.shape, latent_dim=2, hidden=(16,), levels=2)
    elif name == "Noisy":
        dataset = load_data("digits", binarize="dynamic")
        program = Noisy(dataset.shape)
    else:
        dataset = points(examples)
        program = globals()[name](dataset.shape)
    chosen = None
    if objective is not None:
        kind = {"ELBO": ELBO, "Draws": Draws}[objective.pop("name")]
        chosen = kind(program, **objective)
    run = fit(program, dataset, out=out, objective=chosen, **options)
    return run.program, run.metrics


if __name__ == "__main__":
    program, metrics = train(sys.argv[1] or None, json.loads(sys.argv[2]))
    figures = {
        "digest": digest(program),
        "weights": {name: value.tolist() for name, value in program.state_dict().items()},
        "steps": metrics[-1]["step"] if metrics else None,  # of rank 0 only, under torchrun
        "train": [name for name in (metrics or [{}])[0] if "/" in name],
    }
    print(json.dumps(figures))
