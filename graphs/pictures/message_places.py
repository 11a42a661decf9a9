"""Where the nodes, arrows and numbers of a picture of messages go, in inches."""

from typing import Any

import networkx as nx
import numpy as np

from ..factor_graph import FactorGraph
from .layout import layout_of
from .picture import LABELLED, LINE, _legible, _width, _wrapped
from .shapes import reach

BARS, WIDE = 0.36, 0.86  # inches of a bar for probability 1, of all bars of a node
ASIDE, NEAR = 0.07, 0.05  # inches from an edge to its arrows, from an arrow to its numbers
ROUND = 9  # nodes on a circle; more go by springs
COUNTED = 3  # states; of more, messages are bars without numbers
Slot = tuple[int, Any]  # a factor and the variable that it sends to
Box = tuple[float, float, float, float]  # centre and size


class Places:
    """A graph with a place for every message that may come.

    Nodes are numbers: variables by their position, then factors, which are nodes where they join
    other than two variables or the same two.

    Raises:
        ValueError: no variables, or more nodes than there is room for.
    """

    def __init__(self, graph: FactorGraph) -> None:
        self.graph = graph
        names = self.graph.variables
        at = self.graph.positions
        joining = [(i, scope) for i, (scope, _) in enumerate(self.graph.factors) if len(scope) > 1]
        pairs = {frozenset(scope) for _, scope in joining}
        self.plain = len(pairs) == len(joining) and all(len(pair) == 2 for pair in pairs)
        shape: nx.Graph = nx.Graph()
        shape.add_nodes_from(range(len(names)))
        self.ends: dict[Slot, tuple[int, int]] = {}
        for place, (factor, scope) in enumerate(joining):
            square = len(names) + place
            for target in scope:
                source = at[scope[scope[0] == target]] if self.plain else square
                self.ends[factor, target] = source, at[target]
                shape.add_edge(source, at[target])
        if not 0 < len(shape) <= LABELLED:
            raise ValueError(
                f"a picture of messages has room for 1 to {LABELLED} nodes; this graph has "
                f"{len(shape):,}"
            )
        self.squares = {len(names) + i: f"f{factor}" for i, (factor, _) in enumerate(joining)}
        self.squares = {} if self.plain else self.squares
        self.lines = [_wrapped(name) for name in names]
        self.labels = [self._states_that_fit(v) for v in names]
        self.sizes = {n: self._size(n) for n in shape}
        self.edges = list(shape.edges)
        self.places = self._placed(shape)
        self.numbers = self._numbers()
        boxes = [*self._taken(), *(box for box, _ in self.numbers.values())]
        x, y, w, h = np.array(boxes).T
        self.left, self.right = float((x - w / 2).min()) - 0.2, float((x + w / 2).max()) + 0.2
        self.low, self.high = float((y - h / 2).min()) - 0.2, float((y + h / 2).max()) + 0.2

    def _states_that_fit(self, variable: Any) -> list[str]:
        """The labels of the states, where all are short enough to stand below their bars."""
        texts = [_legible(" ".join(str(state).split())) for state in self.graph.states[variable]]
        room = WIDE / len(texts)
        return texts if all(0.7 * _width(text) < room - 0.03 for text in texts) else []

    def _size(self, node: int) -> tuple[float, float]:
        if node in self.squares:
            return (max(0.34, _width(self.squares[node]) + 0.14), 0.34)
        wide = max((_width(line) for line in self.lines[node]), default=0.0)
        return (max(1.0, wide + 0.24), LINE * len(self.lines[node]) + BARS + 0.4)

    def _placed(self, shape: nx.Graph) -> dict[int, tuple[float, float]]:
        """Trees from left to right, since numbers are wider than high; others by springs."""
        roomy = {n: (w + 0.3, h + 0.16) for n, (w, h) in self.sizes.items()}
        if self.plain and self.graph.grid_shape is not None:
            across, down = (max(size[axis] for size in roomy.values()) + 0.7 for axis in (0, 1))
            cells = self.graph.variables
            return {n: (cells[n][1] * across, -cells[n][0] * down) for n in shape}
        if not nx.is_forest(shape):
            if len(shape) <= ROUND:  # on a circle no edge is behind a node
                step = max(w for w, _ in roomy.values()) + 0.8
                circle = nx.circular_layout(shape, step / 2 / np.sin(np.pi / len(shape)))
                return {n: (float(x), float(y)) for n, (x, y) in circle.items()}
            apart = layout_of(shape, {n: (w + 0.6, h + 0.5) for n, (w, h) in roomy.items()})
            return {n: apart.places[n] for n in shape}
        downwards: nx.DiGraph = nx.DiGraph()
        forks = False
        for nodes in nx.connected_components(shape):
            start = min(nodes)
            if max(shape.degree(n) for n in nodes) <= 2:  # a path, from an end
                start = min(n for n in nodes if shape.degree(n) <= 1)
            else:
                forks = True
            downwards.add_node(start)
            downwards.add_edges_from(nx.bfs_edges(shape, start))
        # Between the edges to two neighbours their numbers need room, too.
        turned = {n: (h + (0.4 if forks else 0.0), w) for n, (w, h) in roomy.items()}
        found = layout_of(downwards, turned, 0.8)
        return {n: (-found.places[n][1], -found.places[n][0]) for n in shape}

    def arrow(self, slot: Slot) -> tuple[np.ndarray, np.ndarray]:
        """Where a message's arrow begins and ends, on the right of its way."""
        source, target = self.ends[slot]
        start, end = np.array(self.places[source]), np.array(self.places[target])
        length = float(np.hypot(*(end - start)))
        way = (end - start) / max(length, 1e-9)
        aside = ASIDE * np.array([way[1], -way[0]])
        begin = start + way * (reach(self.sizes[source], way) + 0.06)
        finish = end - way * (reach(self.sizes[target], -way) + 0.05)
        return begin + aside, finish + aside

    def _numbers(self) -> dict[Slot, tuple[Box, bool]]:
        """Of each message the place of its numbers beside its arrow, and whether that is free."""
        share = np.linspace(0, 1, 81)[:, None]
        ways = [(np.array(self.places[a]), np.array(self.places[b])) for a, b in self.edges]
        ways += [self.arrow(slot) for slot in self.ends]
        lines = np.concatenate([np.empty((0, 2)), *(a + share * (b - a) for a, b in ways)])
        taken = self._taken()
        found = {}
        for slot in self.ends:
            states = self.graph.cardinalities[slot[1]]
            w, h = 0.5, 0.24
            if states <= COUNTED:
                w, h = 0.8 * _width(" ".join(["0.00"] * states)) + 0.04, 0.17
            begin, finish = self.arrow(slot)
            way = (finish - begin) / max(float(np.hypot(*(finish - begin))), 1e-9)
            side = np.array([way[1], -way[0]])
            off = NEAR + abs(side[0]) * w / 2 + abs(side[1]) * h / 2
            tries = []
            for along in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8):
                x, y = begin + along * (finish - begin) + off * side
                crossed = (abs(lines - (x, y)) < (w / 2 + 0.01, h / 2 + 0.01)).all(1).sum()
                covered = sum(
                    abs(x - a) < (w + c) / 2 + 0.02 and abs(y - b) < (h + d) / 2 + 0.02
                    for a, b, c, d in taken
                )
                tries.append((int(crossed) + 100 * covered, (float(x), float(y), w, h)))
                if not tries[-1][0]:
                    break
            hidden, box = min(tries)
            found[slot] = box, hidden == 0
            if not hidden:
                taken.append(box)
        return found

    def _taken(self) -> list[Box]:
        return [(*self.places[n], *self.sizes[n]) for n in self.sizes]
