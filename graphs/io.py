"""Networks by name and by file: `load` and `save` for pgmpy models, `read` for tables alone.

`read` never imports pgmpy, which takes seconds; the networks of the bnlearn repository are read out
of pgmpy's folder all the same.
"""

import gzip
import importlib.util
import os
import zlib
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from .files import write_whole
from .formats.bif import read_bif, write_bif
from .formats.hugin import read_net, write_net
from .formats.libdai import potentials, read_fg, write_fg
from .formats.text import read_uai, write_uai
from .formats.xmlbif import read_xmlbif, write_xmlbif
from .names import unknown
from .tables import Factor, Tables, acyclic, bayesian, tables_of, warn_of_rounding

_READERS = {
    ".bif": read_bif,
    ".xmlbif": read_xmlbif,
    ".xml": read_xmlbif,
    ".uai": read_uai,
    ".net": read_net,
    ".fg": read_fg,
}
_WRITERS = {
    ".bif": write_bif,
    ".xmlbif": write_xmlbif,
    ".uai": write_uai,
    ".net": write_net,
    ".fg": write_fg,
}
_UNDIRECTED = (".uai", ".fg")


def networks() -> list[str]:
    """The short names that `load` and `read` know: the networks of the bnlearn repository."""
    ending = ".bif.gz"
    return sorted(n.removesuffix(ending) for n in os.listdir(_folder()) if n.endswith(ending))


def load(source: str | os.PathLike[str]) -> Any:
    """A model by its short name (`"alarm"`) or from a file: pgmpy's, or a factor graph.

    A column that sums to one only as printed digits do (off by at most 1e-6) is renormalised, with
    one warning. The model is named as the file says, or else after the file.

    Args:
        source: one of `networks()`, or a path that ends in .bif, .xmlbif, .xml, .uai, .net or .fg,
            each also with .gz behind it.

    Returns:
        `DiscreteBayesianNetwork`; `DiscreteMarkovNetwork` for a .uai file of type MARKOV; for a
        .fg file, which libDAI writes, a `FactorGraph`. The variables of .uai files are the integers
        from 0, those of .fg files are integers too, and states are the integers from 0 in both.

    Raises:
        FileNotFoundError: no such file or network; near matches are named.
        ValueError: an unknown ending, or a file that is broken; file and line are named.
    """
    tables = _read(source)
    if os.fspath(source).lower().endswith((".fg", ".fg.gz")):
        from .factor_graph import FactorGraph

        try:
            return FactorGraph.of(tables)
        except ValueError as error:
            raise ValueError(f"{os.fspath(source)}: {error}") from None
    return bayesian_network(tables) if tables.directed else markov_network(tables)


def read(source: str | os.PathLike[str]) -> Tables:
    """What `load` reads, as tables, without importing pgmpy.

    Raises:
        FileNotFoundError, ValueError: see `load`.
    """
    return _read(source)


def save(model: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a model to a file, whole or not at all; `load` reads the same numbers back.

    Probabilities are written with all digits of a float64. Names that are not plain are quoted in
    .bif, and labels always in .net; variables and states of .uai files become integers from 0, and
    so do the states of .fg files, whose variables must be integers. The potentials of a factor
    graph, exp(log psi), are written as they are, not scaled.

    Args:
        model: whatever `graphs.tables.tables_of` takes; undirected models only for .uai and .fg.
        path: ends in .bif, .xmlbif, .uai, .net or .fg.
        overwrite: replace a file that is there.

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
        ValueError: an unknown ending, a name that the format cannot hold, a batch of factor graphs,
            or a log-potential whose exponential no float64 holds.
        TypeError: a model without directions, for a format of Bayesian networks.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in _WRITERS:
        raise ValueError(f"cannot write {str(target)!r}: the ending must be {_either(_WRITERS)}")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{str(target)!r} exists; pass overwrite=True to replace it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(target.parent)!r} to write {target.name!r} in")
    tables = _unscaled(model)
    if not tables.directed and ending not in _UNDIRECTED:
        raise TypeError(
            f"{ending} files hold Bayesian networks only, and this model is undirected; "
            "save it as .uai or .fg"
        )
    try:
        data = "".join(f"{line}\n" for line in _WRITERS[ending](tables)).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a name is not Unicode text: {error.object!r:.80}") from None
    write_whole(target, data)


def _unscaled(model: Any) -> Tables:
    """The tables of a model with its potentials as they are, no scale beside them."""
    if hasattr(model, "grid_shape"):
        return potentials(model)
    tables = tables_of(model)
    if not tables.log_scale:
        return tables
    from .factor_graph import FactorGraph

    return potentials(FactorGraph.of(tables))


def _folder() -> str:
    found = importlib.util.find_spec("pgmpy")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the named networks come with pgmpy: pip install pgmpy")
    return os.path.join(found.submodule_search_locations[0], "utils", "example_models")


def _either(endings: Any) -> str:
    return ", ".join(list(endings)[:-1]) + f" or {list(endings)[-1]}"


def _read(source: str | os.PathLike[str]) -> Tables:
    # `bayesian` counts the frames for its warning so that it points at the caller of load or read.
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"expected a network's name or the path of a file; got {type(source).__name__}"
        )
    path = os.fspath(source)
    stem, ending = os.path.splitext(path)
    zipped = ending.lower() == ".gz"
    if zipped:
        stem, ending = os.path.splitext(stem)
    named = not ending and not zipped and not os.path.dirname(path)
    if named:
        if path not in networks():
            raise FileNotFoundError(unknown("network", path, networks()))
        path, ending, zipped = os.path.join(_folder(), f"{path}.bif.gz"), ".bif", True
    reader = _READERS.get(ending if ending in _READERS else ending.lower())
    if reader is None:
        raise ValueError(
            f"cannot read {path!r}: the ending must be {_either(_READERS)}, or that with .gz"
        )
    try:
        draft = reader(_text(path, zipped))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    name = draft.name
    if named or name in ("", "unknown"):
        name = os.path.basename(stem)
    if not draft.directed or (draft.checked and acyclic(draft.factors)):
        if draft.rounded and draft.worst > 1e-12:
            warn_of_rounding(name, draft.rounded, draft.worst, stacklevel=4)
        return Tables(draft.states, draft.factors, draft.directed, name)
    try:
        return bayesian(draft.states, draft.factors, name)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{name}: ')}") from None


def _text(path: str, zipped: bool) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except FileNotFoundError:
        folder, name = os.path.split(path)
        there = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        raise FileNotFoundError(unknown("file", name, there, folder or "this folder")) from None
    if zipped:
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"not a whole gzip file ({error})") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: not UTF-8 text; convert the file to UTF-8") from None
    if "\0" in text:
        raise ValueError("not text: it has a zero byte in it")
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def bayesian_network(tables: Tables) -> Any:
    """The `DiscreteBayesianNetwork` of checked tables: states, tables and name are the same."""
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.models import DiscreteBayesianNetwork

    model = DiscreteBayesianNetwork()
    model.add_nodes_from(tables.states)
    # pgmpy searches a path for each arc and goes through all tables for each table, to refuse what
    # is already known to be absent here; with networkx's method the time is linear in the arcs. The
    # weight is what pgmpy's own add_edge writes.
    arcs = ((parent, child) for (child, *parents), _ in tables.factors for parent in parents)
    nx.DiGraph.add_edges_from(model, arcs, weight=None)
    for (child, *parents), values in tables.factors:
        model.cpds.append(
            TabularCPD(
                child,
                len(values),
                values.reshape(len(values), -1),
                parents,
                values.shape[1:],
                {variable: [*tables.states[variable]] for variable in (child, *parents)},
            )
        )
    model.name = tables.name
    return model


def markov_network(tables: Tables) -> Any:
    """The `DiscreteMarkovNetwork` of tables; a variable that no table has gets one of ones."""
    from pgmpy.factors.discrete import DiscreteFactor
    from pgmpy.models import DiscreteMarkovNetwork

    model = DiscreteMarkovNetwork()
    graph = tables.graph()
    model.add_nodes_from(graph.nodes)
    nx.Graph.add_edges_from(model, graph.edges, weight=None)
    seen = {variable for variables, _ in tables.factors for variable in variables}
    # A factor of ones changes nothing, and pgmpy counts the states of a variable by its factors.
    bare = [
        Factor((variable,), np.ones(len(states)))
        for variable, states in tables.states.items()
        if variable not in seen
    ]
    for variables, values in [*tables.factors, *bare]:
        named = {variable: [*tables.states[variable]] for variable in variables}
        model.factors.append(DiscreteFactor(variables, values.shape, values, named))
    model.name = tables.name
    return model
