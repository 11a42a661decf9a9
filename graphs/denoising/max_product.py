"""Max-product belief propagation for two levels, where a message is one number.

With messages in half log-odds, m = (log m(+1) - log m(-1)) / 2, pixel j sends to its neighbour i

    m_ji = half the difference over x_i of max over x_j of (beta x_i x_j + g_ji x_j)
         = sign(beta) clamp(g_ji, -|beta|, |beta|),
    g_ji = eta y_j - h + sum of m_kj over the neighbours k of j other than i,

and x_i is decoded as the sign of its belief, eta y_i - h + sum_j m_ji. All messages are sent at
once; with beta < 0, where both patterns of a chessboard may be best and messages sent at once would
serve a different one on either colour, those of one colour of pixels after those of the other.

Where the neighbours make no loop, as in one row, it finds the minimum under fields with the noise
that breaks ties, once the sweeps have carried the messages along. No image then has an energy lower
by more than TREMBLE max(|beta|, |eta|) for each pixel in which they differ.
Source: Weiss and Freeman (2001), IEEE Transactions on Information Theory 47.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..progress import Bar
from .energy import LATER, Ising, Restored, sides

if TYPE_CHECKING:
    from torch import Tensor


TREMBLE = 1e-3  # of the larger of |beta| and |eta|


def max_product(
    model: Ising, y: "Tensor", sweeps: int, damping: float, seed: int, bar: Bar
) -> Restored:
    """The image of least energy among those that the sweeps decode.

    Where several images are equally good, each belief is right about one of them and together they
    may be none. So the messages see fields with a little seeded noise, under which one is best; the
    energies are those without it.
    """
    reach = abs(model.beta)
    generator = torch.Generator(y.device).manual_seed(seed)
    noise = torch.rand(y.shape[1:], generator=generator, device=y.device) - 0.5
    field = model.eta * y.float() - model.h + TREMBLE * max(reach, abs(model.eta)) * noise
    offsets = LATER[model.neighbours]
    # By offset: what each pixel heard from the neighbour there, and from the opposite one.
    ahead = {offset: torch.zeros_like(field) for offset in offsets}
    behind = {offset: torch.zeros_like(field) for offset in offsets}
    energies: list[np.ndarray] = []
    image, least = y, np.full(len(y), np.inf)
    belief = field.clone()
    colours = [torch.ones_like(field[:1], dtype=torch.bool)]  # of the pixels that send
    if model.beta < 0:
        rows, columns = (torch.arange(n, device=y.device) for n in y.shape[1:])
        four = 2 * (rows[:, None] % 2) + columns % 2
        number = four if model.neighbours == 8 else (rows[:, None] + columns) % 2
        colours = [(number == colour)[None] for colour in range(model.neighbours // 2)]
    for sweep in range(sweeps):
        for senders in colours:
            for offset in offsets:
                first, second = ((..., *side) for side in sides(offset))
                # `first` looks ahead to `second`; what it sends leaves out what it heard there.
                sent = (belief[first] - ahead[offset][first]).clamp_(-reach, reach)
                answer = (belief[second] - behind[offset][second]).clamp_(-reach, reach)
                if model.beta < 0:
                    sent, answer = sent.neg_(), answer.neg_()
                for kept, new, by in (
                    (behind[offset][second], sent, senders[first]),
                    (ahead[offset][first], answer, senders[second]),
                ):
                    if len(colours) > 1:
                        new = torch.where(by, new, kept)
                    kept.mul_(damping).add_(new, alpha=1 - damping)
            torch.add(field, ahead[offsets[0]], out=belief)
            for heard in [*behind.values(), *[*ahead.values()][1:]]:
                belief += heard
        decoded = torch.where(belief == 0, y, belief.sign().to(torch.int8))
        energies.append(model.energy(decoded, y))
        better = energies[-1] < least
        least = np.where(better, energies[-1], least)
        image = torch.where(torch.as_tensor(better, device=y.device)[:, None, None], decoded, image)
        bar.at(sweep + 1, f"energy {least.sum():.6g}")
    return Restored(image, energies)
