"""Rows of ``jaxlab.distributions``, but for the adapters."""

import dataclasses
from typing import Any

import jax
import numpy as np

from cases.case import (
    CERTAIN,
    COLD,
    HUGE,
    IMPOSSIBLE,
    LOGITS,
    ONE_CATEGORY,
    ONE_UP,
    ROWS,
    SCALE,
    TIES,
    VALUE,
    Case,
    each,
    f32,
)
from jaxlab.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Exponential,
    Gamma,
    Gumbel,
    Laplace,
    Logistic,
    MultivariateNormal,
    Normal,
    PlackettLuce,
    Poisson,
)


def num_neighbours(dist: Any) -> int:
    """How many values differ from one at one site."""
    rows, categories = dist.logits.size, 2
    if isinstance(dist, Categorical):
        categories = dist.logits.shape[-1]
        rows //= categories
    return rows * (categories - 1)


def sized(case: Case, dist: Any) -> Case:
    """The row of a method, with the axes that its annotations leave open, and sizes that it can have."""
    method, categorical = case.name.rpartition(".")[2], isinstance(dist, Categorical)
    axes = {"self.scale": "d d"} if isinstance(dist, MultivariateNormal) else {}
    sizes, returned = {"k": ONE_UP}, ()
    if method == "site_costs":  # of as many neighbours as there are bits, or rows of two categories
        axes = dict.fromkeys(("self", "value"), "m k" if categorical else "d")
        sizes = {"k": (2,)}
    elif method == "support":  # of not too many states
        sizes = {"*shape": (0, 1, 2), "k": (1, 2, 3)}
    elif method == "perturb_given_evenly":
        returned = ("4 *shape",)
    elif method == "weak_derivatives":
        returned = ("*shape",) * len(case.results)
    return dataclasses.replace(case, axes=axes, sizes=sizes, returned=returned)


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
    if hasattr(dist, "antithetic"):
        rows.append(Case(f"{name}.antithetic", {**me, "value": value}, exact=("self", "value"), extremes=pairs))
    if hasattr(dist, "weak_derivatives"):
        num_results = len(jax.tree.leaves(jax.eval_shape(dist.weak_derivatives, jax.random.key(0))))
        rows.append(Case(f"{name}.weak_derivatives", me, results=("same",) * num_results, extremes=selves))
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
    if hasattr(dist, "perturb_given_evenly"):
        rows.append(
            Case(
                f"{name}.perturb_given_evenly",
                {**me, "value": value, "num": 4},
                exact=("self",),
                results=("wide",),
                extremes=pairs,
            )
        )
    if hasattr(dist, "neighbours"):
        costs = np.resize(f32(0.5, -1.25, 2.0), num_neighbours(dist))
        rows += [
            Case(f"{name}.perturb_given", {**me, "value": value}, exact=("self",), results=("wide",), extremes=pairs),
            Case(
                f"{name}.condition",
                {**me, "perturbed": dist.logits + 0.25},
                surrogate=("self",),
                wide=("perturbed",),
                results=("wide",),
                extremes=ends,
            ),
            Case(
                f"{name}.neighbour_changes",
                {**me, "slope": dist.logits + 0.5, "value": value},
                exact=("slope", "value"),
            ),
            Case(f"{name}.neighbours", {**me, "value": value}, exact=("value",)),
            Case(
                f"{name}.neighbours",
                {**me, "value": value, "numbers": np.array([2, 0])},
                exact=("value",),
                variant="some",
            ),
            Case(
                f"{name}.site_costs",
                {**me, "cost": np.float32(0.5), "neighbour_costs": costs, "value": value},
                exact=("cost", "neighbour_costs", "value"),
            ),
            Case(
                f"{name}.covariance_product",
                {**me, "probabilities": abs(value) / 2, "direction": dist.logits},
                exact=("probabilities", "direction"),
            ),
        ]
    if hasattr(dist, "support"):
        rows.append(Case(f"{name}.support", me, compiled=False))
    return tuple(sized(row, dist) for row in rows)


NARROW, MIXED = f32(1e-3, 1e-3, 1e-3), f32(1e-3, 1e4, 1.0)
TRIANGLE = f32([2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-1.0, 0.25, 0.5])
MULTIVARIATE, CATEGORY = MultivariateNormal(LOGITS, TRIANGLE), Categorical(ROWS)
POINT, SIMPLEX, BITS, COUNTS = f32(0.5, 0.25, 0.75), f32(0.5, 0.25, 0.25), f32(1.0, 0.0, 1.0), f32(0.0, 3.0, 1.0)
SECOND, ONE_HOT = f32(0.0, 1.0, 0.0), f32([0.0, 1.0, 0.0], [1.0, 0.0, 0.0])
EXTREME_CATEGORIES = (
    *((Categorical(1e4 * ROWS), ONE_HOT), (Categorical(0 * ROWS), ONE_HOT), (Categorical(ONE_CATEGORY), f32(1.0))),
    *((Categorical(CERTAIN), SECOND), (Categorical(IMPOSSIBLE), SECOND)),
)

ORDER, PERMUTATION = PlackettLuce(LOGITS), f32([0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
ORDERS = each("self", PlackettLuce(HUGE), PlackettLuce(TIES), PlackettLuce(IMPOSSIBLE))

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
        sizes={"k": ONE_UP},
    ),
    Case("distributions.PlackettLuce.sample", {"self": ORDER}, extremes=ORDERS),
    Case(
        "distributions.PlackettLuce.log_prob",
        {"self": ORDER, "value": PERMUTATION},
        exact=("self", "value"),
        extremes=ORDERS,
    ),
    Case(
        "distributions.PlackettLuce.perturb", {"self": ORDER}, exact=("self",), results=("wide",), extremes=ORDERS[:2]
    ),
    Case(
        "distributions.PlackettLuce.harden",
        {"self": ORDER, "perturbed": LOGITS + 0.25},
        wide=("perturbed",),
        extremes=each("perturbed", HUGE, TIES),
    ),
    Case(
        "distributions.PlackettLuce.soften",
        {"self": ORDER, "perturbed": LOGITS + 0.25, "temperature": 0.5},
        exact=("perturbed", "temperature"),
        wide=("perturbed",),
        extremes=each("perturbed", HUGE, TIES, IMPOSSIBLE) + COLD,
    ),
    Case(
        "distributions.PlackettLuce.perturb_given",
        {"self": ORDER, "value": PERMUTATION},
        exact=("self",),
        results=("wide",),
        extremes=ORDERS,
    ),
    Case(
        "distributions.PlackettLuce.condition",
        {"self": ORDER, "perturbed": LOGITS + 0.25},
        surrogate=("self",),
        results=("wide",),
        wide=("perturbed",),
        extremes=each("perturbed", HUGE, TIES),
    ),
    Case("distributions.PlackettLuce.support", {"self": ORDER}, compiled=False),
)
