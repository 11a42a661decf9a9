"""The maximisation step of Baum-Welch for emissions, for all starts at once, and first guesses.

The marginals g of the states are (T, G, K, N): T steps, G starts, K states, N sequences.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .emissions import MISSING, Categorical, Gaussian
from .hmm import read_sequences

FLOOR = 1e-6  # the least variance of a state in any direction, in units of the data's variance


def normalised(counts: Tensor, otherwise: Tensor) -> Tensor:
    """Rows that sum to one; those of a row of zeros from elsewhere."""
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, counts / total, otherwise)


class Tables:
    """Categorical emissions (G, K, M).

    Raises:
        ValueError: nothing observed, or more than the categories.
    """

    log_unit = 0.0

    def __init__(
        self,
        x: Any,
        lengths: Any,
        like: Tensor,
        shape: tuple[int, int],
        rng: np.random.Generator,
        pseudocount: float,
        categories: int | None,
    ) -> None:
        # A table of any size, of which only the size is looked at.
        reader = Categorical.unchecked(torch.empty(1, categories or 2**31, device="meta"))
        values, self.mask, _ = read_sequences(reader, x, lengths, like)
        self.x, self.pseudocount = reader.checked(values), pseudocount
        seen = self.x[self.x != MISSING].cpu().numpy()
        if not seen.size:
            raise ValueError("nothing is observed: every observation is missing")
        size = categories or int(seen.max()) + 1
        shares = np.bincount(seen, minlength=size) + 0.1
        drawn = rng.dirichlet(np.ones(size), shape)
        self.table = torch.as_tensor((drawn + shares / shares.sum()) / 2).to(like)

    def log_prob(self, running: Tensor) -> Tensor:
        found = Categorical.unchecked(self.table[running]).log_prob(self.x)
        return found.permute(2, 0, 1, 3)  # (G, K, T, N) -> (T, G, K, N)

    def log_prior(self, running: Tensor) -> Tensor:
        return self.table[running].log().sum((1, 2))

    def learn(self, running: Tensor, marginals: Tensor) -> None:
        weights = marginals.permute(1, 2, 0, 3).flatten(2)  # (T, G, K, N) -> (G, K, T * N)
        size = self.table.shape[-1]
        index = torch.where(self.x == MISSING, size, self.x).flatten()
        counts = weights.new_zeros(*weights.shape[:2], size + 1).index_add_(2, index, weights)
        counts = counts[..., :size] + self.pseudocount
        self.table[running] = normalised(counts, self.table[running])

    def of(self, model: int) -> Categorical:
        return Categorical(self.table[model])

    def floored(self, model: int) -> tuple[int, ...]:
        return ()


class Normals:
    """Gaussian emissions, means (G, K, D) and covariances (G, K, D, D), of standardised data.

    Raises:
        ValueError: nothing observed, or vectors with some coordinates missing.
    """

    def __init__(
        self,
        x: Any,
        lengths: Any,
        like: Tensor,
        shape: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        axes = x.ndim if hasattr(x, "ndim") else np.ndim(x)
        zeros = like.new_zeros(1, 1) if axes > 1 else like.new_zeros(1)
        reader = Gaussian.unchecked(zeros)
        values, self.mask, _ = read_sequences(reader, x, lengths, like)
        self.vectors = axes > 1
        values = values if self.vectors else values[..., None]  # (T, N, D)
        if axes == 2 and values.shape[2] > values.shape[0]:
            raise ValueError(
                f"{values.shape[0]} steps of {values.shape[2]} coordinates were given; a batch of "
                "sequences of numbers needs the shape (sequences, steps, 1)"
            )
        missing = values.isnan()
        known = ~missing.any(-1)
        if (missing.any(-1) != missing.all(-1)).any():
            raise ValueError(
                "some coordinates of a vector are missing, and others not; learning needs all or "
                "none of each vector"
            )
        if not known.any():
            raise ValueError("nothing is observed: every observation is missing")
        if values.isinf().any():
            raise ValueError("observations are finite numbers, or nan where missing; got inf")
        seen = values[known]  # (M, D)
        self.centre = seen.mean(0)
        spread = (seen - self.centre).square().mean(0).sqrt()
        self.spread = torch.where(spread > 0, spread, 1.0)
        self.x = (values - self.centre) / self.spread
        self.known = known.flatten()
        self.seen = self.x.flatten(0, 1)[self.known]
        self.log_unit = -float(self.spread.log().sum()) * len(seen)
        self.mean = self._first_means(shape, rng)
        self.covariance = torch.eye(self.x.shape[2]).to(like).repeat(*shape, 1, 1)
        self.at_floor = torch.zeros(shape, dtype=torch.bool)

    def _first_means(self, shape: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Observations far apart (Arthur and Vassilvitskii 2007, k-means++)."""
        points = self.seen.cpu().numpy().astype(np.float64)
        starts = []
        for _ in range(shape[0]):
            chosen = [int(rng.integers(len(points)))]
            nearest = np.full(len(points), np.inf)
            for _ in range(shape[1] - 1):
                nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
                total = nearest.sum()
                share = nearest / total if total > 0 else None  # fewer points than states
                chosen.append(int(rng.choice(len(points), p=share)))
            starts.append(points[chosen])
        return torch.as_tensor(np.array(starts)).to(self.seen)

    def log_prob(self, running: Tensor) -> Tensor:
        model = Gaussian.unchecked(self.mean[running], covariance=self.covariance[running])
        return model.log_prob(self.x).permute(2, 0, 1, 3)  # (G, K, T, N) -> (T, G, K, N)

    def log_prior(self, running: Tensor) -> Tensor:
        return self.mean.new_zeros(len(running))

    def learn(self, running: Tensor, marginals: Tensor) -> None:
        weights = marginals.permute(1, 2, 0, 3).flatten(2)[..., self.known]  # (G, K, M)
        total = weights.sum(2)
        visited = total > 0
        share = weights / torch.where(visited, total, 1.0)[..., None]
        mean = share @ self.seen  # (G, K, D)
        squares = []
        for state in range(share.shape[1]):  # about the mean: no difference of large numbers
            away = self.seen - mean[:, state, None]  # (G, M, D)
            squares.append((away * share[:, state, :, None]).mT @ away)
        values, axes = torch.linalg.eigh(torch.stack(squares, 1))
        floored = (values < FLOOR).any(-1)
        covariance = axes @ (values.clamp_min(FLOOR)[..., None] * axes.mT)
        covariance = (covariance + covariance.mT) / 2
        kept = visited[..., None]
        self.mean[running] = torch.where(kept, mean, self.mean[running])
        self.covariance[running] = torch.where(
            kept[..., None], covariance, self.covariance[running]
        )
        self.at_floor[running.cpu()] = (floored & visited).cpu()

    def of(self, model: int) -> Gaussian:
        mean = self.centre + self.spread * self.mean[model]
        covariance = self.covariance[model] * self.spread[:, None] * self.spread
        if self.vectors:
            return Gaussian(mean, covariance=covariance)
        return Gaussian(mean[:, 0], scale=covariance[:, 0, 0].sqrt())

    def floored(self, model: int) -> tuple[int, ...]:
        return tuple(self.at_floor[model].nonzero().flatten().tolist())
