r"""Straight-through estimators that look at the draw: conditional relaxations, and second-order ones.

f is evaluated at discrete draws only; the derivative goes through a stand-in for the draw.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab import _check
from jaxlab._precision import widen
from jaxlab.distributions import Conditionable, EvenlyConditionable, Flippable, Relaxable
from jaxlab.estimators.contract import Estimate, draw_each, estimate_of, estimator, evaluate
from jaxlab.gradients import first_order_only, straight_through

__all__ = ["decoupled_gumbel_softmax", "gumbel_rao", "reinmax"]


def differential(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Zero, with the derivative of ``logits`` where they are finite."""
    return jnp.where(jnp.isfinite(logits), logits - lax.stop_gradient(logits), 0)


@estimator(
    needs=Conditionable,
    unbiased_value=True,
    unbiased_gradient=False,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
    tunable=("temperature", "num_relaxations"),
)
def gumbel_rao(
    key: PRNGKeyArray,
    dist: Conditionable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    num_relaxations: int = 10,
    temperature: ScalarLike = 1.0,
    has_aux: bool = False,
) -> Estimate:
    r"""Gumbel-Rao: the straight-through Gumbel estimator, averaged over the noise that gives the same draw.

    .. math:: \nabla_\phi := f'(z)\, \frac1m \sum_{j=1}^m \partial_\phi\, \mathrm{softmax}(z_j / \lambda),
              \qquad z_j \sim p(\phi + G \mid \arg\max = z)

    where the derivative goes through the tempered softmax alone: the perturbed logits move with the logits. Its
    expectation is that of :func:`straight_through_gumbel`; its variance is at most the same, at no more evaluations of
    f. The paper draws the :math:`z_j` independently of each other, as is done here for categories; those of bits are
    spread evenly (:meth:`.Bernoulli.perturb_given_evenly`): the same expectation from one random number instead of m.

    Args:
      key: consumed.
      dist: a distribution that is Conditionable (bits or categories).
      f: cost of one draw, differentiable; it is evaluated at discrete draws only.
      num_samples: n, at least 1.
      num_relaxations: m, conditional draws of the noise for each sample, at least 1.
      temperature: positive, without unit, of the relaxed draws.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Biased (as much as that of :func:`straight_through_gumbel`) with respect to the parameters of ``dist``; unbiased
      for what f closes over. First order only: a second derivative through the draw raises TypeError.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0, or ``num_relaxations`` below 1.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Categorical
      >>> def loss(logits):
      ...     cost = jnp.array([1.0, 2.0, 4.0])
      ...     return estimators.gumbel_rao(jax.random.key(0), Categorical(logits), lambda z: z @ cost, temperature=0.5)
      >>> float(loss(jnp.zeros(3))) in (1.0, 2.0, 4.0)
      True

    Reference:
      Paulus, Maddison, Krause, "Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator", 2021.
      https://arxiv.org/abs/2010.04838
    """
    _check.at_least("gumbel_rao", "num_relaxations", num_relaxations, 1)

    def draw(key: PRNGKeyArray) -> Any:
        draw_key, noise_key = jax.random.split(key)
        discrete = lax.stop_gradient(dist.sample(draw_key))

        if isinstance(dist, EvenlyConditionable):
            perturbed = dist.perturb_given_evenly(noise_key, discrete, num=num_relaxations)
        else:
            keys = jax.random.split(noise_key, num_relaxations)
            perturbed = jax.vmap(dist.perturb_given, (0, None))(keys, discrete)

        def soften(perturbed: Any) -> Any:
            moved = perturbed + differential(dist.logits).astype(perturbed.dtype)
            return dist.soften(moved, temperature=temperature)

        soft = jax.vmap(soften)(lax.stop_gradient(perturbed))
        return first_order_only(straight_through(discrete, jnp.mean(soft, 0)), name="gumbel_rao")

    values, aux = evaluate("gumbel_rao", f, draw_each(draw, key, num_samples), has_aux)
    return estimate_of(jnp.mean(values), aux, has_aux)


@estimator(
    needs=Flippable,
    unbiased_value=True,
    unbiased_gradient=False,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
    tunable=("temperature",),
)
def reinmax(
    key: PRNGKeyArray,
    dist: Flippable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    temperature: ScalarLike = 1.0,
    has_aux: bool = False,
) -> Estimate:
    r"""ReinMax: straight-through of second order (Heun's method in place of Euler's).

    .. math:: \nabla_\phi := \big(2 J(\pi) - \tfrac12 J(p)\big) f'(z), \qquad
              \pi = \tfrac12 \big(\mathrm{softmax}(\phi / \lambda) + z\big), \quad J(q) = \mathrm{diag}(q) - q q^\top

    Bits are categories with logits :math:`(\phi, 0)`. At temperature 1 it is exact in expectation for a quadratic f of
    one site, where the straight-through estimator is exact for linear ones only.

    Args:
      key: consumed.
      dist: Bernoulli or Categorical.
      f: cost of one draw, differentiable; it is evaluated at discrete draws only.
      num_samples: n, at least 1.
      temperature: positive, without unit; the authors advise 1 or a little above.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Biased with respect to the parameters of ``dist``, in general (not for every f less than the straight-through
      one); unbiased for what f closes over. First order only: a second derivative through the draw raises TypeError.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logit):
      ...     bit = Bernoulli(logit)
      ...     return estimators.reinmax(jax.random.key(0), bit, lambda b: (b - 0.45) ** 2, num_samples=10_000)
      >>> round(float(jax.grad(loss)(jnp.array(0.0))), 2)  # exactly 0.025 in expectation
      0.02

    Reference:
      Liu, Dong, Liu, Yu, Gao, "Bridging Discrete and Backpropagation: Straight-Through and Beyond", 2023.
      https://arxiv.org/abs/2304.08612
    """
    logits = widen(dist.logits)
    probabilities = lax.stop_gradient(widen(dist.mean()))
    tempered = lax.stop_gradient(widen(dist.soften(logits, temperature=temperature)))

    def draw(key: PRNGKeyArray) -> Any:
        discrete = lax.stop_gradient(dist.sample(key))
        midpoint = (tempered + widen(discrete)) / 2
        change = differential(logits)
        soft = 2 * dist.covariance_product(midpoint, change) - 0.5 * dist.covariance_product(probabilities, change)
        return first_order_only(straight_through(discrete, soft.astype(discrete.dtype)), name="reinmax")

    values, aux = evaluate("reinmax", f, draw_each(draw, key, num_samples), has_aux)
    return estimate_of(jnp.mean(values), aux, has_aux)


@estimator(
    needs=Relaxable,
    unbiased_value=False,
    unbiased_gradient=False,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
    relaxed_draws=True,
    tunable=("temperature", "backward_temperature"),
)
def decoupled_gumbel_softmax(
    key: PRNGKeyArray,
    dist: Relaxable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    temperature: ScalarLike = 0.5,
    backward_temperature: ScalarLike = 1.0,
    has_aux: bool = False,
) -> Estimate:
    r"""Gumbel-softmax with one temperature for the value and another one for the derivative.

    .. math:: \frac1n \sum_k f(y_k(\lambda)), \qquad
              \nabla_\phi := \frac1n \sum_k f'(y_k(\lambda))\, \partial_\phi\, y_k(\lambda_{\mathrm{backward}})

    with the same noise in both. In the limit of ``temperature`` 0 it is :func:`straight_through_gumbel`; with two equal
    temperatures it is :func:`gumbel_softmax`.

    Args:
      key: consumed.
      dist: a distribution that is Relaxable (bits or categories).
      f: cost of one draw, differentiable, defined between the discrete values.
      num_samples: n, at least 1.
      temperature: positive, without unit, of the draws that f sees.
      backward_temperature: positive, without unit, of the draws that are differentiated.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      The mean of the relaxed f: a biased estimate of the expectation of f, exact in the limit of ``temperature`` 0.

    Gradient:
      Biased. First order only: a second derivative through the draw raises TypeError.

    Raises:
      ValueError: if a temperature is a Python number not above 0.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     bits = Bernoulli(logits)
      ...     return estimators.decoupled_gumbel_softmax(jax.random.key(0), bits, lambda b: jnp.sum(b) ** 2)
      >>> jax.grad(loss)(jnp.zeros(2)).shape
      (2,)

    Reference:
      Shah et al., "Improving Discrete Optimisation Via Decoupled Straight-Through Gumbel-Softmax", 2024.
    """
    _check.positive("decoupled_gumbel_softmax", "backward_temperature", backward_temperature)

    def draw(key: PRNGKeyArray) -> Any:
        perturbed = dist.perturb(key)
        value = dist.soften(perturbed, temperature=temperature)
        soft = straight_through(value, dist.soften(perturbed, temperature=backward_temperature))
        return first_order_only(soft, name="decoupled_gumbel_softmax")

    values, aux = evaluate("decoupled_gumbel_softmax", f, draw_each(draw, key, num_samples), has_aux)
    return estimate_of(jnp.mean(values), aux, has_aux)
