"""Rows of ``jaxlab.gumbel``."""

import numpy as np

from cases.case import (
    CERTAIN,
    CODES,
    COLD,
    EXTREME_LOGITS,
    EXTREME_SQUARES,
    HUGE,
    IMPOSSIBLE,
    LOGITS,
    SQUARE,
    TIES,
    Case,
    each,
    f32,
)


def concrete(name: str) -> Case:
    arguments = {"logits": LOGITS, "temperature": 0.5}
    return Case(name, arguments, exact=("logits", "temperature"), extremes=EXTREME_LOGITS + COLD)


GUMBEL = (
    Case("gumbel.perturb", {"logits": LOGITS}, exact=("logits",), results=("wide",), extremes=EXTREME_LOGITS),
    Case("gumbel.perturb_binary", {"logits": LOGITS}, exact=("logits",), results=("wide",), extremes=EXTREME_LOGITS),
    Case("gumbel.gumbel_max", {"logits": SQUARE, "axis": 0}, results=("integer",), extremes=EXTREME_SQUARES),
    concrete("gumbel.log_concrete"),
    concrete("gumbel.concrete"),
    concrete("gumbel.binary_concrete"),
    Case(
        "gumbel.conditional_gumbel",
        {"logits": SQUARE, "codes": CODES},
        exact=("logits",),
        results=("wide",),
        extremes=(
            {"logits": np.stack([TIES, HUGE, CERTAIN]), "codes": np.array([0, 1, 1])},
            {"logits": np.stack([IMPOSSIBLE, -HUGE, HUGE])},
            {"logits": f32([3.0]), "codes": np.array([0])},
        ),
    ),
    Case(
        "gumbel.gumbel_top_k",
        {"logits": LOGITS, "num_samples": 2},
        exact=("logits",),
        results=("integer", "same", "wide"),
        extremes=each("logits", HUGE, TIES, CERTAIN, IMPOSSIBLE),
    ),
    Case("gumbel.log_sinkhorn", {"logits": SQUARE, "num_iterations": 5}, exact=("logits",), extremes=EXTREME_SQUARES),
    Case(
        "gumbel.gumbel_sinkhorn",
        {"logits": SQUARE, "temperature": 0.5, "num_iterations": 5},
        exact=("logits", "temperature"),
        extremes=EXTREME_SQUARES + COLD,
    ),
)
