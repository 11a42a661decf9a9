"""Other libraries' transforms as bijections of ours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions import ConditionalTransformModule
from pyro.distributions.conditional import (
    ConditionalComposeTransformModule,
    ConstantConditionalTransform,
    _ConditionalInverseTransformModule,
)
from torch import Tensor, nn
from torch.distributions import Transform
from torch.distributions.transforms import ComposeTransform, _InverseTransform

from .bijections import Bijection, Chain, Inverted


def from_pyro(transform: Any) -> Bijection:
    """A transform of Pyro or PyTorch as a bijection: its call takes noise to data.

    Those of `pyro.distributions.transforms` will do, composed and inverted ones too, conditional
    ones with the context of the flow:
    ``Flow((2,), Chain([from_pyro(T.affine_coupling(2)), ...]))``. What selects points by a mask,
    as Pyro's splines do, cannot be traced and runs as plain Pyro. Pyro's autoregressive transforms
    run fast from noise to data, the direction of samples. Density training wants the other:
    ``Inverted(from_pyro(T.affine_autoregressive(64)))``; as does a transform without an inverse,
    such as `Planar`.

    Transforms of Pyro remember their last call, which neither a graph nor a copy may: what a call
    changed is put back after it. The layers of `MAF` and its siblings exist besides because they
    take D turns that cost one pass where Pyro's take D passes, have both directions in closed
    form, and stay finite in float32 by bounded scales.

    Raises:
        TypeError: something else.
    """
    if not isinstance(transform, (Transform, ConditionalTransformModule)):
        raise TypeError(
            f"from_pyro takes a transform of Pyro or PyTorch; got {type(transform).__name__}"
        )
    if isinstance(transform, ConditionalComposeTransformModule):
        return Chain(from_pyro(_constant(part)) for part in transform.transforms)
    if isinstance(transform, ComposeTransform):
        return Chain(from_pyro(part) for part in transform.parts)
    if isinstance(transform, (_InverseTransform, _ConditionalInverseTransformModule)):
        return Inverted(from_pyro(transform.inv))
    return _FromPyro(transform)


def _constant(part: Any) -> Any:
    """A part of a conditional composition, out of the wrapping of those that take no context."""
    return part.transform if isinstance(part, ConstantConditionalTransform) else part


def from_zuko(transform: nn.Module) -> Bijection:
    """A lazy transform of Zuko as a bijection: its call takes data to noise, as in Zuko's flows.

    Zuko's transforms run fast in the direction of densities. A whole flow of Zuko's has its own
    as `flow.transform`.

    Raises:
        ImportError: Zuko is not installed.
        TypeError: not a lazy transform.
    """
    validates = torch.distributions.Distribution._validate_args
    try:
        from zuko.lazy import LazyTransform
    except ImportError as error:
        raise ImportError("from_zuko needs the package zuko: pip install zuko") from error
    finally:  # Zuko's first import switches validation off for the whole process
        torch.distributions.Distribution.set_default_validate_args(validates)
    if not isinstance(transform, LazyTransform):
        hint = "; give its `transform`" if hasattr(transform, "transform") else ""
        raise TypeError(
            f"from_zuko takes a LazyTransform of Zuko; got {type(transform).__name__}{hint}"
        )
    return _FromZuko(transform)


class _FromPyro(Bijection):
    def __init__(self, transform: Any) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with _as_it_was(self.transform):
            transform = self._under(context)
            x = transform(z)
            return x, _summed(transform.log_abs_det_jacobian(z, x), transform, z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with _as_it_was(self.transform):
            transform = self._under(context)
            try:
                z = transform._inverse(x)  # `transform.inv` would keep a reference
            except (KeyError, NotImplementedError):
                raise ValueError(
                    f"{type(transform).__name__} has no inverse, which the density of data needs: "
                    "put it the other way round, Inverted(from_pyro(...))"
                ) from None
            return z, -_summed(transform.log_abs_det_jacobian(z, x), transform, z)

    def _under(self, context: Tensor | None) -> Any:
        if not isinstance(self.transform, ConditionalTransformModule):
            return self.transform
        if context is None:
            raise ValueError(f"{type(self.transform).__name__} needs a context: num_classes")
        return self.transform.condition(context)


class _FromZuko(Bijection):
    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(self.transform(context).inv, z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(self.transform(context), x)

    def _run(self, transform: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        together: Callable | None = getattr(transform, "call_and_ladj", None)
        if together is not None:
            image, log_det = together(value)
        else:
            image = transform(value)
            log_det = transform.log_abs_det_jacobian(value, image)
        return image, _summed(log_det, transform, value)


def _summed(log_det: Tensor, transform: Any, value: Tensor) -> Tensor:
    """(n,) of log-determinants: one for each event of the transform, or the same for several."""
    events = value.shape[: value.dim() - transform.domain.event_dim]
    return log_det.expand(events).reshape(len(value), -1).sum(1)


@contextmanager
def _as_it_was(transform: Any) -> Iterator[None]:
    """Undo what a call leaves on a transform and its parts: tensors of that one call."""
    parts = list(transform.modules()) if isinstance(transform, nn.Module) else [transform]
    before = [dict(vars(part)) for part in parts]
    try:
        yield
    finally:
        for part, known in zip(parts, before, strict=True):
            vars(part).clear()
            vars(part).update(known)
