"""What every test shares: one thread, fixed seeds, and nothing global left behind."""

import json
import os
import random
import re
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


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """What is kept between runs, such as trained features, goes to a folder of the tests."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


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


# `ppgen graph` in this process --------------------------------------------------------------------


@pytest.fixture
def said(capsys):
    """What a command that succeeds prints; warnings have to be expected."""
    from graph_command import run

    def check(*words, warning=None):
        capsys.readouterr()
        status = run(*words)
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert re.search(warning, printed.err) if warning else printed.err == "", printed.err
        return printed.out

    return check


@pytest.fixture
def answered(said):
    """The JSON document of a command, the whole of what it prints."""

    def check(*words, warning=None):
        return json.loads(said(*words, "--json", warning=warning), parse_constant=pytest.fail)

    return check


@pytest.fixture
def refused(capsys, tmp_path):
    """Check that a command is refused in one line, with status 2, and that it writes nothing."""
    from graph_command import run

    def check(*words, match):
        capsys.readouterr()
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        status = run(*words)
        printed = capsys.readouterr()
        assert status == 2, printed.err
        assert printed.out == ""
        assert printed.err.count("\n") == 1 and printed.err.startswith("ppgen graph: error: ")
        assert re.search(match, printed.err), printed.err
        assert len(printed.err) < 500, printed.err
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before

    return check
