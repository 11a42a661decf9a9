"""Take out of a traced graph what changes nothing: every node costs a call each way."""

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten
ZEROS = (aten.new_zeros.default, aten.zeros.default, aten.zeros_like.default)
ONES = (aten.new_ones.default, aten.ones.default, aten.ones_like.default)
# Operations that give their first argument back where the second is one of these.
NEUTRAL = {
    aten.sub.Tensor: ZEROS,
    aten.add.Tensor: ZEROS,
    aten.div.Tensor: ONES,
    aten.mul.Tensor: ONES,
}


def simplify(module: GraphModule) -> None:
    """Simplify a graph in place; results, and everything it writes to, stay the same.

    Distributions broadcast and expand their parameters to the shapes they have already, constants
    are copied and detached anew at each run, a standard Normal subtracts zeros and divides by ones.
    """
    graph = module.graph
    _without_copies_of_constants(graph)
    for node in list(graph.nodes):
        if node.target is aten.expand.default:
            if _same(node, node.args[0]):
                node.replace_all_uses_with(node.args[0])
        elif node.target is aten.broadcast_tensors.default:
            for user in list(node.users):
                if user.target is operator.getitem:
                    source = node.args[0][user.args[1]]
                    if _same(user, source):
                        user.replace_all_uses_with(source)
    graph.eliminate_dead_code()
    # What was a copy becomes the thing itself, so nothing involved may be written to.
    written = _written(graph)
    for node in list(graph.nodes):
        if node.target in NEUTRAL and isinstance(node.args[1], Node):
            first, second = node.args
            neutral = second.target in NEUTRAL[node.target] and _same(node, first)
            if neutral and not written & {node, _memory(first), second}:
                node.replace_all_uses_with(first)
    graph.eliminate_dead_code()
    module.recompile()


def _without_copies_of_constants(graph: Any) -> None:
    for node in list(graph.nodes):
        if node.target is aten.lift_fresh_copy.default and node.args[0].op == "get_attr":
            copies = [node, *(user for user in node.users if user.target is aten.detach_.default)]
            users = [user for copy in copies for user in copy.users if user not in copies]
            if all(map(_only_reads, users)):
                for copy in reversed(copies):
                    copy.replace_all_uses_with(node.args[0])
                    graph.erase_node(copy)


def _same(one: Node, other: Any) -> bool:
    """Whether two nodes give tensors of one shape and type."""
    if not isinstance(other, Node):
        return False
    a, b = one.meta.get("val"), other.meta.get("val")
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return False
    return a.shape == b.shape and a.dtype == b.dtype


def _only_reads(node: Node) -> bool:
    """Whether an operation neither changes its inputs nor gives views that others could change."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    return all(result.alias_info is None for result in schema.returns)


def _memory(node: Node) -> Node:
    """The node whose memory a node's value lies in, through views and changes in place."""
    while node.op == "call_function" and node.args:
        schema = getattr(node.target, "_schema", None)
        view = schema is not None and any(r.alias_info is not None for r in schema.returns)
        if not (view or node.target is operator.getitem) or not isinstance(node.args[0], Node):
            break
        node = node.args[0]
    return node


def _written(graph: Any) -> set[Node]:
    """The nodes whose memory some operation writes to."""
    found = set()
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if argument.is_write or (argument.alias_info and argument.alias_info.is_write):
                values = value if isinstance(value, (list, tuple)) else [value]
                found |= {_memory(item) for item in values if isinstance(item, Node)}
    return found
