"""What belief propagation costs, against enumeration."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..factor_graph import FactorGraph

LONG = 15  # digits up to which a number is written out


@dataclass(frozen=True)
class Operations:
    """Counts of table entries visited, each one multiplication and one addition or so.

    Attributes:
        variables: N.
        states: |x|, the number of states where all variables have the same, else None.
        edges: the number of factors where all that join variables join two, else None.
        trees: the number of components, where there is no cycle, else None.
        one_pass: entries of all tables of two and more variables, each once: the messages from the
            leaves to a root, which give the root's marginal.
        passes: each once for each of its variables: all messages, there and back, which give all
            marginals where there is no cycle, and are one iteration where there is one.
        messages: how many these are.
        enumeration: configurations of all variables, the product of their numbers of states, each
            of which enumeration visits.
    """

    variables: int
    states: int | None
    edges: int | None
    trees: int | None
    one_pass: int
    passes: int
    messages: int
    enumeration: int

    def __str__(self) -> str:
        even = self.states is not None
        power = f"|x|^N = {self.states}^{self.variables}" if even else "the product of all states"
        whole = f"enumeration: {power} = {_written(self.enumeration)}"
        terms = ["", ""]
        if even and self.edges is not None:
            joined = f"{self.edges}"
            if self.trees is not None:
                joined = "(N-1)" if self.trees == 1 else f"(N-{self.trees})"
            terms = [f"{joined} |x|^2 = ", f"2 {joined} |x|^2 = "]
        if self.trees is None:
            return (
                f"one iteration: {terms[1]}{self.passes:,} operations in {self.messages:,} "
                f"messages; {whole}"
            )
        return (
            f"one marginal: {terms[0]}{self.one_pass:,} operations; all marginals: {terms[1]}"
            f"{self.passes:,} operations in {self.messages:,} messages; {whole}"
        )


def operations(model: Any) -> Operations:
    """How many table entries belief propagation visits, and how many enumeration would.

    A message from a factor visits each entry of its table once. On a tree of N variables with |x|
    states that pairs of them are joined in, one marginal takes (N-1) |x|^2 and all take 2 (N-1)
    |x|^2, where enumeration has |x|^N configurations. Unary factors join the variables' own sums
    and are not counted, nor are the sums of messages at a variable.

    Args:
        model: a `FactorGraph`, or what `FactorGraph.of` takes. Of a batch, one field counts.

    Raises:
        TypeError, ValueError: see `FactorGraph.of`.
    """
    graph = FactorGraph.of(model)
    shapes = [(group.shape, len(group.numbers)) for group in graph.groups if len(group.shape) > 1]
    sizes = [int(size) for size in graph.sizes]
    pairwise = all(len(shape) == 2 for shape, _ in shapes)
    # In a forest, arity - 1 variables a factor hang below another one; the rest are roots.
    trees = len(sizes) - sum((len(shape) - 1) * count for shape, count in shapes)
    return Operations(
        variables=len(sizes),
        states=sizes[0] if len(np.unique(sizes)) == 1 else None,
        edges=sum(count for _, count in shapes) if pairwise else None,
        trees=trees if graph.is_forest else None,
        one_pass=sum(math.prod(shape) * count for shape, count in shapes),
        passes=sum(math.prod(shape) * count * len(shape) for shape, count in shapes),
        messages=sum(len(shape) * count for shape, count in shapes),
        enumeration=math.prod(k**n for k, n in Counter(sizes).items()),
    )


def _written(number: int) -> str:
    """A number in digits, or how long it is."""
    length = math.log10(number)
    if length <= LONG:
        return f"{number:,}"
    return f"about {10 ** (length % 1):.1f}e{int(length):,}"
