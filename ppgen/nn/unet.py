"""The U-Net that denoises images (Ho et al. 2020; Dhariwal and Nichol 2021)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention, group_norm, quiet
from .embed import TimeClassEmbedding, check_inputs


class UNet(nn.Module):
    """A prediction of the shape of x from a noisy image x, its time, and what it is conditioned on.

    Residual blocks at each of several resolutions, halved and doubled again, with skip connections
    from each block on the way down to its counterpart on the way up. Time and class scale and
    shift every block after its second group norm (Dhariwal and Nichol 2021, section 3: adaptive
    group norm). The last layer starts at zero, so that a fresh network predicts exactly zero.

    By the defaults it has 3,281,601 parameters for (1, 28, 28) and 3,282,755 for (3, 32, 32).
    Moved to `memory_format=torch.channels_last` and under bf16 autocast, a forward pass on a CPU
    takes about half the time, and a training step six tenths.

    Args:
        shape: (C, H, W); H and W divisible by 2^(levels - 1), levels = len(multipliers). By the
            default three levels 28x28 goes to 14x14 and 7x7.
        channels: channels at full resolution.
        multipliers: channels of each resolution, from the finest, as multiples of `channels`.
        blocks: residual blocks a resolution, on each way.
        attention: resolutions at which blocks are followed by self-attention, named by the longer
            side in pixels, such as (16, 8). The middle attends too, at the coarsest. None takes
            the finest of at most 16; () has no attention at all, the middle included.
        heads: attention heads.
        num_classes: classes of the label y; None for no label.
        context_dim: width of a context sequence, attended to after each self-attention; None
            for no context.
        dropout: probability of dropping, in each residual block.
        out_channels: channels of the output, those of x by default.

    Raises:
        ValueError: impossible numbers, sizes that do not fit the depth, resolutions that never
            occur, heads that do not divide the channels, a context without attention.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        attention: Sequence[int] | None = None,
        heads: int = 1,
        num_classes: int | None = None,
        context_dim: int | None = None,
        dropout: float = 0.0,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        sides = _sides(self.shape, multipliers)
        for name, value in (("channels", channels), ("blocks", blocks), ("heads", heads)):
            _at_least_one(name, value)
        for name, chosen in (
            ("num_classes", num_classes),
            ("context_dim", context_dim),
            ("out_channels", out_channels),
        ):
            if chosen is not None:
                _at_least_one(name, chosen)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}")
        self.num_classes, self.context_dim = num_classes, context_dim
        widths = [channels * factor for factor in multipliers]
        chosen_sides = _attention(attention, sides)
        attends = [side in chosen_sides for side in sides]
        middle = attention is None or len(chosen_sides) > 0
        if context_dim is not None and not middle:
            raise ValueError(
                "context_dim needs attention, since the context is read after it; got attention=()"
            )
        for width, attending in zip([*widths, widths[-1]], [*attends, middle], strict=True):
            if attending and width % heads:
                raise ValueError(
                    f"heads must divide the channels where there is attention; got heads={heads} "
                    f"and {width} channels"
                )

        embedding = 4 * channels
        self.embedding = TimeClassEmbedding(embedding, num_classes)

        def stage(inputs: int, outputs: int, attending: bool) -> _Stage:
            return _Stage(inputs, outputs, embedding, attending, heads, context_dim, dropout)

        self.first = nn.Conv2d(self.shape[0], channels, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        before = channels
        for level, (width, attending) in enumerate(zip(widths, attends, strict=True)):
            if level:
                self.shrink.append(nn.Conv2d(before, before, 3, stride=2, padding=1))
            inputs = [before] + [width] * (blocks - 1)
            self.down.append(nn.ModuleList(stage(one, width, attending) for one in inputs))
            before = width
        self.middle = nn.ModuleList([stage(before, before, middle), stage(before, before, False)])
        for level in reversed(range(len(widths))):
            width = widths[level]
            inputs = [before] + [width] * (blocks - 1)
            stages = (stage(one + width, width, attends[level]) for one in inputs)
            self.up.append(nn.ModuleList(stages))
            if level:
                self.grow.append(nn.Conv2d(width, width, 3, padding=1))
            before = width
        self.norm = group_norm(channels * multipliers[0])
        self.last = nn.Conv2d(
            channels * multipliers[0], out_channels or self.shape[0], 3, padding=1
        )
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(
        self, x: Tensor, time: Tensor, y: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """The prediction, (n, out_channels, H, W), in the precision of x.

        Args:
            x: noisy images (n, C, H, W), values of about unit size.
            time: (n,), expected in [0, 1] (see `sinusoidal`).
            y: (n,) class indices; `num_classes` means no class, as does None for all.
            context: (n, L, context_dim), any L from 1.

        Raises:
            TypeError, ValueError: inputs of another type or shape, a context that is missing or
                that this network does not take.
        """
        check_inputs(x, time, y, self.shape, self.num_classes)
        self._check_context(context, len(x))
        condition = self.embedding(time, y)
        hidden = self.first(x)
        kept: list[Tensor] = []
        for level, stages in enumerate(self.down):
            if level:
                hidden = self.shrink[level - 1](hidden)
            for stage in stages:  # type: ignore[attr-defined]
                hidden = stage(hidden, condition, context)
                kept.append(hidden)
        for stage in self.middle:
            hidden = stage(hidden, condition, context)
        for level, stages in enumerate(self.up):
            if level:
                hidden = F.interpolate(hidden, scale_factor=2.0, mode="nearest")
                hidden = self.grow[level - 1](hidden)
            for stage in stages:  # type: ignore[attr-defined]
                hidden = stage(torch.cat([hidden, kept.pop()], 1), condition, context)
        return self.last(F.silu(self.norm(hidden))).to(x.dtype)

    def _check_context(self, context: Tensor | None, n: int) -> None:
        if self.context_dim is None:
            if context is not None:
                raise ValueError("a context was given to a network built without context_dim")
            return
        wanted = f"context must be (n, L, context_dim) = ({n}, L >= 1, {self.context_dim})"
        if context is None:
            raise ValueError(f"{wanted}; got none")
        sizes = tuple(context.shape)
        if len(sizes) != 3 or sizes[0] != n or sizes[1] < 1 or sizes[2] != self.context_dim:
            raise ValueError(f"{wanted}; got {sizes}")


class _Stage(nn.Module):
    """A residual block, then self-attention and cross-attention where asked."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        attending: bool,
        heads: int,
        context_dim: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, embedding, dropout)
        self.itself = Attention(outputs, heads) if attending else None
        crossing = attending and context_dim is not None
        self.context = Attention(outputs, heads, context_dim) if crossing else None

    def forward(self, x: Tensor, condition: Tensor, context: Tensor | None) -> Tensor:
        x = self.block(x, condition)
        if self.itself is not None:
            x = self.itself(x)
        return x if self.context is None else self.context(x, context)


class ResidualBlock(nn.Module):
    """skip(x) + conv(silu((1 + scale) norm(conv(silu(norm(x)))) + shift)).

    scale and shift, one each a channel, are linear in the condition (n, embedding). The skip is
    the identity, or a 1x1 convolution where the channels change.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm = group_norm(inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.normed = group_norm(outputs, affine=False)  # scale and shift stand in for its own
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        quiet(self.second)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.first(F.silu(self.norm(x)))
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(
            2, 1
        )  # (n, outputs, 1, 1)
        hidden = torch.addcmul(shift, self.normed(hidden), 1 + scale)
        return self.skip(x) + self.second(self.dropout(F.silu(hidden)))


def _sides(shape: tuple[int, ...], multipliers: Sequence[int]) -> list[int]:
    """The longer side of the image at each level."""
    if not len(multipliers):
        raise ValueError("multipliers must have one entry a resolution; got none")
    for factor in multipliers:
        _at_least_one("multipliers", factor)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"the U-Net takes images, shape (C, H, W); got {shape}: use network='mlp' for these"
        )
    step = 2 ** (len(multipliers) - 1)
    if any(size % step for size in shape[1:]):
        below = [max(step, size // step * step) for size in shape[1:]]
        above = [-(-size // step) * step for size in shape[1:]]
        near = " or ".join(dict.fromkeys(f"{height}x{width}" for height, width in (below, above)))
        raise ValueError(
            f"images of {shape[1]}x{shape[2]} do not fit {len(multipliers)} resolutions: height "
            f"and width must be divisible by {step}, such as {near}; resize or pad them, or give "
            "fewer multipliers"
        )
    return [max(shape[1:]) // 2**level for level in range(len(multipliers))]


def _attention(attention: Sequence[int] | None, sides: list[int]) -> set[int]:
    if attention is None:
        return set([side for side in sides if side <= 16][:1])
    for side in attention:
        if side not in sides:
            raise ValueError(
                f"attention at resolution {side} never occurs: this network has "
                f"{', '.join(map(str, sides))}"
            )
    return set(attention)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be 1 or more; got {value}")
