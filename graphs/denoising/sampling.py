"""Gibbs sampling of p(x | y), colour by colour, and annealing (Geman and Geman 1984)."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..progress import Bar
from . import icm
from .energy import Ising, Restored
from .planes import PLANES, Planes, flip_signs

if TYPE_CHECKING:
    from torch import Tensor


def posterior_mode(
    model: Ising, y: "Tensor", start: "Tensor", sweeps: int, burn_in: int, seed: int, bar: Bar
) -> Restored:
    """The more probable state of each pixel: p(x_i = +1 | y) is the mean over the sweeps after
    `burn_in` of p(x_i = +1 | neighbours, y) (Rao and Blackwell's, of smaller variance than the mean
    of the states)."""
    chain = _Chain(model, y, start, seed)
    sums = {plane: torch.zeros_like(chain.state[plane]) for plane in PLANES}
    energies = []
    for sweep in range(burn_in + sweeps):
        for plane, probability in chain.sweep(1.0).items():
            if sweep >= burn_in:
                sums[plane] += probability
        energies.append(chain.energy())
        bar.at(sweep + 1)
    for plane in PLANES:
        chain.state[plane].copy_(sums[plane] / sweeps)
    probabilities = chain.state.image()
    return Restored(
        torch.where(probabilities == 0.5, y, (probabilities - 0.5).sign().to(torch.int8)),
        energies,
        probabilities=probabilities,
    )


def annealing(
    model: Ising,
    y: "Tensor",
    start: "Tensor",
    sweeps: int,
    temperatures: tuple[float, float],
    seed: int,
    bar: Bar,
) -> Restored:
    """Gibbs sweeps of p^(1 / T), with T falling by the same factor each time; then ICM to rest."""
    chain = _Chain(model, y, start, seed)
    energies = []
    for sweep, temperature in enumerate(np.geomspace(*temperatures, sweeps)):
        chain.sweep(float(temperature))
        energies.append(chain.energy())
        bar.at(sweep + 1, f"temperature {temperature:.3g}")
    rest = icm.checkerboard(model, y, chain.state.image().to(torch.int8), None, bar)
    return Restored(rest.image, energies + rest.energies, converged=True)


class _Chain:
    """One Markov chain for each image of a batch."""

    def __init__(self, model: Ising, y: "Tensor", start: "Tensor", seed: int) -> None:
        self.model = model
        self.state = Planes(start.float(), model.neighbours)
        self._observed = Planes(y.float(), model.neighbours)
        self._generator = torch.Generator(y.device).manual_seed(seed)

    def sweep(self, temperature: float) -> dict[tuple[int, int], "Tensor"]:
        """Redraw every pixel; of each plane p(x_i = +1 | the rest), as it was drawn from:
        sigma(2 (beta sum of neighbours + eta y_i - h) / T)."""
        model, found = self.model, {}
        for plane in PLANES:
            force = self.state.around(plane).mul_(2 * model.beta / temperature)
            force.add_(self._observed[plane], alpha=2 * model.eta / temperature)
            if model.h:
                force.sub_(2 * model.h / temperature)
            found[plane] = force.sigmoid_()
            drawn = torch.rand(force.shape, generator=self._generator, device=force.device)
            self.state[plane].copy_(flip_signs(drawn < force))
        return found

    def energy(self) -> np.ndarray:
        return icm.energy_of(self.model, self.state, self._observed)
