"""The gradient of a network's output with respect to its input, inside a loss."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    make_fx,
)


def input_gradient(network: nn.Module, x: Tensor, *conditions: Tensor) -> Tensor:
    """d/dx sum_i network(x, *conditions)_i, shape of x, itself differentiable in the parameters.

    Each row is an example's own gradient where the network treats examples apart. It gives no
    gradient to x. Works within `torch.no_grad` and while `ppgen.compile` traces an objective: a
    tracer sees the operations of a program but not what they keep for their backward pass, so
    there the backward pass is first written out as operations of its own, and these are traced.

    Args:
        network: must not stop gradients inside (`detach`, `torch.no_grad`): where it is traced
            they are not stopped.
        x: floating point, shape (n, ...).
        conditions: further tensors that the network takes; they get gradients.
    """
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    names, values = list(state), list(state.values())

    def gradient(values: list[Tensor], x: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        named = dict(zip(names, values, strict=True))
        with torch.enable_grad():
            total = functional_call(network, named, (x, *conditions)).sum()
            return torch.autograd.grad(total, x, create_graph=True)[0]

    x = x.detach()
    if get_proxy_mode() is None:
        return gradient(values, x.requires_grad_(), conditions)
    with disable_proxy_modes_tracing():
        graph = make_fx(gradient, tracing_mode="fake")(
            [_like(value) for value in values],
            _like(x).requires_grad_(),
            tuple(_like(condition) for condition in conditions),
        )
        _without_detached_copies(graph)
    return graph(values, x, conditions)


def _like(value: Tensor) -> Tensor:
    return torch.empty_like(value).requires_grad_(value.requires_grad)


def _without_detached_copies(graph: GraphModule) -> None:
    """Let gradients pass what an operation kept of its results, which autograd keeps detached."""
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()
