"""Rows of ``jaxlab.moments``."""

from typing import Any

import numpy as np

from cases.case import SQUARE, Case, each, f32
from jaxlab.moments import Moments, MovingAverage


def state(name: str, arguments: dict[str, Any], *results: str, **promises: Any) -> Case:
    """A row of a method of a state, which is in float32 at least, and exact in all that is data."""
    wide = tuple(name for name in arguments if name != "value")
    return Case(f"moments.{name}", arguments, tuple(arguments), results=results or ("wide",), wide=wide, **promises)


FEW = Moments(np.array(3, np.int32), f32(1.0, -2.0), f32(4.0, 0.5))
MORE = Moments(np.array(5, np.int32), f32(0.5, 3.0), f32(2.0, 8.0))
NONE = Moments(np.array(0, np.int32), f32(0.0, 0.0), f32(0.0, 0.0))
AVERAGE, NO_AVERAGE = MovingAverage(f32(1.5, -0.5), np.float32(0.75)), MovingAverage(f32(0.0, 0.0), np.float32(0.0))
THREE = ("integer", "wide", "wide")

MOMENTS = (
    Case(
        "moments.moments_of",
        {"samples": SQUARE},
        exact=("samples",),
        results=THREE,
        extremes=each("samples", 0 * SQUARE + 1e4, SQUARE[:1], SQUARE[:0]),
    ),
    state(
        "Moments.merge",
        {"self": FEW, "other": MORE},
        *THREE,
        extremes=({"self": NONE}, {"other": NONE}, {"self": NONE, "other": NONE}),
    ),
    state("Moments.variance", {"self": FEW}),
    state("Moments.variance", {"self": FEW, "unbiased": False}, variant="biased"),
    state("Moments.standard_error", {"self": FEW}),
    state("Moments.z_score", {"self": FEW, "expected": f32(0.5, 1.0)}),
    Case("moments.moving_average", {"shape": (2,)}, results=("wide", "wide"), compiled=False),
    state("MovingAverage.mean", {"self": AVERAGE}, extremes=each("self", NO_AVERAGE)),
    state(
        "MovingAverage.update",
        {"self": AVERAGE, "value": f32(2.0, -1.0), "decay": 0.9},
        *("wide", "wide"),
        extremes=({"self": NO_AVERAGE, "decay": 0.0},),
    ),
)
