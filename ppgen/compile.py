"""Trace an objective once into a tensor graph, so that Pyro costs nothing a step."""

import copy
import random
import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from .names import one_of
from .objective import Objective, PyroObjective, Terms
from .simplify import simplify

Mode = Literal["trace", "inductor", "none"]
SCALARS = (int, float, bool, str, type(None))


class _Lifted(nn.Module):
    """An objective whose outputs are a flat list, with the buffers that it replaced at the end."""

    def __init__(self, objective: Objective, buffers: list[str]) -> None:
        super().__init__()
        self.objective = objective
        self.buffer_names = buffers
        self.titles: list[str] = []

    def forward(self, *batch: Tensor) -> list[Tensor]:
        loss, terms = self.objective(*batch)
        self.titles = list(terms)
        now = dict(self.named_buffers())
        return [loss, *terms.values(), *(now[name] for name in self.buffer_names)]


class Compiled(nn.Module):
    """An objective that runs as a graph of tensor operations, one graph for each kind of batch.

    Called like the objective: ``loss, terms = compiled(x, *conditions)``. Parameters and buffers
    are inputs of the graph, so that they may change between calls, as may the random state;
    plain numbers on the objective and its program are part of the key, and numbers deeper inside
    are fixed at the first call. Losses and gradients are those of the objective under the same
    seed. What cannot be traced (control flow that depends on data, Python state that changes, a
    Pyro ELBO object) runs as it is, after one warning that says why.

    Args:
        objective: what to trace.
        mode: "trace" (a graph run by PyTorch's own kernels, ready in well under a second),
            "inductor" (fused by `torch.compile`, which takes tens of seconds at first, and may
            draw what a step needs in another order, so that only its law is the same), or
            "none" (Pyro as it is).

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(self, objective: Objective, mode: Mode = "trace") -> None:
        super().__init__()
        one_of("compile", mode, get_args(Mode))
        self.objective = objective
        self.mode = mode if not isinstance(objective, PyroObjective) else "none"
        self.graphs: dict[tuple, tuple[Callable, list[str]]] = {}
        self.inputs: list[tuple[dict, str]] = []
        self.reason: str | None = None

    def forward(self, *batch: Tensor) -> tuple[Tensor, Terms]:
        if self.mode == "none":
            return self._plain(batch)
        self.objective.prepare(*batch)  # what it finds out is part of the key
        key = self._key(batch)
        if key not in self.graphs:
            try:
                self._trace(key, batch)
            except Exception as error:
                self._fall_back(error, batch)
                return self._plain(batch)
        graph, titles = self.graphs[key]
        outputs = graph([store[name] for store, name in self.inputs], batch)
        return outputs[0], dict(zip(titles, outputs[1:], strict=True))

    def _plain(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Terms]:
        # As in a graph: numbers that are not finite come out as such, for `fit` to name.
        self.objective.prepare(*batch)
        with pyro.validation_enabled(False):
            return self.objective(*batch)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"graphs": {}, "inputs": []}  # graphs are remade where they run

    def _key(self, batch: tuple[Tensor, ...]) -> tuple:
        kind = batch[0].device.type
        owners = (self.objective, self.objective.program)
        return (
            *((part.shape, part.dtype) for part in batch),
            batch[0].device,
            *(module.training for module in self.objective.modules()),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind),
            *(
                value
                for owner in owners
                for value in vars(owner).values()
                if type(value) in SCALARS
            ),
        )

    def _trace(self, key: tuple, batch: tuple[Tensor, ...]) -> None:
        buffers = dict(self.objective.named_buffers())
        lifted = _Lifted(self.objective, [f"objective.{name}" for name in buffers])
        state = dict(lifted.named_parameters()) | dict(lifted.named_buffers())
        count = len(state) - len(buffers)
        names = list(state)

        def run(values: list[Tensor], batch: tuple[Tensor, ...]) -> list[Tensor]:
            outputs = functional_call(lifted, dict(zip(names, values, strict=True)), batch)
            last = len(outputs) - len(buffers)
            for old, new in zip(values[count:], outputs[last:], strict=True):
                if new is not old:  # assigned anew rather than changed in place
                    old.copy_(new.detach())
            if self.mode == "inductor":  # which cannot give one tensor out twice, as loss and term
                return [value.clone() for value in outputs[:last]]
            return outputs[:last]

        devices = [batch[0].device] if batch[0].is_cuda else []
        before = {
            key: (value, _kept(value), _snapshot(value))
            for key, value in _attributes(self.objective).items()
        }
        python, numpy = random.getstate(), np.random.get_state(legacy=False)
        # The run that records the graph leaves no trace: buffers are copies, draws are undone.
        values = [v.detach() for v in list(state.values())[:count]]
        values += [v.detach().clone() for v in buffers.values()]
        for value, parameter in zip(values, state.values(), strict=False):
            value.requires_grad_(parameter.requires_grad)
        try:
            with torch.random.fork_rng(devices=devices), pyro.validation_enabled(False):
                # pre_dispatch keeps torch.no_grad() regions of the program in the graph.
                graph = make_fx(run, pre_dispatch=True)(values, batch)
        finally:
            drawn = random.getstate() != python or _moved(numpy, np.random.get_state(legacy=False))
            random.setstate(python)
            np.random.set_state(numpy)
            changed = _put_back(self.objective, before)
        if drawn:
            raise RuntimeError("the program draws from Python's or NumPy's generator")
        if changed:
            raise RuntimeError(f"the program changes the Python attribute {changed} as it runs")
        if operation := _counting(graph):
            raise RuntimeError(f"how many numbers {operation} gives depends on the data")
        if _froze(graph, [*values, *batch]):
            raise RuntimeError("it takes gradients inside, through operations with hidden parts")
        simplify(graph)
        call: Callable = graph.forward
        if self.mode == "inductor":
            validates = torch.distributions.Distribution._validate_args
            # With the draws of PyTorch's own generators.
            call = torch.compile(graph, options={"fallback_random": True})
            # The compiler's first use switches validation off for the whole process.
            torch.distributions.Distribution.set_default_validate_args(validates)
        self.inputs = _stores(self.objective)
        self.graphs[key] = (call, lifted.titles)

    def _fall_back(self, error: Exception, batch: tuple[Tensor, ...]) -> None:
        self.mode = "none"
        self.reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        name = type(self.objective.program).__name__
        warnings.warn(
            f"{name} runs as plain Pyro, several times slower: it cannot be traced "
            f"({type(error).__name__}: {self.reason})",
            stacklevel=4,
        )


def _stores(objective: nn.Module) -> list[tuple[dict, str]]:
    """Where each parameter and buffer is looked up at a call, in the graph's order."""

    def place(name: str, kind: str) -> tuple[dict, str]:
        path, _, last = name.rpartition(".")
        return getattr(objective.get_submodule(path), kind), last

    stores = [place(name, "_parameters") for name, _ in objective.named_parameters()]
    return stores + [place(name, "_buffers") for name, _ in objective.named_buffers()]


def _attributes(objective: nn.Module) -> dict[tuple[str, str], Any]:
    """Every attribute of an objective and its modules that is not a parameter, buffer or module."""
    usual = vars(nn.Module()).keys() | vars(PyroModule()).keys()
    return {
        (name, key): value
        for name, module in objective.named_modules()
        for key, value in vars(module).items()
        if key not in usual
    }


def _snapshot(value: Any) -> Any:
    """What of an attribute a graph would take for fixed, in a form that can be compared."""
    if type(value) in SCALARS:
        return repr(value)  # so that NaN equals itself
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_snapshot(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _snapshot(item) for key, item in value.items()}
    return type(value)


def _kept(value: Any) -> Any:
    """A copy of what can be changed in place."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.copy(value) if isinstance(value, (list, dict, set)) else value


def _put_back(objective: nn.Module, before: dict[tuple[str, str], tuple]) -> str | None:
    """Undo changes of Python attributes; the name of the first that had changed."""
    after = _attributes(objective)
    changed = [key for key in after if key not in before]
    for name, attribute in changed:
        del vars(objective.get_submodule(name))[attribute]
    for (name, attribute), (value, contents, snapshot) in before.items():
        if (name, attribute) in after and _snapshot(after[name, attribute]) == snapshot:
            continue
        changed.append((name, attribute))
        vars(objective.get_submodule(name))[attribute] = value
        if isinstance(value, list):
            value[:] = contents
        elif isinstance(value, (dict, set)):
            value.clear()
            value.update(contents)
        elif isinstance(value, Tensor):
            with torch.no_grad():
                value.copy_(contents)
    return ".".join(changed[0]).removeprefix("program.") if changed else None


def _moved(before: Any, after: Any) -> bool:
    """Whether NumPy's global generator was drawn from."""
    old, new = before["state"], after["state"]
    return old["pos"] != new["pos"] or not np.array_equal(old["key"], new["key"])


def _counting(graph: torch.fx.GraphModule) -> str | None:
    """An operation whose result's shape depends on numbers, which a recording takes for fixed."""
    for node in graph.graph.nodes:
        name = str(node.target)
        if name.startswith(("aten.nonzero", "aten.masked_select", "aten._unique", "aten.unique")):
            return name
        if name == "aten.index.Tensor":
            for index in node.args[1]:
                found = None if index is None else index.meta.get("tensor_meta")
                if found is not None and found.dtype in (torch.bool, torch.uint8):
                    return "indexing by a mask"
    return None


def _froze(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> bool:
    """Whether the recording took a tensor that depends on its inputs for a constant.

    An inner `autograd.grad` reads tensors that a composite operation, such as `F.linear`, kept
    for its backward pass. These were never recorded, and would stay as they are for good.
    """
    memory = {tensor.untyped_storage().data_ptr() for tensor in inputs if tensor.numel()}
    for node in graph.graph.nodes:
        constant = getattr(graph, str(node.target)) if node.op == "get_attr" else None
        if isinstance(constant, Tensor) and (
            constant.requires_grad or constant.untyped_storage().data_ptr() in memory
        ):
            return True
    return False
