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
    LAST,
    LOGITS,
    ONE_UP,
    SQUARE,
    TIES,
    TWO_UP,
    Case,
    each,
    f32,
)


def concrete(name: str) -> Case:
    arguments = {"logits": LOGITS, "temperature": 0.5}
    along = {} if "binary" in name else {"axes": {"logits": "*batch k"}, **LAST}
    return Case(name, arguments, exact=("logits", "temperature"), extremes=EXTREME_LOGITS + COLD, **along)


GUMBEL = (
    Case("gumbel.perturb", {"logits": LOGITS}, exact=("logits",), results=("wide",), extremes=EXTREME_LOGITS),
    Case("gumbel.perturb_binary", {"logits": LOGITS}, exact=("logits",), results=("wide",), extremes=EXTREME_LOGITS),
    Case(
        "gumbel.gumbel_max",
        {"logits": SQUARE, "axis": 0},
        results=("integer",),
        extremes=EXTREME_SQUARES,
        axes={"logits": "k *batch"},
        returned=("*batch",),
        sizes={"k": ONE_UP},
    ),
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
        sizes={"k": ONE_UP},
        below={"codes": "k"},
    ),
    Case(
        "gumbel.gumbel_top_k",
        {"logits": LOGITS, "num_samples": 2},
        exact=("logits",),
        results=("integer", "same", "wide"),
        extremes=each("logits", HUGE, TIES, CERTAIN, IMPOSSIBLE),
        returned=("*batch 2",) * 3,
        sizes={"k": TWO_UP},
    ),
    Case("gumbel.log_sinkhorn", {"logits": SQUARE, "num_iterations": 5}, exact=("logits",), extremes=EXTREME_SQUARES),
    Case(
        "gumbel.gumbel_sinkhorn",
        {"logits": SQUARE, "temperature": 0.5, "num_iterations": 5},
        exact=("logits", "temperature"),
        extremes=EXTREME_SQUARES + COLD,
    ),
)
