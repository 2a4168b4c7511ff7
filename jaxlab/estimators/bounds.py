r"""Bounds of several samples on a log-evidence, and the gradients they are known for.

With importance weights :math:`w_k = p(x, z_k) / q(z_k)` of n draws from q, every function here estimates the bound

.. math:: L_n = \mathbb E \log \frac1n \sum_k w_k \le \log p(x)

(or its Rényi relative) and ``jax.grad`` of it is the named estimator of its gradient, with respect to the parameters
of q and to all that ``log_joint`` closes over. The bounds are to be maximised. ``log_joint`` maps one draw z to
:math:`\log p(x, z)`; the density of q is taken from ``dist``, because the estimators differ in what they do with its
derivative.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab.distributions import ScoredPath
from jaxlab.estimators.contract import (
    BOUNDS,
    Estimate,
    draw_each,
    estimate_of,
    estimator,
    evaluate,
    evaluate_one,
    for_each,
)
from jaxlab.gradients import first_order_only, with_gradient

__all__ = ["dreg", "iwae", "renyi", "stl"]


def log_mean_exp(log_weights: Float[Array, "n"]) -> Float[Array, ""]:
    """The logarithm of the mean of the exponentials."""
    return jax.nn.logsumexp(log_weights) - math.log(len(log_weights))


def fixed(dist: Any) -> Any:
    """The same distribution, constant to ``jax.grad``."""
    return jax.tree.map(lax.stop_gradient, dist)


def log_weights_at(
    name: str, log_joint: Callable[[Any], Any], dist: Any, draws: Any, has_aux: bool
) -> tuple[Float[Array, "n"], Any]:
    """The logarithms of the importance weights of the draws, and the auxiliary values."""
    log_joints, aux = evaluate(name, log_joint, draws, has_aux, "log_joint")
    return log_joints - for_each(dist.log_prob, draws).astype(log_joints.dtype), aux


@estimator(
    table=BOUNDS,
    needs=ScoredPath,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
)
def iwae(
    key: PRNGKeyArray,
    dist: ScoredPath,
    log_joint: Callable[[Any], Any],
    *,
    num_samples: int = 5,
    has_aux: bool = False,
) -> Estimate:
    r"""The importance-weighted bound, differentiated along reparameterised draws; for one draw the ELBO.

    .. math:: \nabla := \sum_k \tilde w_k\, \nabla\log w_k(z_k(\epsilon_k)), \qquad \tilde w = \mathrm{softmax}(\log w)

    Args:
      key: consumed.
      dist: a distribution that is Scored and Reparameterizable.
      log_joint: :math:`\log p(x, z)` in nats of one draw, differentiable.
      num_samples: n, at least 1.
      has_aux: whether log_joint returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the bound, in nats; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, to every order. With more draws its signal-to-noise ratio for the parameters of ``dist`` falls; see
      :func:`dreg`.

    Raises:
      TypeError, ValueError: for a key, distribution, log_joint or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Normal
      >>> def bound(parameters):
      ...     posterior = Normal(parameters, jnp.ones(2))
      ...     joint = Normal(jnp.ones(2), jnp.ones(2)).log_prob
      ...     return estimators.iwae(jax.random.key(0), posterior, joint, num_samples=4)
      >>> jax.grad(bound)(jnp.zeros(2)).shape
      (2,)

    Reference:
      Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", 2016. https://arxiv.org/abs/1509.00519
    """
    draws = draw_each(dist.reparameterize, key, num_samples)
    log_weights, aux = log_weights_at("iwae", log_joint, dist, draws, has_aux)
    return estimate_of(log_mean_exp(log_weights), aux, has_aux)


@estimator(
    table=BOUNDS,
    needs=ScoredPath,
    unbiased_value=True,
    unbiased_gradient=False,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
)
def stl(
    key: PRNGKeyArray,
    dist: ScoredPath,
    log_joint: Callable[[Any], Any],
    *,
    num_samples: int = 5,
    has_aux: bool = False,
) -> Estimate:
    r"""Sticking the landing: the bound's gradient without the score of q, so that it vanishes where q is exact.

    .. math:: \nabla_\phi := \sum_k \tilde w_k\, \frac{\partial\log w_k}{\partial z_k}\, \nabla_\phi z_k

    Args:
      key: consumed.
      dist: a distribution that is Scored and Reparameterizable.
      log_joint: :math:`\log p(x, z)` in nats of one draw, differentiable.
      num_samples: n, at least 1.
      has_aux: whether log_joint returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the bound, in nats; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased for one draw; **biased for the parameters of** ``dist`` **with more than one**, where :func:`dreg` is
      not; unbiased for what ``log_joint`` closes over. First order only: a second derivative raises TypeError.

    Raises:
      TypeError, ValueError: for a key, distribution, log_joint or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Normal
      >>> def bound(parameters):
      ...     posterior = Normal(parameters, jnp.ones(2))
      ...     joint = Normal(jnp.ones(2), jnp.ones(2)).log_prob
      ...     return estimators.stl(jax.random.key(0), posterior, joint, num_samples=4)
      >>> jax.grad(bound)(jnp.zeros(2)).shape
      (2,)

    Reference:
      Roeder, Wu, Duvenaud, "Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational
      Inference", 2017. https://arxiv.org/abs/1703.09194
    """
    draws = draw_each(dist.reparameterize, key, num_samples)
    draws = jax.tree.map(lambda leaf: first_order_only(leaf, name="stl"), draws)
    log_weights, aux = log_weights_at("stl", log_joint, fixed(dist), draws, has_aux)
    return estimate_of(log_mean_exp(log_weights), aux, has_aux)


@estimator(
    table=BOUNDS,
    needs=ScoredPath,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
)
def dreg(
    key: PRNGKeyArray,
    dist: ScoredPath,
    log_joint: Callable[[Any], Any],
    *,
    num_samples: int = 5,
    has_aux: bool = False,
) -> Estimate:
    r"""The doubly reparameterised gradient: unbiased as IWAE's, and as quiet as sticking the landing.

    .. math:: \nabla_\phi := \sum_k \tilde w_k^2\, \frac{\partial\log w_k}{\partial z_k}\, \nabla_\phi z_k, \qquad
              \nabla_\theta := \sum_k \tilde w_k\, \nabla_\theta\log w_k

    Args:
      key: consumed.
      dist: a distribution that is Scored and Reparameterizable.
      log_joint: :math:`\log p(x, z)` in nats of one draw, differentiable.
      num_samples: n, at least 1.
      has_aux: whether log_joint returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the bound, in nats; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased for the parameters of ``dist`` and for what ``log_joint`` closes over. First order only: a second
      derivative raises TypeError.

    Raises:
      TypeError, ValueError: for a key, distribution, log_joint or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Normal
      >>> def bound(parameters):
      ...     posterior = Normal(parameters, jnp.ones(2))
      ...     joint = Normal(jnp.ones(2), jnp.ones(2)).log_prob
      ...     return estimators.dreg(jax.random.key(0), posterior, joint, num_samples=4)
      >>> jax.grad(bound)(jnp.zeros(2)).shape
      (2,)

    Reference:
      Tucker, Lawson, Gu, Maddison, "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", 2019.
      https://arxiv.org/abs/1810.04152
    """
    draws = draw_each(dist.reparameterize, key, num_samples)
    posterior, constants = fixed(dist), lax.stop_gradient(draws)
    log_weights, aux = log_weights_at("dreg", log_joint, posterior, constants, has_aux)

    def log_weight(draw: Any) -> Float[Array, ""]:
        value, _ = evaluate_one("dreg", log_joint, has_aux, draw, "log_joint")
        return value - posterior.log_prob(draw).astype(value.dtype)

    slopes = for_each(jax.grad(log_weight), constants)
    squares = (jax.nn.softmax(log_weights) ** 2).reshape(-1, *(1,) * (slopes.ndim - 1)).astype(slopes.dtype)
    value = with_gradient(log_mean_exp(log_weights), draws, squares * slopes, name="dreg")
    return estimate_of(value, aux, has_aux)


@estimator(
    table=BOUNDS,
    needs=ScoredPath,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
    tunable=("order",),
)
def renyi(
    key: PRNGKeyArray,
    dist: ScoredPath,
    log_joint: Callable[[Any], Any],
    *,
    num_samples: int = 5,
    order: ScalarLike = 0.5,
    has_aux: bool = False,
) -> Estimate:
    r"""The variational Rényi bound, differentiated along reparameterised draws.

    .. math:: \frac{1}{1 - \alpha} \log \frac1n \sum_k w_k^{1 - \alpha}

    Args:
      key: consumed.
      dist: a distribution that is Scored and Reparameterizable.
      log_joint: :math:`\log p(x, z)` in nats of one draw, differentiable.
      num_samples: n, at least 1.
      order: :math:`\alpha`, not 1; 0 is :func:`iwae`, near 1 the ELBO.
      has_aux: whether log_joint returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of the above (of the Rényi bound itself only as n grows), in nats; with
      ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased for the expectation of the above, to every order.

    Raises:
      TypeError, ValueError: for a key, distribution, log_joint or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Normal
      >>> def bound(parameters):
      ...     posterior = Normal(parameters, jnp.ones(2))
      ...     joint = Normal(jnp.ones(2), jnp.ones(2)).log_prob
      ...     return estimators.renyi(jax.random.key(0), posterior, joint, num_samples=4)
      >>> jax.grad(bound)(jnp.zeros(2)).shape
      (2,)

    Reference:
      Li, Turner, "Rényi Divergence Variational Inference", 2016. https://arxiv.org/abs/1602.02311
    """
    draws = draw_each(dist.reparameterize, key, num_samples)
    log_weights, aux = log_weights_at("renyi", log_joint, dist, draws, has_aux)
    order = jnp.asarray(order, log_weights.dtype)
    return estimate_of(log_mean_exp((1 - order) * log_weights) / (1 - order), aux, has_aux)
