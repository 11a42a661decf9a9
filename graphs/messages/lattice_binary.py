"""Belief propagation on grids of two states: one number a message, its log-odds or its odds.

Every table of two binary variables is an Ising coupling and what it says of either alone:

    t(x, y) = constant + alpha x + beta y + j s(x) s(y),    s(0) = -1, s(1) = 1,
    a = 2 j = (t00 + t11 - t01 - t10) / 2,
    alpha = (t10 - t00 + t11 - t01) / 2,  beta = (t01 - t00 + t11 - t10) / 2.

alpha and beta join the pixels' own log-odds. Then a message whose sender's other log-odds are z is

    sum:  log (e^(z + a) + 1) / (e^z + e^a)  = 2 atanh(tanh(a / 2) tanh(z / 2))
    max:  max(z + a, 0) - max(z, a)          = sign(a) clamp(z, -|a|, |a|).

With odds r = e^z the sum is (e^a r + 1) / (r + e^a): positive terms alone, exact to rounding and
without a logarithm, where no product of odds leaves the range of the numbers. Source: Mooij and
Kappen (2007), IEEE Transactions on Information Theory 53 (the form in tanh).
"""

import math

import torch
from torch import Tensor

from .lattice_sweeps import Band, Messages, Sweeps, places

DOWN, UP, RIGHT, LEFT = range(4)


class BinarySweeps(Sweeps):
    """Sweeps over log-odds; or over odds, for undamped sums of moderate couplings.

    Args:
        unary: (2, B, H, W), logarithms; -inf allowed for one of the two states.
        down, right: (2, 2, 1 or B, 1 or H-1, 1 or W) and (2, 2, 1 or B, 1 or H, 1 or W-1), finite.
        start: the first messages.
        product: "sum" or "max".
        damping: d in [0, 1): new = (1 - d) new + d old, in log-odds.
    """

    def __init__(
        self,
        unary: Tensor,
        down: Tensor,
        right: Tensor,
        start: Messages,
        product: str,
        damping: float,
    ) -> None:
        shape = unary.shape[1:]
        self.damping = damping
        tables = (down, right)
        couplings = [(t[0, 0] + t[1, 1] - t[0, 1] - t[1, 0]) / 2 for t in tables]
        alpha = [(t[1, 0] - t[0, 0] + t[1, 1] - t[0, 1]) / 2 for t in tables]
        beta = [(t[0, 1] - t[0, 0] + t[1, 1] - t[1, 0]) / 2 for t in tables]
        own = unary[1] - unary[0]
        own[:, 1:] += beta[0]
        own[:, :-1] += alpha[0]
        own[..., 1:] += beta[1]
        own[..., :-1] += alpha[1]
        # What the log-odds of a message are beyond the coupling's part.
        self.shifts = (beta[0], alpha[0], beta[1], alpha[1])
        first = [m[1] - m[0] - shift for m, shift in zip(start, self.shifts, strict=True)]

        shared = down[0, 0].numel() == right[0, 0].numel() == 1
        if shared:
            each = [couplings[0], couplings[0], couplings[1], couplings[1]]
            table = torch.stack([c.reshape(1) for c in each])  # (4, 1)
        else:
            sent = own.new_zeros((4, *shape))  # by the pixel that sends; 0 where there is no edge
            sent[DOWN, :, :-1] = sent[UP, :, 1:] = couplings[0]
            sent[RIGHT, ..., :-1] = sent[LEFT, ..., 1:] = couplings[1]
            table = sent.flatten(1)  # (4, N)
        cut = _cut(table, first) if product == "sum" and not damping else None
        self.odds = cut is not None
        self.neutral = 1.0 if self.odds else 0.0
        self.negative = bool((table < 0).any())
        if cut is not None:
            own = own.clamp_(-cut, cut).exp_()
            first = [m.exp() for m in first]
            table = table.exp()
            self.pass_on = self._odds_shared if shared else self._odds
        else:
            self.pass_on = self._log_odds if product == "sum" else self._clamped
        self.one = own.new_ones(())
        self.scalars = [s.reshape(()).clone() for s in table] if shared else []
        self.values = [float(s) for s in self.scalars]
        self.lay_out(shape, own.reshape(-1), first, table, places(own.device, 1), 3)

    def pass_messages(self, band: Band) -> None:
        self.pass_on(band)

    def log_messages(self) -> Messages:
        found = []
        for sent, shift in zip(self.sent(), self.shifts, strict=True):
            odds = (sent.log() if self.odds else sent) + shift
            found.append(torch.stack((-odds, odds)).clamp_(max=0))
        return Messages(*found)

    def change(self, band: Band) -> Tensor:
        gap = band.scratch[0]
        if not self.odds:
            return torch.sub(band.new, band.old, out=gap).abs_().amax()
        least, most = torch.aminmax(torch.div(band.new, band.old, out=gap))
        return torch.maximum(most, 1 / least).log()

    def _odds_shared(self, band: Band) -> None:
        """(e^a h m + 1) / (h m + e^a), h the odds of all but one of the other messages."""
        numerator, denominator, spare = band.scratch
        above, below, before, behind = band.received
        h = spare[0]
        for base, pair in (((before, behind), (DOWN, UP)), ((above, below), (RIGHT, LEFT))):
            torch.mul(band.unary, base[0], out=h).mul_(base[1])
            for i in pair:
                other, a = band.received[i], self.scalars[i]
                torch.addcmul(a, h, other, out=denominator[i])
                torch.addcmul(self.one, h, other, value=self.values[i], out=numerator[i])
        torch.div(numerator, denominator, out=band.new)

    def _odds(self, band: Band) -> None:
        odds, denominator, _ = band.scratch
        self._others(band, odds, torch.mul)
        torch.add(odds, band.table, out=denominator)
        torch.addcmul(self.one, odds, band.table, out=odds)
        torch.div(odds, denominator, out=band.new)

    def _log_odds(self, band: Band) -> None:
        """f(z) = sign(a) clamp(z, -|a|, |a|) + log s(|z - a|) - log s(|z + a|), s the sigmoid:
        neither large couplings nor infinite z overflow, and f(0) is 0 exactly."""
        z, ratio, _ = band.scratch
        self._others(band, z, torch.add)
        torch.sub(z, band.table, out=ratio).abs_().sigmoid_()
        new = torch.add(z, band.table, out=band.new).abs_().sigmoid_()
        ratio.div_(new).log_()
        torch.add(self._clamp(z, band), ratio, out=new)
        self._damp(band)

    def _clamped(self, band: Band) -> None:
        self._others(band, band.new, torch.add)
        self._clamp(band.new, band)
        self._damp(band)

    def _others(self, band: Band, out: Tensor, joined) -> None:  # type: ignore[no-untyped-def]
        """The sum or product of what each pixel says and receives, but for where it sends to."""
        above, below, before, behind = band.received
        h = band.scratch[-1][0]
        for base, pair in (((before, behind), (DOWN, UP)), ((above, below), (RIGHT, LEFT))):
            joined(joined(band.unary, base[0], out=h), base[1], out=h)
            for i in pair:
                joined(h, band.received[i], out=out[i])

    def _clamp(self, z: Tensor, band: Band) -> Tensor:
        """sign(a) clamp(z, -|a|, |a|), in place."""
        if self.scalars:
            for pair, value in ((slice(0, 2), self.values[DOWN]), (slice(2, 4), self.values[LEFT])):
                part = z[pair].clamp_(-abs(value), abs(value))
                if value < 0:
                    part.neg_()
            return z
        size = torch.abs(band.table, out=band.scratch[-1])
        torch.minimum(z, size, out=z)
        torch.maximum(z, size.neg_(), out=z)
        return z.mul_(torch.sign(band.table, out=size)) if self.negative else z

    def _damp(self, band: Band) -> None:
        if self.damping:
            band.new.lerp_(band.old, self.damping)


def _cut(couplings: Tensor, first: list[Tensor]) -> float | None:
    """Where a pixel's own log-odds may be cut, so that products of odds stay in range and messages
    the same to rounding; None where there is no such place.

    Let no message exceed m and no coupling a. Odds of c from the pixel meet three messages and the
    coupling: c + 3 m + a must stay below the logarithm of the largest number. Beyond c a message is
    within e^(3 m + a - c) of its limit, which must be less than rounding.
    """
    kind = torch.finfo(couplings.dtype)
    largest, rounding = math.log(kind.max) - 2, 4 - math.log(kind.eps)
    most = float(couplings.abs().max())
    message = max([most, *(float(m.abs().max()) for m in first if m.numel())])
    used = 3 * message + most
    return (largest + rounding) / 2 if used <= (largest - rounding) / 2 else None
