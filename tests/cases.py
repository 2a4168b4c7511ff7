"""One row for every public function and method: what to call it with, and what it promises. The laws run over it.

A new function gets one row; a function without one, and a row without its function, fail ``test_api.py``. The key of a
random function is not in its row: each test hands in a fresh one. Numbers are exact in bfloat16, and stay valid when
they shrink by some tenths, which is how the laws make a batch out of one example.
"""

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlab import estimators
from jaxlab.distributions import (
    Adapted,
    AdaptedEnumerable,
    AdaptedReparameterizable,
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Enumerable,
    Exponential,
    Gamma,
    Gumbel,
    Laplace,
    Logistic,
    MeanValued,
    MultivariateNormal,
    Normal,
    Poisson,
    Relaxable,
    Reparameterizable,
    Scored,
    from_distrax,
    from_numpyro,
)
from jaxlab.moments import Moments, MovingAverage


@dataclass(frozen=True, eq=False)
class Case:
    """One public function with example arguments and its promises.

    Arguments have names. Arrays, tuples of arrays and Python floats are data: the laws batch, differentiate and convert
    them. Everything else (counts, axes, flags, shapes) is part of the program. One field of an argument is written
    ``argument.field``. What is neither in ``exact`` nor in ``surrogate`` is promised a gradient of zero.
    """

    name: str  # the path below jaxlab: "gumbel.concrete", "distributions.Normal.mean"
    arguments: dict[str, Any] = field(default_factory=dict)  # all but the key
    exact: tuple[str, ...] = ()  # arguments whose gradient is the derivative of the value
    surrogate: tuple[str, ...] = ()  # arguments whose gradient is declared to be another one
    results: tuple[str, ...] = ("same",)  # dtype of each: "same" as the data, "wide" (float32 at least), "integer"
    wide: tuple[str, ...] = ()  # arguments that are never in fewer bits than float32
    extremes: tuple[dict[str, Any], ...] = ()  # arguments instead of those above: value and gradient stay finite
    compiled: bool = True  # by its definition (law 4); not so factories, and what is made of sizes alone
    function: Callable | None = None  # how to call it, where it takes or returns something that is not an array
    variant: str = ""  # tells the rows of one function apart

    @property
    def label(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @functools.cached_property
    def target(self) -> Callable:
        """The public function itself."""
        module, *path = self.name.split(".")
        return functools.reduce(getattr, path, importlib.import_module(f"jaxlab.{module}"))

    @functools.cached_property
    def random(self) -> bool:
        return "key" in inspect.signature(self.function or self.target).parameters

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        return {name: value for name, value in self.arguments.items() if is_data(value)}

    def call(self, key: jax.Array, data: dict[str, Any]) -> Any:
        """The result for this key (which only a random function sees) and this data."""
        arguments = {**self.arguments, **data, **({"key": key} if self.random else {})}
        return (self.function or self.target)(**arguments)


def is_data(value: Any) -> bool:
    return any(isinstance(leaf, (float, np.ndarray, np.generic, jax.Array)) for leaf in jax.tree.leaves(value))


def f32(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def each(name: str, *values: Any) -> tuple[dict[str, Any], ...]:
    """Extremes that differ from the example in one argument."""
    return tuple({name: value} for value in values)


# Arguments that many rows share.
LOGITS, VALUE, SCALE = f32(0.5, -1.0, 2.0), f32(1.5, -0.5, 0.25), f32(0.5, 1.0, 2.0)
SQUARE = f32([0.5, -1.0, 2.0], [1.5, 0.25, -0.5], [-2.0, 1.0, 0.75])
ROWS, CODES = SQUARE[:2], np.array([1, 0, 2])
HUGE, TIES, ONE_CATEGORY = f32(1e4, -1e4, 0.0), f32(0.0, 0.0, 0.0), f32(3.0)
CERTAIN, IMPOSSIBLE = f32(-1.0, np.inf, 0.0), f32(-np.inf, 1.0, -np.inf)
COLD = each("temperature", 1e-3)
EXTREME_LOGITS = each("logits", HUGE, TIES, ONE_CATEGORY, CERTAIN, IMPOSSIBLE)
EXTREME_SQUARES = each("logits", 1e4 * SQUARE, 0 * SQUARE, f32([3.0]))

GRADIENTS = (
    Case("gradients.first_order_only", {"x": LOGITS, "name": "row"}, exact=("x",), compiled=False),
    Case(
        "gradients.magic_box",
        {"log_prob": LOGITS},
        surrogate=("log_prob",),
        extremes=each("log_prob", f32(-np.inf, np.inf, -1e4)),
    ),
    Case(
        "gradients.straight_through",
        {"hard": np.round(LOGITS), "soft": LOGITS},
        surrogate=("soft",),
        extremes=each("soft", HUGE, f32(np.inf, -np.inf, np.nan)),
    ),
    Case("gradients.straight_through", {"hard": CODES, "soft": LOGITS}, surrogate=("soft",), variant="integer"),
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


def family(
    dist: Any, value: np.ndarray, *extremes: tuple[Any, np.ndarray], path: tuple[str, ...] = ("self",)
) -> tuple[Case, ...]:
    """The methods of one distribution; ``extremes`` are other (distribution, value).

    ``path`` has the parameters in which one draw is differentiable for a fixed key. In the others, the gradient of
    ``reparameterize`` is that of the distribution (the implicit one), and not of the sampler's arithmetic.
    """
    name, me = f"distributions.{type(dist).__name__}", {"self": dist}
    selves = each("self", *(dist for dist, _ in extremes))
    pairs = tuple({"self": dist, "value": value} for dist, value in extremes)
    rows = [
        Case(f"{name}.sample", me, extremes=selves),
        Case(f"{name}.log_prob", {**me, "value": value}, exact=("self", "value"), extremes=pairs),
        Case(f"{name}.mean", me, exact=("self",), extremes=selves),
    ]
    if hasattr(dist, "reparameterize"):
        rows.append(Case(f"{name}.reparameterize", me, exact=path, surrogate=("self",), extremes=selves))
    if hasattr(dist, "perturb"):
        soft = {**me, "perturbed": dist.logits + 0.25}
        ends = each("perturbed", 1e4 * dist.logits, 0 * dist.logits, np.where(np.arange(3) == 1, -np.inf, dist.logits))
        rows += [
            Case(f"{name}.perturb", me, exact=("self",), results=("wide",), extremes=selves),
            Case(f"{name}.harden", soft, wide=("perturbed",), extremes=ends),
            Case(
                f"{name}.soften",
                {**soft, "temperature": 0.5},
                exact=("perturbed", "temperature"),
                wide=("perturbed",),
                extremes=ends + COLD,
            ),
        ]
    if hasattr(dist, "support"):
        rows.append(Case(f"{name}.support", me, compiled=False))
    return tuple(rows)


NARROW, MIXED = f32(1e-3, 1e-3, 1e-3), f32(1e-3, 1e4, 1.0)
TRIANGLE = f32([2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-1.0, 0.25, 0.5])
MULTIVARIATE, CATEGORY = MultivariateNormal(LOGITS, TRIANGLE), Categorical(ROWS)
POINT, SIMPLEX, BITS, COUNTS = f32(0.5, 0.25, 0.75), f32(0.5, 0.25, 0.25), f32(1.0, 0.0, 1.0), f32(0.0, 3.0, 1.0)
SECOND, ONE_HOT = f32(0.0, 1.0, 0.0), f32([0.0, 1.0, 0.0], [1.0, 0.0, 0.0])
EXTREME_CATEGORIES = (
    *((Categorical(1e4 * ROWS), ONE_HOT), (Categorical(0 * ROWS), ONE_HOT), (Categorical(ONE_CATEGORY), f32(1.0))),
    *((Categorical(CERTAIN), SECOND), (Categorical(IMPOSSIBLE), SECOND)),
)

DISTRIBUTIONS = (
    *family(Normal(LOGITS, SCALE), VALUE, (Normal(HUGE, SCALE), VALUE), (Normal(VALUE, NARROW), VALUE)),
    *family(MULTIVARIATE, VALUE, (MultivariateNormal(HUGE, TRIANGLE), VALUE), (MULTIVARIATE, LOGITS)),
    *family(Logistic(LOGITS, SCALE), VALUE, (Logistic(HUGE, SCALE), VALUE), (Logistic(VALUE, NARROW), VALUE)),
    *family(Gumbel(LOGITS, SCALE), VALUE, (Gumbel(-abs(HUGE), SCALE), VALUE), (Gumbel(VALUE, NARROW), VALUE)),
    *family(Laplace(LOGITS, SCALE), VALUE, (Laplace(HUGE, SCALE), VALUE), (Laplace(VALUE, NARROW), VALUE)),
    *family(Exponential(SCALE), POINT, (Exponential(MIXED), f32(1e4, 0.0, 1e-3))),
    *family(
        Gamma(SCALE, POINT),
        POINT,
        (Gamma(MIXED, POINT), POINT),
        (Gamma(SCALE, MIXED), f32(1e4, 1e-30, 1.0)),
        path=("self.rate",),
    ),
    *family(Beta(SCALE, POINT), POINT, (Beta(MIXED, MIXED), f32(1e-30, 0.5, 0.999)), path=()),
    *family(Dirichlet(SCALE), SIMPLEX, (Dirichlet(MIXED), SIMPLEX), (Dirichlet(ONE_CATEGORY), f32(1.0)), path=()),
    *family(Bernoulli(LOGITS), BITS, *((Bernoulli(logits), BITS) for logits in (HUGE, -HUGE, TIES, CERTAIN))),
    *family(CATEGORY, ONE_HOT, *EXTREME_CATEGORIES),
    *family(Poisson(SCALE), COUNTS, (Poisson(MIXED), COUNTS)),
    Case(
        "distributions.Categorical.log_probabilities",
        {"self": CATEGORY},
        exact=("self",),
        results=("wide",),
        extremes=each("self", *(dist for dist, _ in EXTREME_CATEGORIES)),
    ),
)


def made(path: str, *parameters: Any) -> Any:
    """A distribution of another library, which is read when it is first needed, without its warnings about itself."""
    library, _, family = path.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(library), family)(*parameters)


def adapted(name: str, function: Callable, *data: str, results: tuple[str, ...] = ("wide",), exact=()) -> Case:
    """A row that makes its distribution itself: gradients are for that one's parameters. Dtypes are its library's."""
    arguments = {
        name: {"logits": ROWS, "loc": LOGITS, "scale": SCALE, "value": VALUE, "codes": CODES[:2]}[name] for name in data
    }
    promises = {"exact": exact, "results": results, "wide": data, "compiled": False}
    return Case(f"distributions.{name}", arguments, function=function, **promises)


def numpyro_path(loc, scale):
    return AdaptedReparameterizable(made("numpyro.distributions.Normal", loc, scale))


def numpyro_codes(adapter, logits):
    return adapter(made("numpyro.distributions.CategoricalLogits", logits))


TWO, ALL = ("loc", "scale"), ("loc", "scale", "value")
INTEGER = ("integer",)
ADAPTED = (
    adapted(
        "from_distrax",
        lambda loc, scale, value: from_distrax(made("distrax.Normal", loc, scale)).log_prob(value),
        *ALL,
        exact=ALL,
    ),
    adapted(
        "from_numpyro",
        lambda key, loc, scale: from_numpyro(made("numpyro.distributions.Normal", loc, scale)).reparameterize(key),
        *TWO,
        exact=TWO,
    ),
    adapted(
        "Adapted.sample", lambda key, logits: numpyro_codes(Adapted, logits).sample(key), "logits", results=INTEGER
    ),
    adapted(
        "Adapted.log_prob",
        lambda logits, codes: numpyro_codes(Adapted, logits).log_prob(codes),
        "logits",
        "codes",
        exact=("logits",),
    ),
    adapted("AdaptedReparameterizable.sample", lambda key, loc, scale: numpyro_path(loc, scale).sample(key), *TWO),
    adapted(
        "AdaptedReparameterizable.log_prob",
        lambda loc, scale, value: numpyro_path(loc, scale).log_prob(value),
        *ALL,
        exact=ALL,
    ),
    adapted(
        "AdaptedReparameterizable.reparameterize",
        lambda key, loc, scale: numpyro_path(loc, scale).reparameterize(key),
        *TWO,
        exact=TWO,
    ),
    adapted(
        "AdaptedEnumerable.sample",
        lambda key, logits: numpyro_codes(AdaptedEnumerable, logits).sample(key),
        "logits",
        results=INTEGER,
    ),
    adapted(
        "AdaptedEnumerable.log_prob",
        lambda logits, codes: numpyro_codes(AdaptedEnumerable, logits).log_prob(codes),
        "logits",
        "codes",
        exact=("logits",),
    ),
    adapted(
        "AdaptedEnumerable.support",
        lambda logits: numpyro_codes(AdaptedEnumerable, logits).support(),
        "logits",
        results=INTEGER,
    ),
)

# Every estimator with distributions that need not be capable of more. (How good they are: ``test_estimators.py``.)
REPRESENTATIVES = {
    Scored: (Normal(LOGITS, SCALE),),
    Reparameterizable: (Normal(LOGITS, SCALE),),
    MeanValued: (Bernoulli(LOGITS),),
    Relaxable: (Bernoulli(LOGITS), CATEGORY),
    Enumerable: (CATEGORY,),
}
HARDEST = {Bernoulli: Bernoulli(HUGE), Categorical: Categorical(1e4 * ROWS), Normal: Normal(HUGE, NARROW)}
OPTIONS = {"temperature": 0.5, "baseline": 0.25, "decay": 0.75, "num_samples": 3}
PATHWISE = {"exact", "gumbel_softmax", "reparameterized"}  # their value is a differentiable function of all data


def estimator_case(row: estimators.Estimator, dist: Any) -> Case:
    """The estimator of E sum(sin(weights * x)), with gradients for the distribution's parameters and the weights."""

    def estimate(key, dist, weights, **options):
        state = [row.initial_state()] if row.initial_state else []
        return row.estimate(key, dist, lambda draw: jnp.sum(jnp.sin(weights * draw)), *state, **options)

    parameters = inspect.signature(row.estimate).parameters
    options = {name: value for name, value in OPTIONS.items() if name in parameters}
    weights = f32(0.5, -1.0, 1.5) * np.ones_like(dist[0])
    # The weights have their own gradient; but the state that comes back with a value does not pass it on.
    own = () if row.initial_state else ("weights",)
    return Case(
        f"estimators.{row.name}",
        {"dist": dist, "weights": weights, **options},
        exact=("dist", "weights", "temperature") if row.name in PATHWISE else own,
        surrogate=() if row.name in PATHWISE else ("dist", "weights", "temperature", "decay"),
        results=("same", "wide", "wide") if row.initial_state else ("same",),
        extremes=each("dist", HARDEST[type(dist)]) + (COLD if "temperature" in options else ()),
        compiled=False,
        function=estimate,
        variant=type(dist).__name__,
    )


ESTIMATORS = tuple(
    estimator_case(row, dist) for row in estimators.ESTIMATORS.values() for dist in REPRESENTATIVES[row.needs]
)

CASES = (*GRADIENTS, *GUMBEL, *MOMENTS, *DISTRIBUTIONS, *ADAPTED, *ESTIMATORS)
