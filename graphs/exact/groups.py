"""Which targets of an expensive network are answered together."""

from collections.abc import Callable, Collection, Sequence


def ancestral_groups(
    wanted: Sequence[int],
    evidence: Collection[int],
    relevant: Callable[[set[int]], set[int]],
    cells: Callable[[set[int]], float],
    limit: float,
    budget: float,
    probes: int,
) -> list[list[int]]:
    """Targets in groups whose ancestors, with those of the evidence, make small tables.

    What is barren for one group does not enter its tables: parents that meet only in a child
    nobody of the group descends to are never joined. Groups are halved, along the targets without
    descendants among the targets, until each is below the limit.

    Args:
        wanted: the targets.
        evidence: variables that anything is known of.
        relevant: some variables with their ancestors.
        cells: of the tables over some variables, as far as a short search finds.
        limit: cells that one group may take.
        budget: cells that all groups together may take.
        probes: how many groups may be tried; beyond that, or beyond the budget, the targets stay
            together.

    Returns:
        The groups; a single one where none smaller was found.
    """
    above = {v: relevant({v}) for v in wanted}
    inner = {u for v in wanted for u in above[v] if u != v}
    known = relevant(set(evidence))
    waiting = [[v for v in wanted if v not in inner]]
    done: list[list[int]] = []
    while waiting:
        tips = waiting.pop()
        taken = cells(known.union(*(above[v] for v in tips)))
        probes -= 1
        if len(tips) == 1 or taken <= limit:
            done.append(tips)
            budget -= taken
        else:
            half = len(tips) // 2
            waiting += [tips[half:], tips[:half]]
        if probes < len(waiting) or budget < 0:
            return [list(wanted)]
    groups: list[list[int]] = []
    left = set(wanted)
    for tips in done:
        reached = known.union(*(above[v] for v in tips))
        group = [v for v in wanted if v in left and v in reached]
        left.difference_update(group)
        groups.append(group)
    return [group for group in groups if group]
