"""Rows of ``jaxlab.gradients``."""

import numpy as np

from cases.case import CODES, HUGE, LOGITS, SQUARE, VALUE, Case, each, f32

ANY = {"hard": "*shape", "soft": "*shape"}

GRADIENTS = (
    Case(
        "gradients.first_order_only",
        {"x": LOGITS, "name": "row"},
        exact=("x",),
        compiled=False,
        axes={"x": "*shape"},
        returned=("*shape",),
    ),
    Case(
        "gradients.magic_box",
        {"log_prob": LOGITS},
        surrogate=("log_prob",),
        extremes=each("log_prob", f32(-np.inf, np.inf, -1e4)),
        axes={"log_prob": "*shape"},
        returned=("*shape",),
    ),
    Case(
        "gradients.straight_through",
        {"hard": np.round(LOGITS), "soft": LOGITS},
        surrogate=("soft",),
        extremes=each("soft", HUGE, f32(np.inf, -np.inf, np.nan)),
        axes=ANY,
        returned=("*shape",),
    ),
    Case(
        "gradients.straight_through",
        {"hard": CODES, "soft": LOGITS},
        surrogate=("soft",),
        variant="integer",
        axes=ANY,
        returned=("*shape",),
    ),
    Case(
        "gradients.with_gradient",
        {"value": np.float32(0.5), "x": LOGITS, "gradient": VALUE, "name": "row"},
        exact=("value",),
        surrogate=("x",),
        compiled=False,
    ),
    Case(
        "gradients.rotation_trick",
        {"hard": np.round(SQUARE), "soft": SQUARE},
        surrogate=("soft",),
        extremes=({"soft": 0 * SQUARE}, {"soft": 1e4 * SQUARE}, {"hard": 0 * SQUARE}, {"hard": -SQUARE}),
    ),
    Case(
        "gradients.diveq",
        {"hard": np.round(SQUARE), "soft": SQUARE, "noise": 0.25},
        surrogate=("hard", "soft", "noise"),
        extremes=({"soft": np.round(SQUARE)}, {"soft": 1e4 * SQUARE}, {"noise": 0.0}),
    ),
)
