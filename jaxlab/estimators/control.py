r"""Score-function estimators with a control variate that is a function of the draw, with a known mean.

.. math:: \nabla \mathbb E f = \mathbb E\big[(f(x) - h(x))\, \nabla\log p(x)\big] + \nabla \mathbb E h

The better h follows f, the less is left to the score. Here h is made of derivatives of f, which must exist between the
discrete values too.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab._precision import widen
from jaxlab.distributions import MeanValued
from jaxlab.estimators.contract import (
    Estimate,
    draw_samples,
    estimate_of,
    estimator,
    evaluate,
    fixed_cost,
    for_each,
)
from jaxlab.estimators.score import with_score
from jaxlab.estimators.tuning import slopes_of_square, squared_norm, with_tuning

__all__ = ["double_control_variate", "muprop"]


def inner(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, ""]:
    """The sum of products, in at least float32."""
    return jnp.sum(widen(a) * widen(b))


@estimator(
    needs=MeanValued,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples + 1,
    derivative_evaluations=lambda num_samples, dist: 1,
    minimal_num_samples=1,
    relaxed_draws=True,
)
def muprop(
    key: PRNGKeyArray,
    dist: MeanValued,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    has_aux: bool = False,
) -> Estimate:
    r"""MuProp: the control variate is f's first-order Taylor expansion at the mean of the draws.

    .. math:: \nabla := \big(f(x) - h(x)\big)\, \nabla\log p(x) + f'(\mu)\, \nabla\mu + \nabla f, \qquad
              h(x) = f(\mu) + f'(\mu)^\top (x - \mu)

    Args:
      key: consumed.
      dist: a distribution that is MeanValued.
      f: cost of one draw, differentiable, defined at the mean too.
      num_samples: n, at least 1; the expansion is made once for all of them.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, to every order; exact if f is affine.

    Raises:
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     return estimators.muprop(jax.random.key(0), Bernoulli(logits), lambda b: jnp.sum(b))
      >>> jax.grad(loss)(jnp.zeros(2)).tolist()  # exact, for f is affine
      [0.25, 0.25]

    Reference:
      Gu, Levine, Sutskever, Mnih, "MuProp: Unbiased Backpropagation for Stochastic Neural Networks", 2016.
      https://arxiv.org/abs/1511.05176
    """
    draws = draw_samples(key, dist, num_samples)
    values, aux = evaluate("muprop", f, draws, has_aux)
    mean = dist.mean()
    center = lax.stop_gradient(mean)
    value_at_mean, slope = jax.value_and_grad(fixed_cost("muprop", f, has_aux, center))(center)
    slope = lax.stop_gradient(slope)
    expansion = value_at_mean + for_each(lambda x: inner(slope, x - center), draws).astype(values.dtype)
    # Zero in value: the derivatives of the expansion's own mean.
    of_the_mean = inner(slope, mean - center).astype(values.dtype)
    return estimate_of(jnp.mean(with_score(dist, draws, values, expansion)) + of_the_mean, aux, has_aux)


@estimator(
    needs=MeanValued,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=2,
    relaxed_draws=True,
    tunable=("scale",),
)
def double_control_variate(
    key: PRNGKeyArray,
    dist: MeanValued,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    scale: ScalarLike = 0.0,
    has_aux: bool = False,
) -> Estimate:
    r"""Leave-one-out with a second control variate, linear in the draw, in f and in its baseline alike.

    .. math:: \nabla := \frac1n \sum_k \Big(f(x_k) + h_k - \frac1{n-1} \sum_{j \ne k} (f(x_j) + h_j)\Big)
              \nabla\log p(x_k) - \alpha\, \bar g\, \nabla\mu + \nabla f, \qquad
              h_k = \alpha\, \bar g_{-k}^\top (x_k - \mu)

    with :math:`\bar g` the mean of :math:`f'(x_k)` and :math:`\bar g_{-k}` that over the other draws.

    Args:
      key: consumed.
      dist: a distribution that is MeanValued.
      f: cost of one draw, differentiable at the draws.
      num_samples: n, at least 2.
      scale: :math:`\alpha`; 0 is :func:`leave_one_out`. Good values are small and negative, the variance is very
        sensitive to it, and it has to be learned.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, to every order, for every ``scale``. With respect to ``scale``: that of the squared norm of the gradient
      with respect to the parameters of ``dist``, whose descent lowers the variance (first order only).

    Raises:
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     bits = Bernoulli(logits)
      ...     return estimators.double_control_variate(jax.random.key(0), bits, lambda b: jnp.sum(b), scale=-1.0)
      >>> jax.grad(loss)(jnp.zeros(2)).tolist()  # exact for an affine f and scale -1
      [0.25, 0.25]

    Reference:
      Titsias, Shi, "Double Control Variates for Gradient Estimation in Discrete Latent Variable Models", 2022.
      https://arxiv.org/abs/2111.05300
    """
    draws = draw_samples(key, dist, num_samples)
    name = "double_control_variate"
    values, aux = evaluate(name, f, draws, has_aux)
    mean = dist.mean()
    slopes = for_each(jax.grad(fixed_cost(name, f, has_aux, mean)), draws)
    slopes = lax.stop_gradient(slopes)
    center = lax.stop_gradient(mean)
    others = num_samples - 1
    slopes_of_others = (jnp.sum(slopes, 0)[None] - slopes) / others
    linear = for_each(inner, slopes_of_others, draws - center[None]).astype(values.dtype)

    def baselines(values: Float[Array, "n"], scale: ScalarLike) -> Float[Array, "n"]:
        scaled = jnp.asarray(scale, values.dtype) * linear
        return (jnp.sum(values + scaled) - (values + scaled)) / others - scaled

    mean_slope = jnp.mean(slopes, 0)
    fixed_dist, fixed_values = lax.stop_gradient((dist, values))

    def square(scale: ScalarLike) -> tuple[Float[Array, ""], None]:
        (log_probs, means), pull_back = jax.vjp(lambda dist: (for_each(dist.log_prob, draws), dist.mean()), fixed_dist)
        signals = (fixed_values - baselines(fixed_values, scale)) / num_samples
        along_mean = -jnp.asarray(scale, means.dtype) * mean_slope.astype(means.dtype)
        return squared_norm(pull_back((signals.astype(log_probs.dtype), along_mean))), None

    arrays, tuning, _ = slopes_of_square(square, scale)
    fixed_scale = lax.stop_gradient(jnp.asarray(scale, mean_slope.dtype))
    # Zero in value: the derivatives of the linear part's mean, with its sign.
    of_the_mean = inner(fixed_scale * mean_slope, mean - center).astype(values.dtype)
    value = jnp.mean(with_score(dist, draws, values, baselines(values, fixed_scale))) - of_the_mean
    return estimate_of(with_tuning(value, arrays, tuning, name=name), aux, has_aux)
