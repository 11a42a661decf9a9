r"""Information theory of categorical distributions, and the KL divergence of two Gaussians.

A categorical distribution over K outcomes is a tensor of probabilities whose last axis has K
entries that sum to 1; the axes before it are a batch, and two batches broadcast. Every function
is differentiable, with ``0 log 0 = 0``. Results are in nats; ``base=2`` gives bits.

Source: Cover and Thomas, *Elements of Information Theory*, chapter 2; Jensen-Shannon: Lin (1991),
*Divergence Measures Based on the Shannon Entropy*, equation 3.6.
"""

import math
from numbers import Real

import torch
from torch import Tensor

__all__ = ["cross_entropy", "entropy", "gaussian_kl", "js_divergence", "kl_divergence"]

# How far a sum of probabilities may be from 1: what softmax leaves over many outcomes, with room.
_SUM_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


def entropy(p: Tensor, base: float = math.e) -> Tensor:
    r"""Entropy :math:`H(p) = -\sum_k p_k \log p_k`: the mean information of a draw from p.

    Args:
        p: probabilities, shape ``(..., K)``.
        base: base of the logarithm, above 1: e for nats, 2 for bits.

    Returns:
        Shape ``(...)``, between 0 (a certain outcome) and ``log K`` (a uniform p).

    Raises:
        TypeError: p is no float32 or float64 tensor, or base is no number.
        ValueError: p is no probability distribution on its last axis, or base is not above 1.

    Example:
        >>> round(entropy(torch.tensor([0.2, 0.8]), base=2).item(), 2)
        0.72
    """
    unit = _log_base(base)
    _check_probabilities("p", p)
    return -_sum_p_log_q(p, p) / unit


def cross_entropy(p: Tensor, q: Tensor, base: float = math.e) -> Tensor:
    r"""Cross-entropy :math:`H(p, q) = -\sum_k p_k \log q_k`, the code length of p in q's code.

    Args:
        p: probabilities the outcomes are drawn from, shape ``(..., K)``.
        q: probabilities the code is made for, shape ``(..., K)``, batches broadcast.
        base: base of the logarithm, above 1: e for nats, 2 for bits.

    Returns:
        Shape ``(...)``, at least ``entropy(p)``; infinite where some ``q_k = 0 < p_k``.

    Raises:
        TypeError: p or q is no float32 or float64 tensor, or base is no number.
        ValueError: p or q is no probability distribution, they differ in K, their batches do not
            broadcast, or base is not above 1.

    Example:
        >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.8])
        >>> round(cross_entropy(p, q, base=2).item(), 2)
        1.32
    """
    unit = _log_base(base)
    _check_pair(p, q)
    return -_sum_p_log_q(p, q) / unit


def kl_divergence(p: Tensor, q: Tensor, base: float = math.e) -> Tensor:
    r"""Kullback-Leibler divergence :math:`KL(p \| q) = H(p, q) - H(p) \ge 0`, not symmetric.

    Args, units and errors are those of :func:`cross_entropy`.

    Returns:
        Shape ``(...)``; 0 (to rounding) where p equals q, infinite where some ``q_k = 0 < p_k``.

    Example:
        >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.8])
        >>> round(kl_divergence(p, q, base=2).item(), 2)
        0.32
        >>> round(kl_divergence(q, p, base=2).item(), 2)
        0.28
    """
    unit = _log_base(base)
    _check_pair(p, q)
    return (_sum_p_log_q(p, p) - _sum_p_log_q(p, q)) / unit


def js_divergence(p: Tensor, q: Tensor, base: float = math.e) -> Tensor:
    r"""Jensen-Shannon divergence :math:`(KL(p \| m) + KL(q \| m)) / 2`, with :math:`m = (p + q)/2`.

    Args, units and errors are those of :func:`cross_entropy`.

    Returns:
        Shape ``(...)``, symmetric, between 0 (p equals q) and ``log 2`` (disjoint supports, however
        far apart: its gradient there says nothing of the distance).

    Example:
        >>> js_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), base=2).item()
        1.0
    """
    unit = _log_base(base)
    _check_pair(p, q)
    m = (p + q) / 2
    kl_p = _sum_p_log_q(p, p) - _sum_p_log_q(p, m)
    kl_q = _sum_p_log_q(q, q) - _sum_p_log_q(q, m)
    return (kl_p + kl_q) / 2 / unit


def gaussian_kl(
    m1: Tensor | float, s1: Tensor | float, m2: Tensor | float = 0.0, s2: Tensor | float = 1.0
) -> Tensor:
    r"""KL divergence of two one-dimensional Gaussians, element by element, in nats.

    .. math:: KL(N(m_1, s_1^2) \| N(m_2, s_2^2))
              = \log\frac{s_2}{s_1} + \frac{s_1^2 + (m_1 - m_2)^2}{2 s_2^2} - \frac12

    To the standard Gaussian this is :math:`(m_1^2 + s_1^2 - \log s_1^2 - 1) / 2`. For Gaussians
    with a diagonal covariance, sum the result over their axis.

    Args:
        m1, s1: mean and standard deviation of the first, tensors that broadcast, or numbers.
        m2, s2: mean and standard deviation of the second; the standard Gaussian by default.

    Returns:
        The broadcast shape.

    Raises:
        ValueError: a standard deviation is not above 0, or a value is not finite.

    Example:
        >>> gaussian_kl(1.0, 1.0).item()
        0.5
    """
    # Numbers become float64, and beside a float32 tensor with axes the result stays float32.
    m1, s1, m2, s2 = (
        v if isinstance(v, Tensor) else torch.as_tensor(v, dtype=torch.float64)
        for v in (m1, s1, m2, s2)
    )
    for name, value in (("m1", m1), ("s1", s1), ("m2", m2), ("s2", s2)):
        bad = ~value.isfinite()
        if name in ("s1", "s2"):
            bad |= value <= 0
        if bad.any():
            kind = "standard deviation, finite and above 0" if name[0] == "s" else "finite mean"
            raise ValueError(f"{name} must be a {kind}; it holds {value[bad][0].item():.7g}.")
    return s2.log() - s1.log() + (s1.square() + (m1 - m2).square()) / (2 * s2.square()) - 0.5


def _sum_p_log_q(p: Tensor, q: Tensor) -> Tensor:
    """sum_k p_k log q_k on the last axis, with 0 log 0 = 0, and no NaN in its gradient."""
    # log is never given a zero: where() would hide its value, but its gradient would be 0 * inf.
    terms = p * torch.where(q > 0, q, 1.0).log()
    return torch.where((q == 0) & (p > 0), -math.inf, terms).sum(-1)


def _log_base(base: float) -> float:
    if isinstance(base, bool) or not isinstance(base, Real):
        raise TypeError(f"base must be a number, e for nats or 2 for bits; got {base!r}.")
    if not 1 < base < math.inf:
        raise ValueError(f"base must be above 1 (e for nats, 2 for bits) and finite; got {base}.")
    return math.log(base)


def _check_probabilities(name: str, p: Tensor) -> None:
    if not isinstance(p, Tensor) or p.dtype not in _SUM_TOLERANCE:
        given = f"a {p.dtype} tensor" if isinstance(p, Tensor) else f"a {type(p).__name__}"
        raise TypeError(
            f"{name} must be a float32 or float64 tensor of probabilities; got {given}."
            " Convert it, for example with torch.as_tensor(..., dtype=torch.float64)."
        )
    if p.ndim == 0 or p.shape[-1] == 0:
        raise ValueError(
            f"{name} must have shape (..., K) with K outcomes on its last axis; got"
            f" {tuple(p.shape)}."
        )
    bad = ~(p.isfinite() & (p >= 0))
    if bad.any():
        raise ValueError(
            f"{name} must hold finite, non-negative probabilities; it holds {p[bad][0].item():.7g}."
        )
    total = p.detach().sum(-1)
    off = (total - 1).abs() > _SUM_TOLERANCE[p.dtype]
    if off.any():
        raise ValueError(
            f"{name} must sum to 1 on its last axis, within {_SUM_TOLERANCE[p.dtype]}; a sum is"
            f" {total[off][0].item():.7g}. Normalise it: {name} / {name}.sum(-1, keepdim=True)."
        )


def _check_pair(p: Tensor, q: Tensor) -> None:
    _check_probabilities("p", p)
    _check_probabilities("q", q)
    if p.shape[-1] != q.shape[-1]:
        # Checked, because an axis of size 1 would broadcast in silence.
        raise ValueError(
            "p and q must be over the same outcomes; their last axes have"
            f" {p.shape[-1]} and {q.shape[-1]} entries."
        )
    try:
        torch.broadcast_shapes(p.shape, q.shape)
    except RuntimeError:
        raise ValueError(
            f"the batches of p and q must broadcast; their shapes are {tuple(p.shape)} and"
            f" {tuple(q.shape)}."
        ) from None
