r"""Gradients of the importance-weighted bound (see ``bounds.py``) for draws without a path.

Every draw is credited with what it adds to the bound: the bound less the same without it, or with another in its place.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PRNGKeyArray

from jaxlab._precision import widen
from jaxlab.distributions import Bernoulli, Scored
from jaxlab.estimators.bounds import log_mean_exp, log_weights_at
from jaxlab.estimators.contract import BOUNDS, Estimate, draw_samples, estimate_of, estimator, for_each
from jaxlab.estimators.coupled import antithetic_pairs
from jaxlab.gradients import magic_box, with_gradient

__all__ = ["local_disarm", "vimco"]


@estimator(
    table=BOUNDS,
    needs=Scored,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
    tunable=("geometric",),
)
def vimco(
    key: PRNGKeyArray,
    dist: Scored,
    log_joint: Callable[[Any], Any],
    *,
    num_samples: int = 5,
    geometric: bool = True,
    has_aux: bool = False,
) -> Estimate:
    r"""VIMCO: the score function for the importance-weighted bound, each draw with a baseline made of the others.

    .. math:: \nabla := \sum_k (\hat L - \hat L_{-k})\, \nabla\log q(z_k) + \sum_k \tilde w_k\, \nabla\log w_k, \qquad
              \hat L_{-k} = \log \frac1n \Big(\sum_{j \ne k} w_j + \hat w_{-k}\Big)

    Args:
      key: consumed.
      dist: any distribution that is Scored.
      log_joint: :math:`\log p(x, z)` in nats of one draw.
      num_samples: n, at least 2.
      geometric: whether the weight missing in a baseline is the geometric mean of the others, or their arithmetic mean.
      has_aux: whether log_joint returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the bound, in nats; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, to every order, with either baseline.

    Raises:
      TypeError, ValueError: for a key, distribution, log_joint or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def bound(parameters):
      ...     posterior = Bernoulli(parameters)
      ...     joint = Bernoulli(jnp.ones(2)).log_prob
      ...     return estimators.vimco(jax.random.key(0), posterior, joint, num_samples=4)
      >>> jax.grad(bound)(jnp.zeros(2)).shape
      (2,)

    Reference:
      Mnih, Rezende, "Variational Inference for Monte Carlo Objectives", 2016. https://arxiv.org/abs/1602.06725
    """
    draws = draw_samples(key, dist, num_samples)
    log_weights, aux = log_weights_at("vimco", log_joint, dist, draws, has_aux)
    constants = lax.stop_gradient(log_weights)
    others = ~jnp.eye(num_samples, dtype=bool)
    if geometric:  # the missing weight is the geometric mean of the others
        missing = (jnp.sum(constants) - constants) / (num_samples - 1)
    else:
        missing = jax.nn.logsumexp(jnp.where(others, constants[None], -jnp.inf), 1) - math.log(num_samples - 1)
    without = jax.nn.logsumexp(jnp.where(others, constants[None], missing[:, None]), 1) - math.log(num_samples)
    log_probs = for_each(dist.log_prob, draws).astype(log_weights.dtype)
    # The bound depends on all draws: it goes with the box of them all, each baseline with that of its own draw.
    value = log_mean_exp(log_weights) * magic_box(jnp.sum(log_probs)) + jnp.sum((1 - magic_box(log_probs)) * without)
    return estimate_of(value, aux, has_aux)


@estimator(
    table=BOUNDS,
    needs=Bernoulli,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: 2 * num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=1,
)
def local_disarm(
    key: PRNGKeyArray,
    dist: Bernoulli,
    log_joint: Callable[[Any], Any],
    *,
    num_samples: int = 5,
    has_aux: bool = False,
) -> Estimate:
    r"""DisARM for the importance-weighted bound: each draw in turn is replaced by its antithetic partner.

    .. math:: \nabla_\phi := \sum_k \tfrac12 \big(\hat L - \hat L(z_k \to z'_k)\big)\, (z_k - z'_k)\, \sigma(|\phi|)
              + \sum_k \tilde w_k\, \nabla\log w_k

    Args:
      key: consumed.
      dist: Bernoulli.
      log_joint: :math:`\log p(x, z)` in nats of one draw.
      num_samples: n, at least 1.
      has_aux: whether log_joint returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the bound, in nats; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased. First order only: a second derivative raises TypeError.

    Raises:
      TypeError, ValueError: for a key, distribution, log_joint or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def bound(parameters):
      ...     posterior = Bernoulli(parameters)
      ...     joint = Bernoulli(jnp.ones(2)).log_prob
      ...     return estimators.local_disarm(jax.random.key(0), posterior, joint, num_samples=4)
      >>> jax.grad(bound)(jnp.zeros(2)).shape
      (2,)

    Reference:
      Dong, Mnih, Tucker, "DisARM: An Antithetic Gradient Estimator for Binary Latent Variables", 2020.
      https://arxiv.org/abs/2006.10680
    """
    draws, _ = antithetic_pairs(key, dist, num_samples)
    log_weights, aux = log_weights_at("local_disarm", log_joint, dist, draws[:, 0], has_aux)
    partner_log_weights, _ = log_weights_at("local_disarm", log_joint, dist, draws[:, 1], has_aux)
    bound = log_mean_exp(log_weights)
    own = jnp.eye(num_samples, dtype=bool)
    replaced = jax.nn.logsumexp(jnp.where(own, partner_log_weights[None], log_weights[None]), 1) - math.log(num_samples)
    differences = widen(draws[:, 0] - draws[:, 1])
    direction = jnp.tensordot(widen(bound - replaced), differences, 1, precision="highest")
    gradient = (0.5 * direction * jax.nn.sigmoid(jnp.abs(widen(dist.logits)))).astype(dist.logits.dtype)
    return estimate_of(with_gradient(bound, dist.logits, gradient, name="local_disarm"), aux, has_aux)
