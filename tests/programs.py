"""Programs of people who have never seen ppgen: plain Pyro, each with one habit of its own.

Also importable by a command: ``ppgen train --model tests.programs.StrangerVAE``. Nothing happens
at import.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample, pyro_method
from torch import Tensor, nn
from torch.distributions import constraints

from ppgen.data import Dataset
from ppgen.models import (
    GAN,
    IAF,
    MAF,
    VAE,
    Diffusion,
    GaussianMixture,
    Glow,
    HierarchicalVAE,
    NeuralSpline,
    Pix2Pix,
    RealNVP,
)
from ppgen.nn.schedules import LearnedSchedule


class StrangerVAE(PyroModule):
    """A VAE by somebody else: its own networks, its own plate name, no base class of ours."""

    def __init__(self, shape, latents: int = 2, hidden: int = 8):
        super().__init__()
        (self.dims,) = shape
        self.latents = latents
        self.encoder = nn.Sequential(
            nn.Linear(self.dims, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latents)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, self.dims)
        )

    def model(self, x):
        with pyro.plate("rows", x.shape[0]):
            z = pyro.sample("code", dist.Normal(x.new_zeros(len(x), self.latents), 1.0).to_event(1))
            pyro.sample("pixels", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("rows", x.shape[0]):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("code", dist.Normal(loc, nn.functional.softplus(raw)).to_event(1))


class NoisyVAE(StrangerVAE):
    """BatchNorm and dropout inside the networks."""

    def __init__(self, shape, latents: int = 2, hidden: int = 8):
        super().__init__(shape, latents, hidden)
        self.encoder = nn.Sequential(
            nn.Linear(self.dims, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(hidden, 2 * latents),
        )


class LinearGaussian(PyroModule):
    """x = W z + b + noise, z standard normal; the exact posterior is Gaussian.

    `exact_guide` puts log p(x) itself under the ELBO; the other guide is a learned linear one.
    """

    def __init__(self, shape, latents: int = 2, noise: float = 0.6, exact_guide: bool = False):
        super().__init__()
        (self.dims,) = shape
        self.latents, self.noise, self.exact_guide = latents, noise, exact_guide
        values = torch.sin(torch.arange(float(self.dims * latents)) * 1.7 + 0.3)
        self.weight = nn.Parameter(values.view(self.dims, latents))
        self.bias = nn.Parameter(torch.cos(torch.arange(float(self.dims))))
        if not exact_guide:
            self.recognise = nn.Linear(self.dims, latents)
            self.log_scale = nn.Parameter(torch.full((latents,), -0.7))

    def model(self, x):
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), self.latents), 1.0).to_event(1))
            loc = z @ self.weight.T + self.bias
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)

    def posterior(self, x):
        precision = self.weight.T @ self.weight / self.noise**2 + torch.eye(self.latents)
        covariance = torch.linalg.inv(precision)
        loc = (x - self.bias) @ self.weight @ covariance / self.noise**2
        return dist.MultivariateNormal(loc, covariance)

    def guide(self, x):
        with pyro.plate("batch", len(x)):
            if self.exact_guide:
                pyro.sample("z", self.posterior(x))
            else:
                scale = self.log_scale.exp()
                pyro.sample("z", dist.Normal(self.recognise(x), scale).to_event(1))

    def exact_log_prob(self, x):
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(self.dims)
        return torch.distributions.MultivariateNormal(self.bias, covariance).log_prob(x)


class Hierarchy(PyroModule):
    """z2 -> z1 -> x in the model, x -> z1 -> z2 in the guide, all linear and Gaussian.

    Only the KL of the top layer has a closed form in this order.
    """

    def __init__(self, shape):
        super().__init__()
        (self.dims,) = shape
        names = ("prior", "emit", "up1", "up2")
        values = (0.8, 1.3, 0.5, 0.6)
        for name, value in zip(names, values, strict=True):
            setattr(self, name, nn.Parameter(torch.full((self.dims,), value)))
        scales = {"s1": 0.7, "s2": 0.5, "t1": 0.4, "t2": 0.9}
        for name, value in scales.items():
            setattr(self, "log_" + name, nn.Parameter(torch.full((self.dims,), math.log(value))))

    def model(self, x):
        with pyro.plate("batch", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(self.prior * z2, self.log_s1.exp()).to_event(1))
            pyro.sample("x", dist.Normal(self.emit * z1, self.log_s2.exp()).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("batch", len(x)):
            z1 = pyro.sample("z1", dist.Normal(self.up1 * x, self.log_t1.exp()).to_event(1))
            pyro.sample("z2", dist.Normal(self.up2 * z1, self.log_t2.exp()).to_event(1))

    def exact_elbo(self, x):
        """E_q[log p(x, z1, z2) - log q(z1, z2 | x)] by the moments of the Gaussians."""
        s1, s2, t1, t2 = (getattr(self, "log_" + name).exp() for name in ("s1", "s2", "t1", "t2"))
        m1 = self.up1 * x
        m2, v2 = self.up2 * m1, self.up2**2 * t1**2 + t2**2
        # log N(x; e z1, s2), log N(z1; p z2, s1), log N(z2; 0, 1): minus half a mean square
        emit = (x - self.emit * m1) ** 2 + (self.emit * t1) ** 2
        # z1 - p z2 = (1 - p u2) z1 - p eps2
        inner = (1 - self.prior * self.up2) ** 2 * (m1**2 + t1**2) + (self.prior * t2) ** 2
        value = -0.5 * (emit / s2**2 + inner / s1**2 + m2**2 + v2)
        value = value - (s2.log() + s1.log() + 1.5 * math.log(2 * math.pi))
        entropy = t1.log() + t2.log() + math.log(2 * math.pi) + 1.0
        return (value + entropy).sum(-1)

    def exact_log_prob(self, x):
        s1, s2 = self.log_s1.exp(), self.log_s2.exp()
        variance = self.emit**2 * (self.prior**2 + s1**2) + s2**2
        return dist.Normal(torch.zeros_like(x), variance.sqrt()).log_prob(x).sum(-1)


class TopDown(Hierarchy):
    """The same model with a guide in the model's order: every KL has a closed form."""

    def guide(self, x):
        with pyro.plate("batch", len(x)):
            z2 = pyro.sample("z2", dist.Normal(self.up2 * x, self.log_t2.exp()).to_event(1))
            loc = self.up1 * x + 0.1 * z2
            pyro.sample("z1", dist.Normal(loc, self.log_t1.exp()).to_event(1))


class Bits(PyroModule):
    """Two independent binary latents an example, sampled: the score function trains the guide.

    With `data_size` the batch is a part of so many examples.
    """

    def __init__(self, shape, bits: int = 2, data_size: int | None = None):
        super().__init__()
        (self.dims,) = shape
        self.bits, self.data_size = bits, data_size
        self.prior = nn.Parameter(torch.linspace(-0.5, 0.7, bits))
        self.emit = nn.Linear(bits, self.dims)
        self.recognise = nn.Linear(self.dims, bits)

    def observation(self, z):
        return dist.Normal(self.emit(z), 0.8).to_event(1)

    def model(self, x):
        with pyro.plate("batch", self.data_size or len(x), subsample=x):
            z = pyro.sample("z", dist.Bernoulli(logits=self.prior.expand(len(x), -1)).to_event(1))
            pyro.sample("x", self.observation(z), obs=x)

    def guide(self, x):
        with pyro.plate("batch", self.data_size or len(x), subsample=x):
            pyro.sample("z", dist.Bernoulli(logits=self.recognise(x)).to_event(1))

    def joint(self, x):
        """log p(x, z) and log q(z | x) for every z: two tensors (2^bits, n)."""
        columns = [torch.tensor([0.0, 1.0])] * self.bits
        z = torch.cartesian_prod(*columns).view(-1, 1, self.bits).expand(-1, len(x), -1)
        log_p = dist.Bernoulli(logits=self.prior).log_prob(z).sum(-1)
        log_q = dist.Bernoulli(logits=self.recognise(x)).log_prob(z).sum(-1)
        return log_p + self.observation(z).log_prob(x), log_q

    def exact_elbo(self, x):
        log_p, log_q = self.joint(x)
        return (log_q.exp() * (log_p - log_q)).sum(0)

    def exact_log_prob(self, x):
        return self.joint(x)[0].logsumexp(0)


class Mixture(PyroModule):
    """A mixture of Gaussians whose component is summed out; no guide."""

    def __init__(self, shape, components: int = 3):
        super().__init__()
        (self.dims,) = shape
        self.components = components
        self.logits = nn.Parameter(torch.zeros(components))
        angle = torch.arange(components) * 2.0 * math.pi / components
        start = torch.stack([angle.cos(), angle.sin()], -1)
        self.loc = nn.Parameter(start.repeat(1, (self.dims + 1) // 2)[:, : self.dims].clone())
        self.scale = PyroParam(torch.ones(components), constraints.positive)

    def model(self, x):
        with pyro.plate("batch", len(x)):
            k = pyro.sample(
                "k", dist.Categorical(logits=self.logits), infer={"enumerate": "parallel"}
            )
            scale = self.scale[k].unsqueeze(-1)
            pyro.sample("x", dist.Normal(self.loc[k], scale).to_event(1), obs=x)

    def exact_log_prob(self, x):
        law = dist.Normal(self.loc[:, None], self.scale[:, None, None]).to_event(1)
        return (law.log_prob(x) + self.logits.log_softmax(0)[:, None]).logsumexp(0)


class MixedVAE(PyroModule):
    """An enumerated component and a sampled continuous latent in one program."""

    def __init__(self, shape, components: int = 3):
        super().__init__()
        (self.dims,) = shape
        self.logits = nn.Parameter(torch.linspace(-0.4, 0.4, components))
        self.centre = nn.Parameter(torch.linspace(-2, 2, components))
        self.emit = nn.Parameter(torch.linspace(0.5, 1.5, self.dims))
        self.recognise = nn.Linear(self.dims, 1)

    def model(self, x):
        with pyro.plate("batch", len(x)):
            k = pyro.sample(
                "k", dist.Categorical(logits=self.logits), infer={"enumerate": "parallel"}
            )
            z = pyro.sample("z", dist.Normal(self.centre[k], 0.7))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1) * self.emit, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("batch", len(x)):
            pyro.sample("z", dist.Normal(self.recognise(x).squeeze(-1), 0.8))

    def exact_log_prob(self, x):
        # z is integrated out: given k, x is Gaussian with covariance I + 0.49 e e^T
        covariance = torch.eye(self.dims) + 0.49 * torch.outer(self.emit, self.emit)
        law = torch.distributions.MultivariateNormal(
            self.centre[:, None, None] * self.emit, covariance
        )
        return (law.log_prob(x) + self.logits.log_softmax(0)[:, None]).logsumexp(0)


class Regression(PyroModule):
    """Bayesian linear regression of the last column on the others; the guide is left to ppgen."""

    def __init__(self, shape, data_size: int, noise: float = 0.5):
        super().__init__()
        self.inputs = shape[0] - 1
        self.data_size, self.noise = data_size, noise

    def model(self, x):
        weights = pyro.sample("w", dist.Normal(x.new_zeros(self.inputs), 2.0).to_event(1))
        with pyro.plate("data", self.data_size, subsample=x) as part:
            loc = part[:, :-1] @ weights
            pyro.sample("t", dist.Normal(loc, self.noise), obs=part[:, -1])

    def posterior(self, x):
        features, target = x[:, :-1].double(), x[:, -1].double()
        eye = torch.eye(self.inputs, dtype=torch.float64)
        covariance = torch.linalg.inv(features.T @ features / self.noise**2 + eye / 4)
        return covariance @ features.T @ target / self.noise**2, covariance

    def predictive(self, train, x):
        """log p(t | x, train) in closed form."""
        mean, covariance = self.posterior(train)
        features = x[:, :-1].double()
        variance = ((features @ covariance) * features).sum(-1) + self.noise**2
        return dist.Normal(features @ mean, variance.sqrt()).log_prob(x[:, -1].double())


class Location(PyroModule):
    """One global location with a guide of its own; x is used as `obs=` only."""

    def __init__(self, shape, data_size: int):
        super().__init__()
        (self.dims,) = shape
        self.data_size = data_size
        self.guide_loc = nn.Parameter(torch.full((self.dims,), 0.2))
        self.guide_scale = PyroParam(torch.full((self.dims,), 0.3), constraints.positive)

    def model(self, x):
        mu = pyro.sample("mu", dist.Normal(x.new_zeros(self.dims), 3.0).to_event(1))
        with pyro.plate("data", self.data_size, subsample=x):
            pyro.sample("x", dist.Normal(mu, 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.sample("mu", dist.Normal(self.guide_loc, self.guide_scale).to_event(1))


class OwnAutoGuide(PyroModule):
    """Made its autoguide itself, in the constructor."""

    def __init__(self, shape, data_size: int):
        super().__init__()
        (self.dims,) = shape
        self.data_size = data_size
        self.spread = nn.Parameter(torch.zeros(()))
        self.guide = AutoNormal(self.model)

    def model(self, x):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(self.dims), 3.0).to_event(1))
        with pyro.plate("data", self.data_size, subsample=x):
            pyro.sample("x", dist.Normal(mu, self.spread.exp()).to_event(1), obs=x)


class Gaussian(PyroModule):
    """No latents: maximum likelihood."""

    def __init__(self, shape):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(shape))
        self.scale = PyroParam(torch.ones(shape), constraints.positive)

    def model(self, x):
        with pyro.plate("batch", len(x)):
            pyro.sample("x", dist.Normal(self.loc, self.scale).to_event(1), obs=x)

    def exact_log_prob(self, x):
        return dist.Normal(self.loc, self.scale).log_prob(x).sum(-1)


class Attributes(PyroModule):
    """Every kind of attribute of a PyroModule: PyroModule[nn.Linear], PyroParam, PyroSample.

    A method that reads a PyroSample is decorated, as Pyro asks.
    """

    def __init__(self, shape, data_size: int):
        super().__init__()
        (self.dims,) = shape
        self.data_size = data_size
        self.encoder = PyroModule[nn.Linear](self.dims, 2)
        self.decoder = PyroModule[nn.Linear](1, self.dims)
        self.noise = PyroParam(torch.tensor(0.7), constraints.positive)
        self.shift = PyroSample(dist.Normal(torch.zeros(self.dims), 1.0).to_event(1))
        self.shift_loc = nn.Parameter(torch.full((self.dims,), 0.1))

    @pyro_method
    def model(self, x):
        shift = self.shift
        with pyro.plate("data", self.data_size, subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            loc = self.decoder(z) + shift
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)

    def guide(self, x):
        pyro.sample("shift", dist.Normal(self.shift_loc, 0.2).to_event(1))
        with pyro.plate("data", self.data_size, subsample=x):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class TwoViews(PyroModule):
    """Two latents, two observations, each observation weighted or masked."""

    def __init__(self, shape, weight: float = 1.0, masked: bool = False):
        super().__init__()
        (self.dims,) = shape
        self.weight, self.masked = weight, masked
        self.encoder = nn.Linear(self.dims, 4)
        self.decoder = nn.Linear(2, self.dims)

    def model(self, x):
        with pyro.plate("batch", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(len(x)), 1.0))
            z2 = pyro.sample("z2", dist.Normal(0.5 * z1, 1.0))
            loc = self.decoder(torch.stack([z1, z2], -1))
            keep = x[:, 0] > 0 if self.masked else torch.ones(len(x), dtype=torch.bool)
            with poutine.mask(mask=keep):
                pyro.sample("left", dist.Normal(loc[:, :1], 1.0).to_event(1), obs=x[:, :1])
            with poutine.scale(scale=self.weight):
                pyro.sample("right", dist.Laplace(loc[:, 1:], 1.0).to_event(1), obs=x[:, 1:])

    def guide(self, x):
        with pyro.plate("batch", len(x)):
            a, b, c, d = self.encoder(x).unbind(-1)
            z1 = pyro.sample("z1", dist.Normal(a, b.exp()))
            pyro.sample("z2", dist.Normal(c + 0.3 * z1, d.exp()))


class Gradients(PyroModule):
    """Stops and takes gradients inside: no_grad, detach, and autograd.grad in the guide."""

    def __init__(self, shape):
        super().__init__()
        (self.dims,) = shape
        self.encoder = nn.Linear(self.dims, self.dims)
        self.decoder = nn.Linear(self.dims, self.dims)
        self.gain = nn.Parameter(torch.tensor(0.3))

    def model(self, x):
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
            with torch.no_grad():
                frozen = self.decoder(z).tanh()
            loc = self.decoder(z) + self.gain * frozen + 0.1 * self.decoder(z.detach()) ** 2
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def emit(self, z):
        return self.gain * z.sin()

    def guide(self, x):
        with pyro.plate("batch", len(x)):
            loc = self.encoder(x)
            # one gradient step on an energy, itself differentiated
            with torch.enable_grad():
                start = loc if loc.requires_grad else loc.detach().requires_grad_()
                energy = ((x - self.emit(start)) ** 2).sum() + (start**2).sum()
                (slope,) = torch.autograd.grad(energy, start, create_graph=True)
            pyro.sample("z", dist.Normal(loc - 0.1 * slope, 0.5).to_event(1))


class Refined(Gradients):
    """Its inner gradient goes through a linear layer, whose backward cannot be recorded."""

    def emit(self, z):
        return self.decoder(z)


class Branching(Gaussian):
    """Control flow that depends on the data."""

    exact_log_prob = None

    def model(self, x):
        with pyro.plate("batch", len(x)):
            loc = self.loc if x.sum() > 0 else 2 * self.loc
            pyro.sample("x", dist.Normal(loc, self.scale).to_event(1), obs=x)


class Gambling(Gaussian):
    """Draws from Python's random module."""

    exact_log_prob = None

    def model(self, x):
        with pyro.plate("batch", len(x)):
            loc = self.loc + random.random()
            pyro.sample("x", dist.Normal(loc, self.scale).to_event(1), obs=x)


class Counting(Gaussian):
    """Counts its own calls in a Python attribute, which its density then depends on."""

    exact_log_prob = None

    def __init__(self, shape):
        super().__init__(shape)
        self.calls = 0

    def model(self, x):
        self.calls += 1
        with pyro.plate("batch", len(x)):
            loc = self.loc + 0.1 * self.calls
            pyro.sample("x", dist.Normal(loc, self.scale).to_event(1), obs=x)


# Programs that must be refused ----------------------------------------------------------------


class StoreParam(PyroModule):
    """Keeps a parameter in Pyro's global store."""

    def model(self, x):
        loc = pyro.param("stray", torch.zeros(x.shape[1:]))
        with pyro.plate("batch", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


class NoGuide(PyroModule):
    """A continuous latent an example and nobody to infer it."""

    def __init__(self, shape):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(shape))

    def model(self, x):
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z * self.scale, 1.0).to_event(1), obs=x)


class BatchOnly(Location):
    """Global latents, but the data plate knows only the batch."""

    def __init__(self, shape):
        super().__init__(shape, data_size=0)

    def model(self, x):
        mu = pyro.sample("mu", dist.Normal(x.new_zeros(self.dims), 3.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0).to_event(1), obs=x)


class NoModel(PyroModule):
    """A module and no program."""

    def __init__(self, shape):
        super().__init__()
        self.layer = nn.Linear(*shape, *shape)


class Poisoned(Gaussian):
    """Its observation's scale turns into NaN for large data."""

    def model(self, x):
        scale = (10.0 - x.abs().max()).log()
        with pyro.plate("batch", len(x)):
            pyro.sample("x", dist.Normal(self.loc, self.scale * 0 + scale).to_event(1), obs=x)


def reals(n: int = 6, dims: int = 3, seed: int = 1) -> Tensor:
    """A batch of reals that no law is special at."""
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed))


# The zoo that every law is held against -------------------------------------------------------


class Network(nn.Module):
    """Somebody's own encoder and decoder for a VAE, with BatchNorm and dropout, labels or not."""

    def __init__(self, shape=(1, 4, 4), latents: int = 2, outputs: int = 1):
        super().__init__()
        dims = math.prod(shape)
        self.encoder = _Encoder(dims, latents)
        self.decoder = _Decoder(latents, (outputs, *shape))


class _Encoder(nn.Module):
    def __init__(self, dims: int, latents: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dims, 8, bias=False),
            nn.BatchNorm1d(8),
            nn.SiLU(),
            nn.Dropout(0.2),
            nn.Linear(8, 2 * latents),
        )

    def forward(self, x, y=None):
        return self.layers(x.flatten(1))


class _Decoder(nn.Module):
    def __init__(self, latents: int, shape: tuple[int, ...]):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latents, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, math.prod(shape))
        )
        self.shape = shape

    def forward(self, z, y=None):
        return self.layers(z).unflatten(-1, self.shape)


@dataclass(frozen=True)
class Case:
    """A member of the zoo: how to make it and the kind of data it models."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3,)
    levels: int | None = None
    classes: int | None = None
    drawn: tuple[int, ...] | None = None  # shape of one sample where it is not that of x
    template: bool = True  # whether x is used as `obs=` and nowhere else in the model
    traced: bool = True  # whether it can be compiled; else it must say so
    given: tuple[int, ...] | None = None  # shape of the image that it is conditional on
    silent: tuple[str, ...] = ()  # parameters whose gradient is nothing for a reason

    def program(self, seed: int = 0) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make()

    def batch(self, n: int = 5, seed: int = 1) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        if self.levels is None:
            x = torch.randn(n, *self.shape, generator=generator)
        else:
            x = torch.randint(self.levels, (n, *self.shape), generator=generator).float()
            x /= self.levels - 1
        return x, *self.conditions(n)

    def conditions(self, n: int) -> tuple[Tensor, ...]:
        if self.given is not None:
            generator = torch.Generator().manual_seed(3)
            return (torch.randint(256, (n, *self.given), generator=generator) / 255,)
        return () if self.classes is None else (torch.arange(n) % self.classes,)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.shape if self.drawn is None else self.drawn

    def dataset(self, n: int = 20) -> Dataset:
        train, held_out = self.batch(n), self.batch(6, seed=2)
        named = {} if self.given is None else {"condition": "sketch"}
        return Dataset.from_tensors(train, held_out, held_out, levels=self.levels, **named)


SIZE = 20  # of every data set above, for programs with global latents


def _vae(levels: int | None = None, classes: int | None = None, **arguments) -> Case:
    shape = (1, 4, 4)

    def make() -> VAE:
        network = arguments.get("network", "mlp")
        given = {**arguments, "network": network() if isinstance(network, type) else network}
        if isinstance(network, str):
            given.setdefault("hidden", (8,))
        return VAE(shape, latent_dim=2, levels=levels, num_classes=classes, **given)

    return Case(make, shape, levels, classes)


def _hierarchy(levels: int | None = None, classes: int | None = None, **arguments) -> Case:
    shape = (1, 4, 4)
    given = {"latent_dims": (3, 2, 2), "hidden": (8,), "latent_hidden": (6,), **arguments}

    def make() -> HierarchicalVAE:
        return HierarchicalVAE(shape, levels=levels, num_classes=classes, **given)

    return Case(make, shape, levels, classes)


def _diffusion(
    shape: tuple[int, ...] = (3,),
    levels: int | None = None,
    classes: int | None = None,
    **arguments,
) -> Case:
    def make() -> Diffusion:
        given = {"timesteps": 6, "hidden": (8,), "network": "mlp", **arguments}
        if given.get("schedule") == "learned":  # noisy enough that the datum is not certain
            given["schedule"] = LearnedSchedule(highest=2.0, hidden=16)
        program = Diffusion(shape, levels=levels, num_classes=classes, **given)
        with torch.no_grad():  # at birth the last layer is zero, and what is before it idle
            for parameter in program.network.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
        return program

    return Case(make, shape, levels, classes, template=False)


def _flow(
    cls: type,
    shape: tuple[int, ...] = (3,),
    levels: int | None = None,
    classes: int | None = None,
    **arguments,
) -> Case:
    def make() -> Any:
        program = cls(shape, levels=levels, num_classes=classes, **arguments)
        with torch.no_grad():  # at birth the last layers are zero, and what is before them idle
            for parameter in program.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
        return program

    return Case(make, shape, levels, classes)


def _gan(shape: tuple[int, ...] = (3,), levels=None, classes=None, **arguments) -> Case:
    given = {"latent_dim": 3, "hidden": (8,), "channels": 4, **arguments}
    silent = ()
    if given.get("loss") in ("wasserstein_gp", "hinge"):
        # It cancels between data and samples: everywhere, or until one of them passes the margin.
        silent = ("discriminator.head.score.bias",)
    return Case(
        lambda: GAN(shape, levels=levels, num_classes=classes, **given),
        shape,
        levels,
        classes,
        silent=silent,
    )


CASES: dict[str, Case] = {
    "vae-mlp-bernoulli": _vae(2),
    "vae-mlp-gaussian-learned": _vae(likelihood="gaussian", normalise=False, activation="tanh"),
    "vae-mlp-gaussian-fixed": _vae(scale=0.5),
    "vae-conv-bernoulli": _vae(2, network="conv", hidden=(4, 8)),
    "vae-conv-logistic": _vae(16, network="conv"),
    "vae-mlp-logistic": _vae(256),
    "vae-custom": _vae(2, network=Network),
    "vae-conditional": _vae(2, 3),
    "vae-conditional-prior": _vae(2, 3, prior="conditional"),
    "vae-conditional-conv": _vae(4, 3, network="conv", prior="conditional"),
    "hierarchical-bottom-up": _hierarchy(2, guide="bottom_up"),
    "hierarchical-top-down": _hierarchy(2, guide="top_down"),
    "hierarchical-one-layer": _hierarchy(latent_dims=(2,), activation="silu", normalise=False),
    "hierarchical-conv": _hierarchy(16, network="conv", hidden=(4, 8)),
    "hierarchical-conditional": _hierarchy(2, 3, guide="bottom_up"),
    "hierarchical-conditional-conv": _hierarchy(4, 3, network="conv", hidden=(4, 8)),
    "realnvp": _flow(RealNVP, layers=2, hidden=(8,)),
    "realnvp-images": _flow(RealNVP, (1, 4, 4), 5, layers=2, hidden=(8,), scales=1),
    "glow": _flow(Glow, (1, 4, 4), 5, steps=1, hidden=4),
    "glow-conditional-variational": _flow(
        Glow, (1, 4, 4), 5, 3, steps=1, hidden=4, dequantisation="variational"
    ),
    "maf": _flow(MAF, layers=2, hidden=(8,)),
    "maf-conditional-levels": _flow(MAF, (1, 2, 2), 5, 3, layers=2, hidden=(8,)),
    "iaf": _flow(IAF, layers=2, hidden=(8,)),
    "spline": _flow(NeuralSpline, layers=2, hidden=(8,)),
    "spline-autoregressive": _flow(NeuralSpline, kind="autoregressive", layers=2, hidden=(8,)),
    "gan": _gan(),
    "gan-conditional": _gan(classes=3, loss="hinge"),
    "gan-wasserstein": _gan(loss="wasserstein_gp"),
    "gan-dcgan-conditional": _gan((1, 8, 8), 256, 3, network="dcgan"),
    "gan-resnet-wasserstein": _gan((1, 8, 8), 5, network="resnet", loss="wasserstein_gp"),
    "gan-augmented": _gan(
        (3, 8, 8), 256, network="dcgan", loss="hinge", augment="colour,translation,cutout"
    ),
    "pix2pix": Case(
        lambda: Pix2Pix((3, 16, 16), condition_shape=(1, 16, 16), channels=2, levels=256),
        (3, 16, 16),
        256,
        given=(1, 16, 16),
    ),
    "stranger": Case(lambda: StrangerVAE((3,))),
    "noisy": Case(lambda: NoisyVAE((3,))),
    "linear": Case(lambda: LinearGaussian((3,))),
    "linear-exact-guide": Case(lambda: LinearGaussian((3,), exact_guide=True)),
    "hierarchy": Case(lambda: Hierarchy((3,))),
    "top-down": Case(lambda: TopDown((3,))),
    "bits": Case(lambda: Bits((3,))),
    "bits-subsampled": Case(lambda: Bits((3,), data_size=SIZE)),
    "mixture": Case(lambda: Mixture((3,))),
    "mixed": Case(lambda: MixedVAE((3,)), traced=False),
    "diffusion": _diffusion(),
    "diffusion-v-levels-conditional": _diffusion(levels=5, classes=3, predict="v"),
    "diffusion-learned": _diffusion(levels=5, schedule="learned"),
    "diffusion-simple": _diffusion(levels=5, weighting="simple", schedule="cosine"),
    "diffusion-unet": _diffusion(
        (1, 4, 4), 5, network="unet", channels=2, multipliers=(1, 2), blocks=1, predict="x0"
    ),
    "gaussian-mixture": Case(lambda: GaussianMixture((3,), components=2)),
    "gaussian-mixture-full": Case(
        lambda: GaussianMixture((1, 2, 2), components=3, covariance="full", levels=5),
        (1, 2, 2),
        5,
    ),
    "regression": Case(lambda: Regression((3,), data_size=SIZE), drawn=(), template=False),
    "location": Case(lambda: Location((3,), data_size=SIZE)),
    "own-autoguide": Case(lambda: OwnAutoGuide((3,), data_size=SIZE)),
    "attributes": Case(lambda: Attributes((3,), data_size=SIZE)),
    "gaussian": Case(lambda: Gaussian((3,))),
    "two-views": Case(lambda: TwoViews((3,)), drawn=(1,)),
    "scaled": Case(lambda: TwoViews((3,), weight=0.3), drawn=(1,)),
    "masked": Case(lambda: TwoViews((3,), masked=True), drawn=(1,), template=False),
    "gradients": Case(lambda: Gradients((3,))),
    "refined": Case(lambda: Refined((3,)), traced=False),
    "branching": Case(lambda: Branching((3,)), template=False, traced=False),
    "gambling": Case(lambda: Gambling((3,)), traced=False),
    "counting": Case(lambda: Counting((3,)), traced=False),
}
