"""Rows of ``jaxlab.smooth``."""

import functools
from typing import Any

import numpy as np

from cases.case import COLD, HUGE, ONE_CATEGORY, ONE_UP, SQUARE, TIES, TWO_UP, VALUE, Case, each, f32
from jaxlab import smooth

X = f32(0.5, -1.0, 2.0, 0.25)
ALL_MASKED = {"x": f32(-np.inf, 1.0), "where": np.zeros(2, bool)}
PARTLY_MASKED = {"x": f32(-np.inf, 1.0, 2.0), "where": np.array([False, True, True])}
HOT = each("temperature", 1e6)
EXTREME = (*each("x", HUGE, TIES, ONE_CATEGORY), *COLD, *HOT, {"x": TIES, "temperature": 1e-6})
MASKS = (PARTLY_MASKED, ALL_MASKED)
# What they take away from the axis along which they go, or add to it.
WITHOUT = ("maximum", "minimum", "mellowmax", "boltzmann", "argmax", "threshold", "quantile", "median", "trimmed_mean")
TWICE = ("soft_sort", "neural_sort", "sinkhorn_sort")


def of_any_batch(name: str, at_least_two: bool = False) -> dict[str, Any]:
    """The axes of a function along the last one."""
    returned = "*batch" + ("" if name in WITHOUT else " k k" if name in TWICE else " k")
    return {"axes": {"x": "*batch k"}, "returned": (returned,), "sizes": {"k": TWO_UP if at_least_two else ONE_UP}}


def elementwise(name: str, **more: Any) -> Case:
    arguments = {"x": VALUE, **more, "temperature": 0.5}
    extremes = tuple(extreme for extreme in EXTREME if extreme.get("x") is not ONE_CATEGORY)
    return Case(f"smooth.{name}", arguments, exact=tuple(arguments), extremes=extremes)


def along(name: str, masks: tuple = MASKS, results: str = "same", **options: Any) -> Case:
    """A function along an axis; where nothing is valid its value may be infinite."""
    arguments = {"x": X, "temperature": 0.5, **options}
    # Two of them cannot be the largest of one.
    one = ONE_CATEGORY if "k" in options else None
    extremes = tuple(extreme for extreme in EXTREME + masks if one is None or extreme.get("x") is not one)
    return Case(
        f"smooth.{name}",
        arguments,
        exact=("x", "temperature", "q"),
        results=(results,),
        extremes=extremes,
        **of_any_batch(name, "k" in options),
    )


def hard(name: str, results: str = "same", **options: Any) -> Case:
    """Its gradient is zero, or that of the hard function."""
    exact = ("x",) if name in ("maximum", "minimum", "mellowmax", "boltzmann", "sort", "median", "quantile") else ()
    arguments = {"x": f32(0.5, -1.0, 2.0, 0.25, 4.0), **options}
    # The number 0 is part of the program: in the closure, and not a float of the row.
    call = functools.partial(getattr(smooth, name), temperature=0)
    return Case(
        f"smooth.{name}",
        arguments,
        exact=exact,
        results=(results,),
        function=call,
        variant="hard",
        extremes=MASKS,
        **of_any_batch(name, "k" in options),
    )


PAIRS = f32([0.5, 1.0, 0.25], [2.0, 0.0, 1.5])
ROWS, COLUMNS = np.array([True, False]), np.array([True, True, False])

SMOOTH = (
    *(elementwise(name) for name in ("step", "sign", "relu", "square_plus", "gated_relu", "absolute", "floor")),
    elementwise("round"),
    elementwise("clip", minimum=-0.25, maximum=1.0),
    elementwise("equal", y=f32(1.0, -0.5, 0.0)),
    Case("smooth.logical_and", {"p": f32(0.25, 1.0), "q": f32(0.5, 0.0)}, exact=("p", "q")),
    Case("smooth.logical_or", {"p": f32(0.25, 1.0), "q": f32(0.5, 0.0)}, exact=("p", "q")),
    Case("smooth.logical_not", {"p": f32(0.25, 1.0)}, exact=("p",)),
    Case("smooth.where", {"p": f32(0.25, 1.0), "x": f32(2.0, 3.0), "y": f32(-1.0, 4.0)}, exact=("p", "x", "y")),
    *(along(name) for name in ("maximum", "minimum", "mellowmax", "boltzmann", "one_hot_argmax")),
    along("argmax", results="wide"),
    along("sparsemax"),
    along("entmax"),
    along("top_k_mask", k=2),
    along("threshold", k=2, results="wide"),
    Case(
        "smooth.threshold",
        {"x": X, "k": 1.5, "temperature": 0.5},
        ("x", "k", "temperature"),
        (),
        ("wide",),
        variant="traced",
        **of_any_batch("threshold", at_least_two=True),
    ),
    along("quantile", q=0.25),
    along("median"),
    along("trimmed_mean", proportion=0.25),
    along("grad_top_k", k=2, masks=MASKS),
    along("iterative_top_k", k=2),
    Case(
        "smooth.isotonic",
        {"y": X, "weights": f32(1.0, 0.5, 2.0, 1.0)},
        exact=("y", "weights"),
        extremes=(
            {"y": HUGE, "weights": f32(1, 1, 1)},
            {"y": TIES, "weights": f32(1, 1, 1)},
            {"y": ONE_CATEGORY, "weights": f32(1)},
            {"y": f32(-np.inf, 1.0), "weights": f32(1, 1), "where": np.zeros(2, bool)},
        ),
        axes={"y": "*batch k", "weights": "*batch k"},
        returned=("*batch k",),
        sizes={"k": ONE_UP},
    ),
    along("rank", results="wide"),
    along("sort"),
    Case(
        "smooth.spearman",
        {"x": X, "y": f32(1.0, 2.0, 4.0, 3.0), "temperature": 0.5},
        ("x", "temperature"),
        (),
        ("wide",),
        extremes=({"x": 0 * X}, {"y": 0 * X}, {"x": 1e4 * X}, *COLD, *HOT),
        axes={"x": "*batch k", "y": "*batch k"},
        returned=("*batch",),
        sizes={"k": TWO_UP},
    ),
    along("pairwise_rank", results="wide", chunk_size=2),
    along("soft_sort"),
    along("neural_sort"),
    along("sinkhorn_sort", num_iterations=5),
    *(
        Case(
            f"smooth.{name}",
            {argument: PAIRS, "temperature": 0.5},
            exact=(argument, "temperature"),
            extremes=(
                *COLD,
                *HOT,
                *each(argument, 1e4 * PAIRS, 0 * PAIRS, PAIRS[:1, :1]),
                {argument: PAIRS, "where_rows": ROWS, "where_columns": COLUMNS},
                {argument: PAIRS, "where_rows": ~ROWS & ROWS, "where_columns": ~COLUMNS & COLUMNS},
            ),
            sizes=dict.fromkeys("nm", ONE_UP),
        )
        for name, argument in (("dtw", "cost"), ("edit_distance", "substitution"))
    ),
    Case(
        "smooth.longest_common_subsequence",
        {"match": PAIRS, "temperature": 0.5},
        ("match", "temperature"),
        extremes=(*COLD, *HOT),
    ),
    Case(
        "smooth.dtw_divergence",
        {"x": SQUARE[:2], "y": SQUARE[1:], "temperature": 0.5},
        ("x", "y", "temperature"),
        extremes=(*COLD, *HOT, {"y": SQUARE[:2]}),
        sizes=dict.fromkeys("nm", ONE_UP),
    ),
    *(hard(name) for name in ("maximum", "minimum", "mellowmax", "boltzmann", "one_hot_argmax", "sparsemax", "entmax")),
    hard("argmax", "wide"),
    hard("top_k_mask", k=2),
    hard("median"),
    hard("rank", "wide"),
    hard("sort"),
)
