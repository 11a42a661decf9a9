"""The finite Gaussian mixture, its class summed out: an exact likelihood."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..names import one_of
from ..nn.bijections import location_and_scale
from ..program import Program
from .observation import at_least_one

Covariance = Literal["diag", "full"]


class GaussianMixture(Program):
    """The finite mixture: k ~ Categorical(w), x | k ~ N(m_k, S_k), the class k summed out.

    log p(x) = log sum_k w_k N(x; m_k, S_k), exact (Bishop 2006, eq. 9.14); a density, also of data
    with levels. A VAE is its infinite relative: every z is a component. `fit` climbs the same
    likelihood as EM does, by gradients, and starts where EM is usually started: at the clusters of
    k-means.

    Args:
        shape: of one example, which has D numbers.
        components: K.
        covariance: "diag", or "full" (D x D a component; D at most 1,024).
        floor: added to every variance, so that no component can shrink onto one example; in units
            of the variance of the data.
        levels: of the data, kept for checks; the density takes them as reals.

    Raises:
        ValueError: fewer than one component, an unknown covariance, a floor that is not positive,
            more than 1,024 numbers under "full".
    """

    density = "exact"
    training_defaults: ClassVar[dict[str, float]] = {"lr": 0.02}
    picture_words: ClassVar[str] = "the mean of its component"

    loc: Tensor
    scale: Tensor
    initialised: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        *,
        components: int = 10,
        covariance: Covariance = "diag",
        floor: float = 1e-6,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.components = at_least_one("components", components)
        one_of("covariance", covariance, get_args(Covariance))
        if not floor > 0:
            raise ValueError(f"floor must be a positive variance; got {floor}")
        self.covariance, self.floor, self.levels = covariance, floor, levels
        size = torch.Size(self.shape).numel()
        if covariance == "full" and size > 1024:
            raise ValueError(
                f"covariance='full' has {size} x {size} numbers a component for shape "
                f"{self.shape}: at most 1,024 x 1,024; use 'diag'"
            )
        # Means and scales are in deviations of the data, so that its units do not matter.
        self.register_buffer("loc", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.uint8))
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, size))
        self.log_scales = nn.Parameter(torch.zeros(components, size))
        if covariance == "full":  # below the diagonal, in units of the scale of the row
            self.correlations = nn.Parameter(torch.zeros(components, size, size))

    def model(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            weights = dist.Categorical(logits=self.logits)
            k = pyro.sample("k", weights, infer={"enumerate": "parallel"})
            pyro.sample("x", self.component(k), obs=x.flatten(1))

    def component(self, k: Tensor) -> Any:
        """p(x | k) over flattened x, batch shape that of k, event shape (D,)."""
        centres, scales = self._centres(), self._scales()
        if self.covariance == "diag":
            return dist.Normal(centres[k], scales[k]).to_event(1)
        return dist.MultivariateNormal(centres[k], scale_tril=self._triangles(scales)[k])

    def _centres(self) -> Tensor:
        """Means of the components in units of the data, (components, D)."""
        return self.loc + self.scale * self.means

    def _scales(self) -> Tensor:
        return self.scale * (2 * self.log_scales).exp().add(self.floor).sqrt()

    def _triangles(self, scales: Tensor) -> Tensor:
        """Cholesky factors, (components, D, D)."""
        unit = torch.tril(self.correlations, -1) + torch.eye(
            scales.shape[-1], dtype=scales.dtype, device=scales.device
        )
        return scales[:, :, None] * unit

    def initialise(self, x: Tensor) -> None:
        if self.initialised:
            return
        from sklearn.cluster import KMeans

        flat = x.flatten(1)
        loc, scale = location_and_scale(flat)
        self.loc.copy_(loc)
        self.scale.copy_(scale)
        flat = (flat - loc) / scale
        seed = int(torch.randint(2**31, ()))
        if len(flat) < self.components:
            self.means.copy_(flat[torch.randint(len(flat), (self.components,))])
        else:
            found = KMeans(self.components, n_init=1, random_state=seed).fit(flat.cpu().numpy())
            self.means.copy_(torch.from_numpy(found.cluster_centers_))
            member = torch.nn.functional.one_hot(
                torch.from_numpy(found.labels_).long().to(flat.device), self.components
            ).to(flat.dtype)  # (n, K)
            counts = member.sum(0).clamp(min=1)
            second = (member.T @ flat.square()) / counts[:, None]
            variance = second - (member.T @ flat / counts[:, None]).square()
            self.log_scales.copy_(0.5 * variance.clamp(min=1e-2).log())
            self.logits.copy_((counts / len(flat)).log())
        self.initialised.fill_(1)

    def generate(self, n: int, *conditions: Tensor, mean: bool = False) -> Tensor:
        """Draws of a class and then of x; with `mean`, the mean of the class drawn."""
        k = dist.Categorical(logits=self.logits).sample((n,))
        x = self._centres()[k]
        if not mean:
            noise, scales = torch.randn_like(x), self._scales()
            if self.covariance == "diag":
                return (x + scales[k] * noise).unflatten(1, self.shape)
            for one, triangle in enumerate(self._triangles(scales)):  # never D x D for each draw
                x = torch.where((k == one)[:, None], x + noise @ triangle.T, x)
        return x.unflatten(1, self.shape)

    def responsibilities(self, x: Tensor) -> Tensor:
        """p(k | x), shape (n, components) (Bishop 2006, eq. 9.13)."""
        every = torch.arange(self.components, device=x.device)
        logs = self.component(every).log_prob(x.flatten(1)[:, None])  # (n, K)
        return (logs + self.logits.log_softmax(0)).softmax(1)
