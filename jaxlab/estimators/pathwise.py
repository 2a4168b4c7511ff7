r"""The pathwise estimator: the draw is a differentiable function of the parameters, and f of the draw."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from jaxlab.distributions import Reparameterizable
from jaxlab.estimators.contract import Estimate, draw_each, estimate_of, estimator, evaluate

__all__ = ["reparameterized"]


@estimator(
    needs=Reparameterizable,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
)
def reparameterized(
    key: PRNGKeyArray,
    dist: Reparameterizable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    has_aux: bool = False,
) -> Estimate:
    r"""The mean of f over reparameterised draws, whose gradient goes through the draw (the pathwise estimator).

    .. math:: \frac1n \sum_k f(T_\phi(\epsilon_k)), \qquad
       \nabla_\phi := \frac1n \sum_k f'(x_k)\, \partial_\phi T_\phi(\epsilon_k), \qquad x_k = T_\phi(\epsilon_k)

    Args:
      key: consumed.
      dist: a distribution that is Reparameterizable (continuous).
      f: cost of one draw; it must be continuous in the draw and differentiable almost everywhere.
      num_samples: n, at least 1.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased; so are higher derivatives if those of f are continuous too (and, for the Gamma family, if JAX's sampler
      has them). At a jump of f it is biased, without a sign of it.

    Raises:
      TypeError: for a distribution without a path (all discrete ones), naming the estimators that would do.
      TypeError, ValueError: for a key, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Normal
      >>> def loss(loc):
      ...     return estimators.reparameterized(
      ...         jax.random.key(0), Normal(loc, jnp.array(1.0)), lambda x: x**2, num_samples=10_000
      ...     )
      >>> round(float(jax.grad(loss)(jnp.array(3.0))), 1)  # exactly 6
      6.0

    Reference:
      Kingma, Welling, "Auto-Encoding Variational Bayes", 2014, section 2.4. https://arxiv.org/abs/1312.6114
    """
    draws = draw_each(dist.reparameterize, key, num_samples)
    values, aux = evaluate("reparameterized", f, draws, has_aux)
    return estimate_of(jnp.mean(values), aux, has_aux)
