"""Every estimator with a small distribution that it takes, and what it may be differentiated for."""

import jax.numpy as jnp

from jaxlab.distributions import Bernoulli, Categorical, Normal
from jaxlab.estimators import ESTIMATORS

__all__ = ["BITS", "CATEGORY", "DIST_OF", "FITTING", "LOGITS", "NORMAL", "ROWS", "THETA", "named"]

LOGITS = jnp.array([-1.2, 0.3, 0.9])
THETA = jnp.array([0.1, -0.2, 0.3, 0.0])
BITS, NORMAL = Bernoulli(LOGITS), Normal(LOGITS, jnp.array([0.5, 1.0, 1.5]))
ROWS = list(ESTIMATORS.values())
CATEGORY = Categorical(LOGITS)
FITTING = [(row, next(dist for dist in (BITS, CATEGORY, NORMAL) if isinstance(dist, row.needs))) for row in ROWS]
DIST_OF = {row.name: dist for row, dist in FITTING}


def named(x):
    return getattr(x, "name", None)
