"""The numbers of a training run, checked once."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .compile import Mode
from .names import one_of

# Of the arguments of `fit` that a program may have defaults of its own for.
TRAINING_DEFAULTS: dict[str, float] = {"lr": 4e-3, "clip_norm": 0.0, "ema": 0.0}


def own_defaults(program: object) -> dict[str, float]:
    """lr, clip_norm and ema as a program, or its class, has them where none are given."""
    return TRAINING_DEFAULTS | dict(getattr(program, "training_defaults", {}))


@dataclass(frozen=True)
class Options:
    """The numbers of a training run; see `fit`."""

    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    lr: float = 4e-3
    warmup_steps: int = 200
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    ema: float = 0.0
    seed: int = 0
    accumulate: int = 1
    compile: Mode = "trace"
    checkpoint_seconds: float = 30.0
    validate_epochs: int = 1
    sample_epochs: int = 5
    progress: bool = True

    def check(self) -> None:
        """Refuse impossible numbers, naming the first."""
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give epochs or steps, not both")
        at_least_one = ("epochs", "steps", "batch_size", "accumulate")
        for name in at_least_one:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more; got {value}")
        numbers = ("warmup_steps", "weight_decay", "checkpoint_seconds", "seed", "clip_norm")
        for name in (*numbers, "validate_epochs", "sample_epochs"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be 0 or more; got {value}")
        if self.seed >= 2**32:
            raise ValueError(f"seed must be below 2**32; got {self.seed}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be positive; got {self.lr}")
        if not 0 <= self.ema < 1:
            raise ValueError(
                f"ema is a decay between 0 and 1, such as 0.999, or 0 for none; got {self.ema}"
            )
        one_of("schedule", self.schedule, ("cosine", "constant"))
        one_of("compile", self.compile, get_args(Mode))
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate ({self.accumulate}) cannot pass batch_size ({self.batch_size})"
            )

    def learning_rate(self, step: int, total: int) -> float:
        """Linear warm-up from step 0, then a cosine to zero at `total` (or constant)."""
        warm = min(self.warmup_steps, total // 5)
        if step < warm:
            return self.lr * (step + 1) / warm
        if self.schedule == "constant":
            return self.lr
        return 0.5 * self.lr * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))
