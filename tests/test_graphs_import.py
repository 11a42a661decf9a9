"""What `import graphs` gives, and what it costs."""

import subprocess
import sys
import time

import pytest

import graphs

HEAVY = ("pgmpy", "torch", "pandas", "matplotlib", "ppgen")


def test_everything_public_is_in_graphs():
    for name in graphs.__all__:
        assert getattr(graphs, name).__name__ == name
    assert set(dir(graphs)) == set(graphs.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'JunctionTre'"):
        _ = graphs.JunctionTre


def test_importing_is_light():
    """Under two seconds, and none of the libraries that take seconds."""
    code = f"import graphs, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 2.0
    assert run.stdout.strip() == "[]"


def test_a_query_needs_neither_pgmpy_nor_torch():
    code = (
        "import graphs, sys\n"
        "tables = graphs.read('asia')\n"
        "found = graphs.JunctionTree(tables).query({'xray': 'yes'}).to_numpy()\n"
        "print(found['tub'], 'pgmpy' in sys.modules, 'torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split()[-2:] == ["False", "False"]


def test_graphs_does_not_import_ppgen():
    """All of graphs loads without its sibling."""
    code = (
        "import graphs, sys\n"
        "_ = [getattr(graphs, name) for name in graphs.__all__]\n"
        "print('ppgen' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
