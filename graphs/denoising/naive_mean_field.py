"""The posterior by independent pixels, q(x) = prod_i q_i(x_i)."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..progress import Bar
from .energy import Ising, Restored
from .planes import PLANES, Planes

if TYPE_CHECKING:
    from torch import Tensor

SETTLED = 1e-4  # no mean is further from its update, which damping leaves out of account


def mean_field(model: Ising, y: "Tensor", sweeps: int, damping: float, bar: Bar) -> Restored:
    """m_i <- damping m_i + (1 - damping) tanh(beta sum_j m_j + eta y_i - h), colour by colour.

    Without damping each step lowers KL(q || p(x | y)), as pixels of a colour do not meet. m starts
    at tanh(eta y - h), as without neighbours (Bishop, PRML, 10.1.4; Murphy, MLAPP, 21.3.2).
    """
    observed = Planes(y.float(), model.neighbours)
    means = Planes(torch.tanh(model.eta * y.float() - model.h), model.neighbours)
    energies: list[np.ndarray] = []
    converged = False
    image = y
    while len(energies) < sweeps and not converged:
        largest = 0.0
        for plane in PLANES:
            force = means.around(plane).mul_(model.beta).add_(observed[plane], alpha=model.eta)
            step = force.sub_(model.h).tanh_().sub_(means[plane])
            means[plane].add_(step, alpha=1 - damping)
            if step.numel():
                largest = max(largest, float(step.abs().max()))
        converged = largest < SETTLED
        whole = means.image()
        image = torch.where(whole == 0, y, whole.sign().to(torch.int8))
        energies.append(model.energy(image, y))
        bar.at(len(energies))
    return Restored(image, energies, converged, probabilities=(1 + means.image()) / 2)
