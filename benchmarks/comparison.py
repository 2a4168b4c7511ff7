"""Two functions timed in turn: the ratio of their times, from which the machine's own speed cancels."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Comparison:
    """Two functions of no arguments that compute the same, compiled; and what their ratio should be at most."""

    name: str
    ours: Callable[[], Any]
    other: Callable[[], Any]
    aim: float
    seconds: float = 0.05
    """Roughly how long one run takes: slow ones get fewer rounds."""


def seconds(function: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, its results included."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def measure(comparison: Comparison, rounds: int) -> dict[str, Any]:
    """Times the two in turn; the ratios of neighbours, so that a slow moment hits both."""
    slow = comparison.seconds >= 5
    rounds = 3 if slow else max(5, round(rounds * min(1, 0.2 / comparison.seconds)))
    for function in (comparison.ours, comparison.other) * (1 if slow else 3):
        seconds(function)
    pairs = []
    for i in range(rounds):
        # Whoever comes second finds warm caches: take turns.
        first, second = (comparison.ours, comparison.other) if i % 2 == 0 else (comparison.other, comparison.ours)
        times = (seconds(first), seconds(second))
        pairs.append(times if i % 2 == 0 else times[::-1])
    ours, other = np.array(pairs).T
    quartiles = np.quantile(ours / other, [0.25, 0.5, 0.75])
    return {
        "name": comparison.name,
        "ratio": float(quartiles[1]),
        "quartiles": [float(quartiles[0]), float(quartiles[2])],
        "aim": comparison.aim,
        "milliseconds": float(np.median(ours) * 1e3),
        "milliseconds_other": float(np.median(other) * 1e3),
    }
