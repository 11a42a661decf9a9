"""What every test shares: one thread, fixed seeds, and nothing global left behind."""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # so that `tests.programs` can be imported, as a command does
    sys.path.insert(0, str(ROOT))

torch.set_num_threads(1)

# The same examples in every run; HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def global_state() -> dict:
    """Everything process-wide that a library may be tempted to change."""
    return {
        "pyro settings": pyro.settings.get(),
        "parameter store": sorted(pyro.get_param_store().keys()),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
    }


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Seed every generator; afterwards no global setting and no stored parameter is new."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    before = global_state()
    assert before["parameter store"] == []
    yield
    assert global_state() == before
