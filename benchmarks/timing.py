"""Calls timed in turn, so that what else the machine does falls on all of them."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def timed(calls: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict]:
    """Medians in seconds, calls in turn, and what they answer."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    answers = {}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            answers[name] = call()
            if turn:  # the first warms up
                spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in spent.items()}, answers
