"""Program: a generative model as two methods, `model` and `guide`; the rest follows from them."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from .figures import Figure
from .likelihood import Method, broadcasts, kind_of, log_likelihoods
from .objective import ELBO, Objective
from .recorded import Recorded
from .sites import (
    accepted,
    device_of,
    guide_of,
    is_factor,
    isolated,
    model_of,
    prepare,
    sample_sites,
)

Density = Literal["exact", "bound", "unnormalized", "implicit"]


class Program(Recorded, PyroModule):
    """A generative model written as ordinary Pyro.

    Subclasses define two methods of one signature and, where they are not the defaults,
    `density`, `objectives` and `generate`::

        class PPCA(Program):
            def __init__(self, shape, *, latent_dim=2): ...
            def model(self, x):                 # p(x, z); data enter through obs=
                with pyro.plate("batch", len(x)):
                    z = pyro.sample("z", ...)
                    pyro.sample("x", ..., obs=x)
            def guide(self, x):                 # q(z | x)
                with pyro.plate("batch", len(x)):
                    pyro.sample("z", ...)

    Constructor arguments are the configuration. `shape`, `levels`, `num_classes` and `data_size`
    are filled in from the data set where the constructor has them.

    Attributes:
        density: what is known of p(x): "exact", "bound", "unnormalized" or "implicit".
        arguments: the constructor arguments by name, defaults included, as they were given.
        objective_defaults: arguments of its ELBO where they are not the ELBO's own defaults.
        training_defaults: its own defaults of the arguments lr, clip_norm and ema of `fit`.
        picture_count: pictures on a sheet of samples, fewer where drawing is slow.
        picture_words: what `sample(mean=True)` gives, as in "100 draws, each the mean ...".
        shape: shape of one example, without the batch.
    """

    density: Density = "bound"
    objective_defaults: ClassVar[dict[str, Any]] = {}
    training_defaults: ClassVar[dict[str, float]] = {}
    picture_count: ClassVar[int] = 100
    picture_words: ClassVar[str] = "the mean of the picture given its latents"
    shape: tuple[int, ...]

    def model(self, *batch: Any, **options: Any) -> Any:
        """The joint density p(x, z | conditions) of a batch (x, *conditions)."""
        raise NotImplementedError(f"{type(self).__name__} does not define model")

    def objectives(self) -> dict[str, Objective]:
        """What `fit` minimises: one objective a player, stepped in this order."""
        return {"elbo": ELBO(self, **self.objective_defaults)}

    def initialise(self, *batch: Any, **options: Any) -> None:
        """Start parameters from data, on some hundred training examples, as `fit` begins.

        A program that has had its start, since it was trained before, has to leave itself alone.
        """

    def likelihoods(self) -> list[Method]:
        """Ways of its own to the log-likelihood, the first of them the main one.

        By default there are none: enumeration and importance weighting then serve. A program that
        has some is refused importance weighting.
        """
        return []

    def figures(self, *batch: Tensor) -> Iterator[Figure]:
        """Figures of its own for the report, each drawn where the report stands; by default none.

        Args:
            batch: the first few hundred test examples, (x, *conditions) as `model` takes them, on
                the program's device; nothing where the data of a run are not at hand.
        """
        yield from ()

    def generate(self, n: int, *conditions: Tensor, mean: bool = False) -> Tensor:
        """The hook behind `sample`: run the model forwards on a template of zeros.

        Valid only where the program uses x as `obs=` and nowhere else; others override it.
        """
        return generate(self, n, *conditions, shape=self.shape, mean=mean)

    def sample(self, n: int, *conditions: Tensor, mean: bool = False, **options: Any) -> Tensor:
        """Draw n examples, shape (n, *shape), in evaluation mode and without gradients.

        Args:
            conditions: such as labels, each of length n.
            mean: give the mean of the observation given the latents (the usual picture)
                instead of a draw.
            options: what the program's `generate` takes besides.

        Raises:
            ValueError: n < 1, or a condition of another length.
        """
        return draw(self, n, *conditions, shape=self.shape, mean=mean, **options)

    def log_prob(self, x: Tensor, *conditions: Tensor, num_particles: int = 1) -> Tensor:
        """Nats per example, shape (n,): exact, or the importance-weighted bound; see `density`.

        Args:
            x: float32, shape (n, *shape).
            num_particles: draws of the guide an example; more give a tighter bound.

        Raises:
            ValueError: num_particles < 1, or the density is not normalised.
        """
        return log_prob(self, x, *conditions, num_particles=num_particles)


def draw(
    program: nn.Module,
    n: int,
    *conditions: Tensor,
    shape: tuple[int, ...],
    mean: bool = False,
    **options: Any,
) -> Tensor:
    """`Program.sample` for any program; a stranger's examples have the given shape."""
    if n < 1:
        raise ValueError(f"n must be 1 or more; got {n}")
    for condition in conditions:
        if len(condition) != n:
            raise ValueError(f"a condition has {len(condition)} entries for {n} samples")
    _check_labels(program, conditions)
    training = program.training
    if any(module.training for module in program.modules()):
        program.eval()
    try:
        with torch.no_grad():
            own = getattr(program, "generate", None)
            if own is not None:
                return own(n, *conditions, mean=mean, **options)
            return generate(program, n, *conditions, shape=shape, mean=mean)
    finally:
        if training:
            program.train()


def generate(
    program: nn.Module, n: int, *conditions: Tensor, shape: tuple[int, ...], mean: bool = False
) -> Tensor:
    """Run any program's model forwards: (n, *shape). Global latents come from its guide."""
    template = torch.zeros(n, *shape, device=device_of(program))
    args = accepted(program, (template, *conditions))
    with isolated(), pyro.validation_enabled(False):
        model = model_of(program)
        if getattr(program, "guide", None) is not None:  # without one, all comes from the prior
            found = prepare(program, (template, *conditions), check=False)
            if found.shared:
                guide = poutine.trace(guide_of(program)).get_trace(*args)
                for name in found.local:
                    if name in guide.nodes:
                        guide.remove_node(name)
                model = poutine.replay(model, trace=guide)
        trace = poutine.trace(poutine.uncondition(model)).get_trace(*args)
    site = _observation(trace)
    if not mean:
        return site["value"].detach()
    return site["fn"].mean.detach()


def _observation(trace: poutine.Trace) -> dict:
    for site in sample_sites(trace).values():
        if site["infer"].get("was_observed") and not is_factor(site):
            return site
    raise ValueError("the program has no observed site to sample: define `generate`")


def log_prob(program: nn.Module, x: Tensor, *conditions: Tensor, num_particles: int = 1) -> Tensor:
    """`Program.log_prob` for any program."""
    if num_particles < 1:
        raise ValueError(f"num_particles must be 1 or more; got {num_particles}")
    batch = (x, *conditions)
    _check_levels(program, x)
    _check_labels(program, conditions)
    found = prepare(program, batch)
    require_normalised(program, found.factors)
    many = num_particles > 1 and kind_of(found)[0] != "exact"
    together = many and broadcasts(program, found, batch)
    return log_likelihoods(program, found, batch, num_particles, broadcast=together)


def _check_levels(program: nn.Module, x: Tensor) -> None:
    """Refuse data that are not the program's levels k / (K - 1), where it has K."""
    levels = getattr(program, "levels", None)
    if not isinstance(levels, int) or not x.numel():
        return
    places = x * (levels - 1)
    wrong = ~((x >= 0) & (x <= 1) & ((places - places.round()).abs() <= 1e-3))
    if wrong.any():
        raise ValueError(
            f"{type(program).__name__} was made for {levels} levels k / {levels - 1} in [0, 1]; "
            f"got {x[wrong][0].item():.6g}: scale and round the data, or build it with levels=None"
        )


def _check_labels(program: nn.Module, conditions: tuple[Tensor, ...]) -> None:
    """Refuse labels that are none of the program's classes, where it has any."""
    classes = getattr(program, "num_classes", None)
    if classes is None or not conditions or not isinstance(conditions[0], Tensor):
        return
    y = conditions[0]
    if y.is_floating_point() or (len(y) and not (int(y.min()) >= 0 and int(y.max()) < classes)):
        raise ValueError(
            f"labels of {type(program).__name__} are whole numbers from 0 to {classes - 1}; got "
            f"{y.dtype} from {y.min().item()} to {y.max().item()}"
        )


def require_normalised(program: nn.Module, factors: tuple[str, ...]) -> None:
    """Refuse a likelihood where there is none, saying why."""
    name = type(program).__name__
    density = getattr(program, "density", "bound")
    if density == "implicit":
        raise ValueError(
            f"{name} is implicit: it draws samples but has no density, so there is no likelihood; "
            "judge its samples instead (ppgen evaluate RUN --metrics fid,kid,precision_recall)"
        )
    if factors or density == "unnormalized":
        raise ValueError(
            f"{name} has an unnormalised density (pyro.factor {list(factors)}): a likelihood needs "
            "an estimate of log Z, which this program does not offer"
        )
