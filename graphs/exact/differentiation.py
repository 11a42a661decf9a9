"""Marginals as tensors: on any device, and with gradients where anything has them.

Each batch is first tried in linear space. Rows whose numbers underflow there, which holds for
impossible rows too, are done again in logarithms and float64.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import contraction
from .reduction import Reduction

if TYPE_CHECKING:
    from .engine import Engine, Scope
    from .rows import Rows

BATCH_CELLS = 2**22  # cells that a batch works on at once


def by_gradients(
    engine: "Engine",
    rows: "Rows",
    wanted: Sequence["Scope"],
    *,
    tables: Mapping[int, Any] | None = None,
    logarithms: bool = False,
    device: str = "cpu",
    view: Reduction | None = None,
) -> tuple[Any, list[Any]]:
    """As `Engine.marginals`, as tensors.

    Derivatives with respect to an entry that is zero are one-sided; in rows that are done in
    logarithms they are left out.

    Args:
        engine: the model.
        rows: the evidence; weights are arrays or tensors.
        wanted: scopes whose marginals are asked for.
        tables: tensors in the place of the model's arrays, by factor.
        logarithms: do not try linear space first.
        device: where to compute.
        view: the tree to use; by default the engine's choice for these rows.
    """
    import torch

    given = [*(tables or {}).values(), *rows.weights.values()]
    learned = torch.is_grad_enabled() and any(getattr(t, "requires_grad", False) for t in given)
    with torch.inference_mode(False):
        view = view or engine.view(rows, wanted, pruned=not tables)
        return _by_gradients(engine, view, rows, wanted, tables or {}, logarithms, device, learned)


def _by_gradients(
    engine: "Engine",
    view: Reduction,
    rows: "Rows",
    wanted: Sequence["Scope"],
    tables: Mapping[int, Any],
    logarithms: bool,
    device: str,
    learned: bool,
) -> tuple[Any, list[Any]]:
    import torch

    engine.afford(view.tree.cost, 4.0)
    inside = [tuple(view.local[v] for v in scope if v in view.local) for scope in wanted]
    asked = [scope for scope in dict.fromkeys(inside) if scope]
    plain = getattr(torch, engine.dtype.name)
    exact = torch.float32 if torch.device(device).type == "mps" else torch.float64

    def run(some: "Rows", in_logs: bool) -> tuple[Any, list[Any], np.ndarray]:
        dtype = exact if in_logs else plain
        factors = _factors(engine, view, some, tables, device, dtype)
        log_z, found, low = contraction.marginals(
            view.tree, factors, asked, some.count, logarithms=in_logs, differentiable=learned
        )
        cells = [table.reshape(-1, some.count).to(plain) for table in found]
        doubtful = low | ~torch.isfinite(log_z.detach())
        return log_z, cells, np.flatnonzero(doubtful.cpu().numpy())

    size = max(1, BATCH_CELLS // max(view.tree.cost.total_cells, 1))
    pieces: list[tuple[Any, list[Any]]] = []
    orders = [np.arange(0)]
    for start in range(0, rows.count, size):
        part = np.arange(start, min(start + size, rows.count))
        log_z, cells, bad = run(rows.at(part), logarithms)
        if logarithms or not len(bad):
            pieces.append((log_z, cells))
            orders.append(part)
            continue
        # Once more without the bad rows: their numbers would spoil the others' gradients.
        for chosen, in_logs in ((np.delete(part, bad), False), (part[bad], True)):
            if len(chosen):
                pieces.append(run(rows.at(chosen), in_logs)[:2])
                orders.append(chosen)
    back = torch.as_tensor(np.argsort(np.concatenate(orders)), device=device)
    log_z = torch.cat([torch.zeros(0, dtype=exact, device=device), *(z for z, _ in pieces)])[back]
    empty = [torch.zeros(view.tree.size(s), 0, dtype=plain, device=device) for s in asked]
    joined = {
        scope: torch.cat([empty[i], *(cells[i] for _, cells in pieces)], 1)[:, back]
        for i, scope in enumerate(asked)
    }
    results = []
    for scope, local in zip(wanted, inside, strict=True):
        if local:
            table = joined[local]
        else:  # observed in every row
            codes = torch.as_tensor(rows.codes[scope[0]], device=device)
            table = torch.nn.functional.one_hot(codes, engine.cardinalities[scope[0]]).T.to(plain)
        results.append(table.where(log_z.detach() > -np.inf, table.new_tensor(np.nan)))
    return log_z, results


def _factors(
    engine: "Engine",
    view: Reduction,
    rows: "Rows",
    tables: Mapping[int, Any],
    device: str,
    dtype: Any,
) -> list[tuple["Scope", Any]]:
    """The model's tables, the observed states and the weights, as tensors."""
    import torch

    def tensor(table: Any) -> Any:
        table = torch.as_tensor(table).to(device, dtype)
        return table.clone() if table.is_inference() else table

    arrays = [tensor(tables.get(f, array)) for f, array in enumerate(engine.arrays)]
    found = view.factors(arrays, rows.codes)
    for v, table in engine.weights(view, type(rows)(rows.codes, rows.count)).items():
        found.append(((v,), tensor(table)))
    for v, table in rows.weights.items():
        if v in view.local:
            found.append(((view.local[v],), tensor(table)))
        else:  # at its observed state
            codes = torch.as_tensor(rows.codes[v], device=device)[None]
            found.append(((), tensor(table).expand(-1, rows.count).gather(0, codes)[0]))
    return found
