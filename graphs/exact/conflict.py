"""Why evidence is impossible: a smallest part of it that already is."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def minimal_conflict(items: Sequence[Item], possible: Callable[[list[Item]], bool]) -> list[Item]:
    """An inclusion-minimal subset that is not possible: without any one of them it is.

    Deletes items while the rest stays impossible, halves before single ones (QuickXplain, Junker
    2004), so that a conflict of k among n items takes about k log n questions.

    Args:
        items: the whole of them is not possible.
        possible: whether some of the items are; more items are never more possible.
    """
    if not possible([]):
        return []
    return _needed([], list(items), possible, changed=False)


def _needed(
    background: list[Item],
    items: list[Item],
    possible: Callable[[list[Item]], bool],
    changed: bool,
) -> list[Item]:
    """A smallest part of the items that is impossible together with the background."""
    if changed and not possible(background):
        return []
    if len(items) == 1:
        return items
    half = len(items) // 2
    first, second = items[:half], items[half:]
    from_second = _needed(background + first, second, possible, changed=bool(first))
    from_first = _needed(background + from_second, first, possible, changed=bool(from_second))
    return from_first + from_second
