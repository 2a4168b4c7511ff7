"""Rows of ``jaxlab.moments``."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases.case import FOUR_UP, ONE_UP, SQUARE, THREE_UP, TWO_UP, VALUE, Case, each, f32
from jaxlab import moments
from jaxlab.moments import CentralMoments, CoMoments, Moments, MovingAverage


def state(name: str, arguments: dict[str, Any], *results: str, **promises: Any) -> Case:
    """A row of a method of a state, which is in float32 at least, and exact in all that is data."""
    wide = tuple(name for name in arguments if name != "value")
    return Case(f"moments.{name}", arguments, tuple(arguments), results=results or ("wide",), wide=wide, **promises)


FEW = Moments(np.array(3, np.int32), f32(1.0, -2.0), f32(4.0, 0.5))
MORE = Moments(np.array(5, np.int32), f32(0.5, 3.0), f32(2.0, 8.0))
NONE = Moments(np.array(0, np.int32), f32(0.0, 0.0), f32(0.0, 0.0))
AVERAGE, NO_AVERAGE = MovingAverage(f32(1.5, -0.5), np.float32(0.75)), MovingAverage(f32(0.0, 0.0), np.float32(0.0))
THREE = ("integer", "wide", "wide")

HIGHER = CentralMoments(np.array(3, np.int32), f32(1.0, -2.0), f32(4.0, 0.5), f32(1.0, -0.5), f32(6.0, 0.25))
MORE_HIGHER = CentralMoments(np.array(5, np.int32), f32(0.5, 3.0), f32(2.0, 8.0), f32(-1.0, 2.0), f32(3.0, 9.0))
PRODUCTS = CoMoments(np.array(3, np.int32), f32(1.0, -2.0), f32([2.0, 0.5], [0.5, 1.0]))
MORE_PRODUCTS = CoMoments(np.array(5, np.int32), f32(0.5, 3.0), f32([4.0, 1.0], [1.0, 2.0]))
FIVE = f32([0.5, -1.0], [1.5, 0.25], [-2.0, 1.0], [0.75, 2.0], [3.0, -0.5])
OTHER_FIVE = f32([1.0, 0.5, 2.0], [-1.0, 0.25, 0.0], [0.5, 1.5, 1.0], [2.0, -2.0, 0.5], [0.0, 1.0, -1.0])


# Samples that they need to be unbiased, where these are not two.
FEWEST = {"third_cumulant": THREE_UP, "skewness": THREE_UP, "fourth_cumulant": FOUR_UP, "kurtosis": FOUR_UP}
FEWEST |= {"hsic": FOUR_UP, "centered_kernel_alignment": FOUR_UP, "jackknife": THREE_UP, "v_statistic": ONE_UP}


def statistic(name: str, **options: Any) -> Case:
    extremes = each("samples", 0 * FIVE + 1e4, 1e3 * FIVE)
    variant = "biased" if options else ""
    arguments = {"samples": FIVE, **options}
    sizes = {"n": ONE_UP if options else FEWEST.get(name, TWO_UP)}
    return Case(
        f"moments.{name}", arguments, ("samples",), results=("wide",), extremes=extremes, variant=variant, sizes=sizes
    )


def pair(name: str, left: Any, right: Any, exact: tuple[str, ...] = ("x", "y"), **options: Any) -> Case:
    extremes = ({"x": 0 * left, "y": 0 * right},)
    variant = "biased" if options else ""
    arguments = {"x": left, "y": right, **options}
    sizes = dict.fromkeys("nm", ONE_UP if options else FEWEST.get(name, TWO_UP))
    return Case(f"moments.{name}", arguments, exact, results=("wide",), extremes=extremes, variant=variant, sizes=sizes)


def transform(name: str, results: tuple[str, ...], function: Any) -> Case:
    """A transformation, called with a statistic and applied to samples."""
    return Case(
        f"moments.{name}",
        {"samples": VALUE},
        ("samples",),
        results=results,
        function=function,
        compiled=False,
        axes={"samples": "n"},
        returned=(*("",) * 3, "2", "2")[: len(results)],
        sizes={"n": FEWEST.get(name, TWO_UP)},
    )


BIASED = {"unbiased": False}
STATISTICS = (
    "variance",
    "standard_deviation",
    "covariance",
    "third_cumulant",
    "fourth_cumulant",
    "skewness",
    "kurtosis",
)

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
    Case(
        "moments.central_moments_of",
        {"samples": SQUARE},
        exact=("samples",),
        results=("integer", *("wide",) * 4),
        extremes=each("samples", 0 * SQUARE + 1e4, SQUARE[:1], SQUARE[:0]),
    ),
    state("CentralMoments.merge", {"self": HIGHER, "other": MORE_HIGHER}, "integer", *("wide",) * 4),
    Case(
        "moments.co_moments_of",
        {"samples": SQUARE},
        ("samples",),
        results=THREE,
        extremes=each("samples", 0 * SQUARE + 1e4, SQUARE[:1], SQUARE[:0]),
    ),
    state("CoMoments.merge", {"self": PRODUCTS, "other": MORE_PRODUCTS}, *THREE),
    state("CoMoments.covariance", {"self": PRODUCTS}),
    Case(
        "moments.mean",
        {"samples": FIVE, "weights": f32(1.0, 2.0, 0.5, 0.0, 1.0)},
        ("samples", "weights"),
        results=("wide",),
        sizes={"n": ONE_UP},
    ),
    *(statistic(name) for name in STATISTICS),
    *(statistic(name, **BIASED) for name in STATISTICS),
    Case("moments.gaussian_kernel", {"x": VALUE, "y": f32(1.0, 0.0, 0.5), "bandwidth": 2.0}, ("x", "y", "bandwidth")),
    Case("moments.linear_kernel", {"x": VALUE, "y": f32(1.0, 0.0, 0.5)}, ("x", "y")),
    pair("mmd", FIVE, 2 * FIVE[:3]),
    pair("mmd", FIVE, 2 * FIVE[:3], **BIASED),
    pair("hsic", FIVE, OTHER_FIVE),
    pair("hsic", FIVE, OTHER_FIVE, **BIASED),
    pair("centered_kernel_alignment", FIVE, OTHER_FIVE),
    pair("centered_kernel_alignment", FIVE, OTHER_FIVE, **BIASED),
    pair("energy_distance", FIVE, OTHER_FIVE[:, :2]),
    pair("kendall", FIVE[:, 0], OTHER_FIVE[:, 0], ()),
    Case("moments.gini", {"samples": f32(0.5, 1.0, 4.0, 2.0)}, ("samples",), results=("wide",), sizes={"n": TWO_UP}),
    Case(
        "moments.ledoit_wolf",
        {"samples": FIVE},
        ("samples",),
        results=("wide", "wide"),
        extremes=each("samples", 0 * FIVE),
        sizes={"n": ONE_UP},
    ),
    Case(
        "moments.oracle_approximating",
        {"samples": FIVE},
        ("samples",),
        results=("wide", "wide"),
        extremes=each("samples", 0 * FIVE),
        sizes={"n": ONE_UP},
    ),
    transform("u_statistic", ("same",), lambda samples: moments.u_statistic(lambda x, y: x * y**2)(samples)),
    transform("v_statistic", ("same",), lambda samples: moments.v_statistic(lambda x, y: x * y**2)(samples)),
    transform("jackknife", ("wide",) * 3, lambda samples: moments.jackknife(moments.variance)(samples)),
    transform("delta", ("wide",) * 3, lambda samples: moments.delta(jnp.sin)(samples)),
    transform(
        "bootstrap", ("wide",) * 5, lambda key, samples: moments.bootstrap(moments.mean, num_resamples=16)(key, samples)
    ),
    Case(
        "moments.multilevel",
        {"loc": 0.5},
        ("loc",),
        results=("wide",),
        compiled=False,
        function=lambda key, loc: moments.multilevel(jnp.sin, max_level=2)(
            key, lambda key: loc + jax.random.normal(key)
        ),
    ),
    Case(
        "moments.log_mean_exp",
        {"log_weights": f32(0.5, -1.0, 2.0)},
        ("log_weights",),
        results=("same",) * 3,
        extremes=each("log_weights", f32(1e4, -1e4, 0.0), f32(0.0, 0.0, 0.0)),
        sizes={"n": TWO_UP},
    ),
)
