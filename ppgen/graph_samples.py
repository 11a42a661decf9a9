"""`ppgen graph sample`: exact draws, as many as asked for, in bounded memory."""

import json
import sys
from collections.abc import Iterator
from itertools import chain, count
from typing import Any

from .graph_rows import BLOCK, TEXT, new_rows, output, progress
from .graph_words import Network, Parser, say_json, say_lines


def sample(argv: list[str]) -> None:
    parser = Parser(
        "sample",
        "NETWORK --n N [--out FILE] [--evidence NAME=STATE ...] [--seed N] [--json]",
        "Draw complete rows from a network, independent of each other; given evidence, exactly "
        "from the posterior. The same seed gives the same rows. Rows are written as they are "
        "drawn, so their number is not limited by memory.",
        "ppgen graph sample alarm --n 1000 --out rows.csv",
        "ppgen graph sample alarm --n 10 --evidence HISTORY=TRUE --seed 1",
    )
    parser.add_argument("network", metavar="NETWORK", help="a name or a file")
    parser.add_argument("--n", type=int, required=True, metavar="N", help="how many rows")
    parser.add_argument(
        "--out", metavar="FILE", help="a .csv, .csv.gz or .parquet file; by default CSV on stdout"
    )
    parser.add_names("--evidence", "what every row shall have", "NAME=STATE")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file --out")
    options = parser.read(argv)
    for name in ("n", "seed"):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name} must be 0 or more; got {getattr(options, name)}")
    out = output(options.out, options.overwrite)
    network = Network(options.network)
    evidence = network.evidence(options.evidence)
    draws = _draws(network, evidence, options.n, options.seed)
    draws = chain([next(draws)], draws)  # what cannot be drawn from is refused before any output
    document: dict[str, Any] = {
        "network": network.name,
        "evidence": {str(v): str(state) for v, state in evidence.items()},
        "n": options.n,
        "seed": options.seed,
    }
    if out is None and options.json:
        _json_rows(document | {"columns": list(network.names)}, draws)
        return
    done = 0
    kinds = dict.fromkeys(network.names, TEXT)

    def share() -> float:
        return done / max(options.n, 1)

    with new_rows(out, kinds, options.overwrite) as write, progress(share) as advance:
        for columns in draws:
            write(columns)
            done += len(columns[0])
            advance(done)
    if options.json:
        say_json(document | {"out": str(out)})
    elif out is not None:
        say_lines(f"{done:,} rows drawn: {out}")


def _draws(
    network: Network, evidence: dict[Any, Any], n: int, seed: int
) -> Iterator[list[list[str]]]:
    """Drawn rows in blocks, as columns of texts.

    Without evidence they are the rows of `graphs.sample`; the first block given evidence is
    that of `JunctionTree.sample`, and each further one has a seed of its own.
    """
    import numpy as np

    tables = network.tables
    texts = [np.array([str(s) for s in k], dtype=object) for k in tables.states.values()]
    from graphs.ancestral import CHUNK, sample_indices

    # Blocks of whole chunks, in which uniform numbers are drawn, change nothing of the draws.
    size = CHUNK * max(1, BLOCK // (CHUNK * max(len(texts), 1)))
    rng, engine = np.random.default_rng(seed), None
    if evidence or not tables.directed:
        from graphs.exact.junction_tree import JunctionTree

        engine = JunctionTree(tables)
    for block in count():
        rows = min(size, n - block * size)
        if rows <= 0 and block:
            return
        if engine is None:
            codes: Any = sample_indices(tables, rows, rng).values()
        else:
            own = seed if block == 0 else _seed(seed, block)
            frame = engine.sample(rows, evidence, own)
            codes = [frame[name].cat.codes.to_numpy() for name in frame]
        yield [text[code].tolist() for text, code in zip(texts, codes, strict=True)]


def _seed(seed: int, block: int) -> int:
    import numpy as np

    return int(np.random.SeedSequence((seed, block)).generate_state(1, np.uint64)[0])


def _json_rows(document: dict[str, Any], draws: Iterator[list[list[str]]]) -> None:
    """One JSON document whose rows are written as they are drawn."""
    head = json.dumps(document, ensure_ascii=False)
    sys.stdout.write(head[:-1] + ', "rows": [')
    before = "\n"
    for columns in draws:
        for row in zip(*columns, strict=True):
            sys.stdout.write(before + json.dumps(row, ensure_ascii=False))
            before = ",\n"
    sys.stdout.write("\n]}\n")
    sys.stdout.flush()
