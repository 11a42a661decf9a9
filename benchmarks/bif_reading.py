"""Reading the 24 networks of the bnlearn repository from .bif files: ours beside pyAgrum and pgmpy.

Ours is `graphs.io.read`, every check included, of the same uncompressed file that pyAgrum reads, in
turn in one process; medians. Building the pgmpy model from what was read is timed beside it.
pyAgrum is needed only here: `pip install pyagrum==3.3.1`.

    taskset -c 0 python benchmarks/bif_reading.py
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphs import io


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help="their names; all 24 where none is given")
    parser.add_argument("--seconds", type=float, default=1.0, help="to spend on a network")
    parser.add_argument("--pgmpy", action="store_true", help="also pgmpy's BIFReader, once (slow)")
    options = parser.parse_args()
    try:
        import pyagrum
    except ModuleNotFoundError:
        raise SystemExit("pyAgrum is missing: pip install pyagrum==3.3.1") from None
    warnings.simplefilter("ignore")
    folder = Path(io._folder())
    io.load("asia")  # imports pgmpy
    print(
        f"{'network':12s} {'nodes':>5s} {'ours':>10s} {'pyAgrum':>10s} {'ratio':>6s} "
        f"{'to pgmpy':>10s}" + (f" {'BIFReader':>12s}" if options.pgmpy else "")
    )
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.networks or io.networks():
            path = Path(scratch, f"{name}.bif")
            path.write_bytes(gzip.decompress((folder / f"{name}.bif.gz").read_bytes()))
            tables = io.read(path)
            try:
                pyagrum.loadBN(str(path))
                peer = True
            except pyagrum.GumException:  # it refuses the '/' in a state of child
                peer = False
            runs = {"ours": lambda path=str(path): io.read(path)}
            if peer:
                runs["pyAgrum"] = lambda path=str(path): pyagrum.loadBN(path)
            runs["to pgmpy"] = lambda tables=tables: io.bayesian_network(tables)
            times: dict[str, list[float]] = {key: [] for key in runs}
            once = sum(seconds(run) for run in runs.values())
            for _ in range(max(5, min(500, round(options.seconds / once)))):
                for key, run in runs.items():
                    times[key].append(seconds(run))
            medians = {key: statistics.median(given) for key, given in times.items()}
            if options.pgmpy:
                from pgmpy.readwrite import BIFReader

                medians["BIFReader"] = seconds(lambda path=str(path): BIFReader(path).get_model())
            ratio = f"{medians['ours'] / medians['pyAgrum']:.2f}" if peer else "-"
            ms = {key: f"{1e3 * value:.3f} ms" for key, value in medians.items()}
            print(
                f"{name:12s} {len(tables.states):5d} {ms['ours']:>10s} "
                f"{ms.get('pyAgrum', 'refuses'):>10s} {ratio:>6s} {ms['to pgmpy']:>10s}"
                + (f" {ms['BIFReader']:>12s}" if options.pgmpy else ""),
                flush=True,
            )
            print(json.dumps({"network": name, "seconds": medians}), flush=True)


if __name__ == "__main__":
    main()
