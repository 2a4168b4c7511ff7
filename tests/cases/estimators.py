"""Rows of ``jaxlab.estimators``, made from its table."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases.case import COLD, HUGE, LOGITS, ONE_UP, SCALE, Case, each, f32
from cases.distributions import CATEGORY, NARROW, ROWS
from jaxlab import estimators
from jaxlab.distributions import (
    Antithetic,
    Bernoulli,
    Categorical,
    Conditionable,
    Enumerable,
    Flippable,
    MeanValued,
    Normal,
    Relaxable,
    Reparameterizable,
    Scored,
    ScoredPath,
    WeaklyDifferentiable,
)

# Every estimator with distributions that need not be capable of more. (How good they are: ``test_estimators.py``.)
REPRESENTATIVES = {
    Scored: (Normal(LOGITS, SCALE),),
    Reparameterizable: (Normal(LOGITS, SCALE),),
    ScoredPath: (Normal(LOGITS, SCALE),),
    MeanValued: (Bernoulli(LOGITS),),
    Relaxable: (Bernoulli(LOGITS), CATEGORY),
    Conditionable: (Bernoulli(LOGITS), CATEGORY),
    Flippable: (Bernoulli(LOGITS), CATEGORY),
    Enumerable: (CATEGORY,),
    Antithetic: (Normal(LOGITS, SCALE),),
    WeaklyDifferentiable: (Normal(LOGITS, SCALE),),
    Bernoulli: (Bernoulli(LOGITS),),
    Categorical: (CATEGORY,),
    Normal: (Normal(LOGITS, SCALE),),
}
HARDEST = {Bernoulli: Bernoulli(HUGE), Categorical: Categorical(1e4 * ROWS), Normal: Normal(HUGE, NARROW)}


def network(parameters, perturbed):
    """A control variate that is learned: its parameters are in any dtype, what it sees is in float32."""
    return jnp.sum(jnp.tanh(jnp.asarray(parameters).astype(perturbed.dtype) * perturbed))


OPTIONS = {
    "temperature": 0.5,
    "baseline": 0.25,
    "decay": 0.75,
    "num_samples": 4,
    "scale": 0.25,
    "baseline_scale": 0.25,
    "score_scale": -0.5,
    "network": network,
    "parameters": 0.5,
}
# Their value is a differentiable function of all data.
PATHWISE = {"exact", "gumbel_softmax", "reparameterized", "iwae", "renyi"}


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
        surrogate=() if row.name in PATHWISE else ("dist", "weights", *options),
        results=("same", *["wide" for _ in jax.tree.leaves(row.initial_state and row.initial_state())]),
        extremes=each("dist", HARDEST[type(dist)]) + (COLD if "temperature" in options else ()),
        compiled=False,
        function=estimate,
        variant=type(dist).__name__,
        axes={"weights": "*shape k" if isinstance(dist, Categorical) else "*shape"},
        returned=("",) * (1 + len(jax.tree.leaves(row.initial_state and row.initial_state()))),
        # Of so many states that those drawn without replacement are there, and that all can be listed.
        sizes={"*shape": (1, 2, 2), "k": (5,)} if row.needs is Enumerable else {"k": ONE_UP},
    )


ESTIMATORS = (
    Case("estimators.learning_signal", results=("wide",) * 4, compiled=False),
    *(
        estimator_case(row, dist)
        for table in (estimators.ESTIMATORS, estimators.BOUNDS)
        for row in table.values()
        for dist in REPRESENTATIVES[row.needs]
    ),
)
