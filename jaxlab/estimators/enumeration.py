"""The expectation itself, where all values can be listed: what every other estimator is measured against."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PRNGKeyArray

from jaxlab.distributions import Enumerable
from jaxlab.distributions.discrete import weighted
from jaxlab.estimators.contract import Estimate, estimate_of, estimator, evaluate_one

__all__ = ["exact"]


@estimator(
    needs=Enumerable,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: len(dist.support()),
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=0,
)
def exact(
    key: PRNGKeyArray,
    dist: Enumerable,
    f: Callable[[Any], Any],
    *,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Estimate:
    r"""The expectation of f, as the sum over all values.

    .. math:: \mathbb E f = \sum_x p(x) f(x)

    Args:
      key: not used, for nothing is random; it is here so that ``exact`` can stand wherever an estimator stands.
      dist: a distribution that is Enumerable (bits or categories, up to 2 ** 20 values).
      f: cost of one draw. Where p is 0, an infinite f does not count.
      chunk_size: how many values to evaluate at once (all, by default): it bounds the memory.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      The expectation; with ``has_aux`` also the auxiliary values, with a first axis of ``dist.support()``.

    Gradient:
      Exact, to every order.

    Raises:
      ValueError: for more than 2 ** 20 values, or a ``chunk_size`` below 1.
      TypeError, ValueError: for a key, distribution or f that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     return estimators.exact(jax.random.key(0), Bernoulli(logits), lambda b: (b - 0.45) ** 2)
      >>> round(float(jax.grad(loss)(jnp.array(0.0))), 6)  # p (1 - p) (1 - 2 t)
      0.025
    """
    support = dist.support()
    evaluate_at = functools.partial(evaluate_one, "exact", f, has_aux)
    if chunk_size is None:
        values, aux = jax.vmap(evaluate_at)(support)
    else:
        # Evaluated again for the gradient: kept, the intermediate values of all chunks would take the memory after all.
        values, aux = lax.map(jax.checkpoint(evaluate_at), support, batch_size=chunk_size)
    probabilities = jnp.exp(jax.vmap(dist.log_prob)(support)).astype(values.dtype)
    return estimate_of(jnp.sum(weighted(probabilities, values)), aux, has_aux)
