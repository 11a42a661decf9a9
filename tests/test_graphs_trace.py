"""The record of messages: what it says, what it prints, what it draws."""

import os
import re
from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from graphs import files
from graphs.factor_graph import FactorGraph
from graphs.messages.counting import operations
from graphs.messages.sequential import run
from graphs.pictures import message_film
from graphs.pictures.message_film import GROWING
from graphs.pictures.message_places import Places
from graphs.pictures.picture import BLOCKED, OPEN

EDGES = [("x1", "x3"), ("x2", "x3"), ("x3", "x4"), ("x4", "x5"), ("x4", "x6")]


def traced(graph, schedule="depth_first", product="sum", evidence=None, **options):
    given = {"root": None, "damping": 0.0, "tolerance": 1e-9, "max_iterations": 100, "keep": True}
    return run(graph, product=product, schedule=schedule, evidence=evidence or {},
               **(given | options)).trace  # fmt: skip


def tree(seed=0, states=2, unary=True):
    rng = np.random.default_rng(seed)
    names = [f"x{i}" for i in range(1, 7)]
    factors = [((v,), rng.normal(size=states)) for v in names] if unary else []
    factors += [(edge, rng.normal(size=(states, states))) for edge in EDGES]
    return FactorGraph(dict.fromkeys(names, states), factors)


def three(states=2, unary=(1, 2, 3)):
    rng = np.random.default_rng(1)
    return FactorGraph({"x1": states, "x2": states, "x3": states}, [
        *(((f"x{i}",), rng.normal(size=states)) for i in unary),
        (("x1", "x2"), rng.normal(size=(states, states))),
        (("x2", "x3"), rng.normal(size=(states, states))),
    ])  # fmt: skip


# What it says


def test_a_chain_in_the_textbook_s_words():
    trace = traced(three(), root=2)
    assert [f"{m.name} = {m.formula}" for m in trace] == [
        "m_{x1->x2}(x2) = sum_{x1} psi(x1,x2) psi(x1)",
        "m_{x2->x3}(x3) = sum_{x2} psi(x2,x3) psi(x2) m_{x1->x2}(x2)",
        "m_{x3->x2}(x2) = sum_{x3} psi(x2,x3) psi(x3)",
        "m_{x2->x1}(x1) = sum_{x2} psi(x1,x2) psi(x2) m_{x3->x2}(x2)",
    ]
    assert [m.step for m in trace] == [1, 2, 3, 4]
    assert [m.operations for m in trace] == [4, 8, 12, 16] and trace.operations == 16
    assert [(m.sources, m.target) for m in trace] == [
        (("x1",), "x2"), (("x2",), "x3"), (("x3",), "x2"), (("x2",), "x1")
    ]  # fmt: skip


def test_each_message_is_its_formula():
    # In a run to the end every message follows from what its sources collected, and these from the
    # last messages before it.
    graph = tree()
    tables = {scope: np.exp(table) for scope, table in graph.factors}
    for schedule in ("depth_first", "residual"):
        trace = traced(graph, schedule)
        last = {}
        for message in trace:
            (source,), target = message.sources, message.target
            collected = tables[(source,)].copy()
            for (one, other), values in last.items():
                if other == source and one != target:
                    collected = collected * values
            collected /= collected.sum()
            np.testing.assert_allclose(message.collected[source], collected, rtol=1e-12)
            edge = tables.get((source, target))
            edge = tables[(target, source)].T if edge is None else edge
            wanted = collected @ edge
            np.testing.assert_allclose(message.values, wanted / wanted.sum(), rtol=1e-12)
            np.testing.assert_allclose(np.exp(message.log_values), message.values, rtol=1e-12)
            last[source, target] = message.values


def test_names_where_factors_are_not_plain_edges():
    two = np.zeros((2, 2))
    graph = FactorGraph(dict.fromkeys("abcd", 2), [
        (("a", "b", "c"), np.zeros((2, 2, 2))), (("c", "d"), two), (("d", "c"), two),
        (("a",), np.zeros(2)),
    ])  # fmt: skip
    trace = traced(graph, "flooding", "max", evidence={1: 0}, max_iterations=1, tolerance=0.0)
    assert [f"{m.name} = {m.formula}" for m in trace] == [
        "m_{f0->a}(a) = max_{b,c} psi(a,b,c) [b=0] m_{f1->c}(c) m_{f2->c}(c)",
        "m_{f0->b}(b) = max_{a,c} psi(a,b,c) psi(a) m_{f1->c}(c) m_{f2->c}(c)",
        "m_{f0->c}(c) = max_{a,b} psi(a,b,c) psi(a) [b=0]",
        "m_{f1->c}(c) = max_{d} psi_1(c,d) m_{f2->d}(d)",
        "m_{f1->d}(d) = max_{c} psi_1(c,d) m_{f0->c}(c) m_{f2->c}(c)",
        "m_{f2->d}(d) = max_{c} psi_2(d,c) m_{f0->c}(c) m_{f1->c}(c)",
        "m_{f2->c}(c) = max_{d} psi_2(d,c) m_{f1->d}(d)",
    ]
    assert trace.evidence == {"b": 0}
    assert trace[1].sources == ("a", "c")


def test_counts_of_every_schedule():
    graph = tree(states=3)
    assert traced(graph).operations == 10 * 9 == operations(graph).passes
    flooded = traced(graph, "flooding")
    assert flooded.operations == 9 * len(flooded)
    assert [m.iteration for m in flooded] == sorted(m.iteration for m in flooded)
    assert {sum(m.iteration == i for m in flooded) for i in {m.iteration for m in flooded}} == {10}
    # residual: computed when what they come from changes, more often than sent
    assert traced(graph, "residual").operations > 9 * len(traced(graph, "residual"))


def test_beliefs_on_the_way():
    graph = three()
    trace = traced(graph, root=2)
    psi = {scope: np.exp(table) for scope, table in graph.factors}
    start = trace.beliefs(0)
    for variable in graph.variables:
        wanted = psi[(variable,)] / psi[(variable,)].sum()
        np.testing.assert_allclose(start[variable], wanted, rtol=1e-12)
    one = psi[("x1",)] @ psi["x1", "x2"] * psi[("x2",)]
    np.testing.assert_allclose(trace.beliefs(1)["x2"], one / one.sum(), rtol=1e-12)
    joint = np.einsum("a,b,c,ab,bc->abc", *(psi[(v,)] for v in graph.variables),
                      psi["x1", "x2"], psi["x2", "x3"])  # fmt: skip
    np.testing.assert_allclose(trace.beliefs()["x1"], joint.sum((1, 2)) / joint.sum(), rtol=1e-12)
    best = traced(graph, product="max").beliefs()["x2"]
    np.testing.assert_allclose(best, joint.max((0, 2)) / joint.max(), rtol=1e-12)
    for step in (-1, 5):
        with pytest.raises(ValueError, match=f"step must be between 0 and 4, got {step}"):
            trace.beliefs(step)


def test_a_sequence():
    trace = traced(three())
    assert len(trace) == len([*trace]) == 4
    assert trace[-1] is trace.messages[3]
    assert trace[1:3] == trace.messages[1:3]
    with pytest.raises(IndexError):
        trace[4]
    alone = FactorGraph({"a": 2}, [])
    assert len(traced(alone)) == traced(alone).operations == 0
    np.testing.assert_array_equal(traced(alone).beliefs()["a"], [0.5, 0.5])


# What it prints


def test_print():
    trace = traced(three(unary=(1,)), root=2, evidence={0: 1})
    lines = str(trace).split("\n")
    assert lines[0] == (
        "4 messages of sum-product, schedule depth_first: 16 operations (table entries visited)"
    )
    assert lines[1] == "evidence: x1=1"
    assert re.fullmatch(r"step +message +value +operations", lines[2])
    shown = " ".join(f"{value:.4g}" for value in trace[0].values)
    assert re.sub(" +", " ", lines[3]).strip() == (
        f"1 m_{{x1->x2}}(x2) = sum_{{x1}} psi(x1,x2) psi(x1) [x1=1] {shown} 4"
    )
    assert len(lines) == 7
    assert str(trace[1]) == (
        "step 2, iteration 1, factor 2\n"
        "  m_{x2->x3}(x3) = sum_{x2} psi(x2,x3) m_{x1->x2}(x2)\n"
        f"  collected from x2: {shown}\n"
        f"  sent to x3: {' '.join(f'{value:.4g}' for value in trace[1].values)}"
    )
    assert repr(trace) == "<Trace of 4 messages, sum-product, depth_first>"


def test_long_traces_and_many_states_are_cut_and_say_so():
    names = [f"v{i}" for i in range(100)]
    rng = np.random.default_rng(0)
    graph = FactorGraph(dict.fromkeys(names, 9), [
        ((a, b), rng.normal(size=(9, 9))) for a, b in pairwise(names)
    ])  # fmt: skip
    text = str(traced(graph))
    assert len(text.split("\n")) == 2 + 60 + 1
    assert text.endswith("and 138 more messages, in trace[60:]")
    assert text.count("and 3 more") == 60
    hub = FactorGraph([2] * 31, [((0, i), np.zeros((2, 2))) for i in range(1, 31)])
    assert "and 18 more" in traced(hub)[-1].formula


def test_to_frame():
    states = {"x1": ["no", "yes"]}
    rng = np.random.default_rng(0)
    graph = FactorGraph({"x1": 2, "x2": 3}, [(("x1", "x2"), rng.normal(size=(2, 3)))],
                        states=states)  # fmt: skip
    trace = traced(graph)
    frame = trace.to_frame()
    assert " ".join(frame.columns) == (
        "step iteration factor sources target message state value log_value residual operations"
    )
    assert frame["state"].tolist() == ["no", "yes", 0, 1, 2]
    np.testing.assert_allclose(frame.groupby("step")["value"].sum(), 1)
    assert frame["sources"].tolist() == [("x2",)] * 2 + [("x1",)] * 3
    np.testing.assert_array_equal(frame["value"], np.concatenate([m.values for m in trace]))


# What it counts


def test_operations_on_the_lecture_s_graphs():
    assert str(operations(tree())) == (
        "one marginal: (N-1) |x|^2 = 20 operations; all marginals: 2 (N-1) |x|^2 = 40 operations "
        "in 10 messages; enumeration: |x|^N = 2^6 = 64"
    )
    found = operations(three(states=10))
    assert (found.one_pass, found.passes, found.messages) == (200, 400, 4)
    assert found.enumeration == 1000


def test_operations_elsewhere():
    forest = FactorGraph([3] * 5, [((0, 1), np.zeros((3, 3))), ((2, 3), np.zeros((3, 3)))])
    assert "2 (N-3) |x|^2 = 36 operations in 4 messages" in str(operations(forest))
    assert operations(forest).trees == 3
    loop = FactorGraph.grid(np.zeros((40, 50, 2)), np.zeros((2, 2)))
    edges = 39 * 50 + 40 * 49
    found = operations(loop)
    assert (found.trees, found.edges, found.passes) == (None, edges, 8 * edges)
    assert found.enumeration == 2**2000
    assert str(found) == (
        f"one iteration: 2 {edges} |x|^2 = {8 * edges:,} operations in {2 * edges:,} messages; "
        "enumeration: |x|^N = 2^2000 = about 1.1e602"
    )
    mixed = FactorGraph(
        [2, 3, 4, 5], [((0, 1, 2), np.zeros((2, 3, 4))), ((2, 3), np.zeros((4, 5)))]
    )
    found = operations(mixed)
    assert (found.states, found.edges, found.trees) == (None, None, 1)
    assert (found.one_pass, found.passes, found.messages) == (24 + 20, 3 * 24 + 2 * 20, 5)
    assert str(found).endswith("enumeration: the product of all states = 120")
    assert traced(mixed).operations == found.passes
    assert str(operations(FactorGraph([2] * 20_000, []))).endswith("= about 4.0e6,020")


# What it draws


def artists(figure):
    (axes,) = figure.axes
    arrows = [a for a in axes.patches if a.get_gid() in ("message", "newest")]
    return axes, arrows


def test_messages_sent_so_far_are_drawn_and_the_last_is_highlighted():
    trace = traced(tree(), root=0)
    for step in range(11):
        axes, arrows = artists(trace.draw(step))
        newest = [a for a in arrows if a.get_gid() == "newest"]
        assert len(arrows) == step
        assert len(newest) == (step > 0)
        texts = [text.get_text() for text in axes.texts]
        if step:
            message = trace[step - 1]
            assert f"{message.name} = {message.formula}" in " ".join(texts)
            numbers = " ".join(f"{value:.2f}" for value in message.values)
            drawn = [t for t in axes.texts if t.get_text() == numbers and t.get_color() == BLOCKED]
            assert len(drawn) == 1
    axes, arrows = artists(trace.draw())
    assert [a.get_gid() for a in arrows] == ["message"] * 10
    texts = [text.get_text() for text in axes.texts]
    for belief in trace.beliefs().values():
        for value in belief:
            assert f"{value:.2f}" in texts


def boxes(figure):
    """The extents of all texts and nodes in pixels."""
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    texts = [text.get_window_extent() for text in axes.texts if text.get_text()]
    nodes = [a.get_window_extent() for a in axes.patches if str(a.get_gid()).startswith("node")]
    return texts, nodes, figure.bbox


@pytest.mark.parametrize("graph", [
    three(), three(3), three(12), tree(), tree(states=3),
    FactorGraph.grid(np.zeros((3, 4, 2)), np.eye(2)),
    FactorGraph({"a long name": 2, (1, 2): 3, "c": 4},
                [(("a long name", (1, 2), "c"), np.zeros((2, 3, 4)))]),
    FactorGraph([2] * 5, [((i, (i + 1) % 5), np.eye(2)) for i in range(5)]),
])  # fmt: skip
def test_nothing_overlaps(graph):
    trace = traced(graph, "flooding", max_iterations=20)
    for step in (len(trace) // 2, None):
        texts, nodes, whole = boxes(trace.draw(step))
        for one, other in combinations(texts, 2):
            assert not one.padded(-1.0).overlaps(other.padded(-1.0))
        for one, other in combinations(nodes, 2):
            assert not one.overlaps(other)
        for box in [*texts, *nodes]:
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1
            assert whole.y0 <= box.y0 and box.y1 <= whole.y1
        for text in texts:  # inside a node, or outside
            for node in nodes:
                if text.padded(-1.0).overlaps(node):
                    assert node.x0 < text.x0 and text.x1 < node.x1
                    assert node.y0 < text.y0 and text.y1 < node.y1


@pytest.mark.parametrize("states", [2, 3, 4, 9])
def test_every_message_of_the_lecture_s_graphs_has_room_for_its_numbers(states):
    for graph in (three(states), tree(states=states)):
        assert all(free for _, free in Places(graph).numbers.values())


def test_drawing_in_axes_and_files(tmp_path):
    figure = Figure((5, 3))
    axes = figure.add_subplot(1, 2, 1)
    trace = traced(three())
    assert trace.draw(2, ax=axes) is figure
    assert len(axes.texts) > 4
    trace.draw(2, path=tmp_path / "one.png")
    trace.draw(2, path=tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with pytest.raises(ValueError, match="ends in one of"):
        trace.draw(2, path=tmp_path / "one.gif")
    with pytest.raises(ValueError, match="step must be between 0 and 4, got 9"):
        trace.draw(9)
    many = FactorGraph([2] * 300, [((i, i + 1), np.eye(2)) for i in range(299)])
    with pytest.raises(ValueError, match="room for 1 to 200 nodes; this graph has 300"):
        traced(many).draw()


def test_names_and_states_of_any_text_are_printed_and_drawn(tmp_path):
    names = ["$x^{", "new\nline", "", ("t", 1), "%s{}", "\\frac"]
    joint = [(pair, np.eye(2)) for pair in pairwise(names)]
    graph = FactorGraph(dict.fromkeys(names, 2), joint, states={"$x^{": ("$y^{", "b\nc")})
    trace = traced(graph)
    figure = trace.draw(path=tmp_path / "odd.svg")
    assert {"$x^{", "$y^{", "b c", "%s{}", "\\frac"} <= {
        text.get_text() for text in figure.axes[0].texts
    }
    assert r"m_{%s{}->\frac}" in str(trace)


def test_a_moving_picture_has_a_frame_for_every_message(tmp_path):
    trace = traced(three())
    path = tmp_path / "chain.gif"
    count = trace.animate(path, seconds=0.5)
    assert count == 1 + 4 + GROWING
    with Image.open(path) as film:
        assert film.n_frames == count
        times, orange, blue = [], [], []
        for i in range(count):
            film.seek(i)
            times.append(film.info["duration"])
            pixels = np.asarray(film.convert("RGB")).astype(int)
            assert (pixels[0, 0] == 255).all()
            orange.append(near(pixels, BLOCKED))
            blue.append(near(pixels, OPEN))
        assert film.info["loop"] == 0
    assert times == [500] * 5 + [80] * (GROWING - 1) + [1500]
    assert min(orange[1:5]) > 100
    assert not any(orange[5:])
    assert blue[5:] == sorted(blue[5:]) and len({*blue[5:]}) == GROWING  # the beliefs grow
    assert os.listdir(tmp_path) == ["chain.gif"]


def near(pixels, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((abs(pixels - wanted).max(-1) < 40).sum())


def test_long_traces_have_evenly_chosen_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(message_film, "FRAMES", 5)
    trace = traced(tree(), "flooding")
    assert len(trace) > 20
    assert trace.animate(tmp_path / "tree.gif", seconds=0.1) == 1 + 5 + GROWING
    with Image.open(tmp_path / "tree.gif") as film:
        assert film.n_frames == 1 + 5 + GROWING


def test_files_are_whole_or_as_they_were(tmp_path, monkeypatch):
    trace = traced(three())
    path = tmp_path / "chain.gif"
    path.write_bytes(b"before")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        trace.animate(path)
    for wrong in ({"path": tmp_path / "chain.mp4"}, {"path": tmp_path / "new.gif", "seconds": 0}):
        with pytest.raises(ValueError, match=r"(ends in .gif|seconds must be between)"):
            trace.animate(**wrong)
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            trace.animate(path, overwrite=True)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["chain.gif"]
    trace.animate(path, overwrite=True)
    assert path.read_bytes()[:6] == b"GIF89a"
