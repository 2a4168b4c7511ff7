r"""Discrete Stein control variates (RODEO): functions of the draw whose mean a Gibbs sampler knows to be zero.

To draw one site anew, given the others, leaves the law of x as it is. So the mean change of any function h,

.. math:: (A h)(x) = \frac1D \sum_d \sum_c p_{dc} \big(h(x \text{ with site } d \text{ at } c) - h(x)\big),

has mean zero over x. For each draw, h is a surrogate of f made of the values and slopes of f at the *other* draws.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab._precision import widen
from jaxlab.distributions import Flippable
from jaxlab.estimators.contract import Estimate, draw_samples, estimate_of, estimator, evaluate, fixed_cost, for_each
from jaxlab.estimators.control import inner
from jaxlab.estimators.tuning import slopes_of_square, squared_norm, with_tuning
from jaxlab.gradients import with_gradient

__all__ = ["discrete_stein"]


def expected_change(dist: Any, value: Any, here: Float[Array, ""], around: Float[Array, "m"]) -> Float[Array, ""]:
    """(A h)(x), from h at x and at its neighbours."""
    probabilities = widen(lax.stop_gradient(dist.mean()))
    change = inner(probabilities - widen(value), dist.site_costs(here, around, value))
    # A row of k categories has k - 1 neighbours, a bit has one.
    num_sites = value.size - around.size or value.size
    return change / max(num_sites, 1)


def expected_change_of_score(
    dist: Any, value: Any, here: Float[Array, ""], around: Float[Array, "m"]
) -> Float[Array, "*shape"]:
    """(A h s)(x), with s the gradient of the log-probability with respect to the logits."""
    score = widen(value) - widen(lax.stop_gradient(dist.mean()))

    def along(direction: Float[Array, "*shape"]) -> Float[Array, ""]:
        # s is the value less its mean, so along a direction it changes like a linear function.
        score_here = inner(direction, score)
        score_around = score_here + dist.neighbour_changes(direction, widen(value))
        return expected_change(dist, value, here * score_here, around * score_around)

    return jax.grad(along)(jnp.zeros_like(score))


def mean_of_others(values: Float[Array, "n"], weights: Float[Array, "n"]) -> Float[Array, ""]:
    """The weighted sum; what left the range of numbers does not count where its weight is 0."""
    return jnp.sum(jnp.where(weights > 0, widen(values) * weights, 0))


@estimator(
    needs=Flippable,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=2,
    tunable=("parameters", "baseline_scale", "score_scale"),
)
def discrete_stein(
    key: PRNGKeyArray,
    dist: Flippable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    surrogates: Callable[[Any, Any, Any], tuple[Any, Any]] = lambda parameters, value, change: (change, change),
    parameters: Any = None,
    baseline_scale: ScalarLike = 0.0,
    score_scale: ScalarLike = 0.0,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Estimate:
    r"""RODEO: leave-one-out with two discrete Stein control variates, in the baseline and beside the score.

    .. math:: \nabla_\phi := \frac1n \sum_k \Big[\Big(f(x_k) - \frac1{n-1} \sum_{j \ne k}
              \big(f(x_j) + \alpha\, (A h_j)(x_j)\big)\Big)\, s(x_k) + \beta\, (A\, h'_k s)(x_k)\Big] + \nabla_\phi f

    with the operator A of this module, the score :math:`s = \nabla_\phi\log p`, and surrogates of f that are mean over
    the other draws,

    .. math:: h_k(x) = \frac1{n-1} \sum_{j \ne k} r_\psi\big(f(x_j), f'(x_j)^\top (x - x_j)\big)

    and h' likewise. As f enters at a neighbour of a draw by its slope alone, that costs no evaluation of f, and no
    neighbour is ever written out: memory is of the order of n n D numbers per unit of r.

    Args:
      key: consumed.
      dist: Bernoulli or Categorical.
      f: cost of one draw, differentiable at the draws.
      num_samples: n, at least 2.
      surrogates: r and r', from ``parameters``, the value of f at another draw and its linear change from there, to
        two numbers; the change itself by default.
      parameters: :math:`\psi`, a pytree of float arrays.
      baseline_scale: :math:`\alpha`; with both scales 0 it is :func:`leave_one_out`. The variance is sensitive to them,
        and they have to be learned.
      score_scale: :math:`\beta`.
      chunk_size: at how many neighbours of a draw to evaluate the surrogates at once (all, by default): it bounds the
        memory of a large network.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased with respect to the logits and to what f closes over, for all surrogates and scales. With respect to
      ``parameters``, ``baseline_scale`` and ``score_scale``: that of the squared norm of the gradient with respect to
      the logits, whose descent lowers the variance. First order only: a second derivative raises TypeError.

    Raises:
      ValueError: for a ``chunk_size`` below 1.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits, scale):
      ...     bits = Bernoulli(logits)
      ...     return estimators.discrete_stein(jax.random.key(0), bits, lambda b: jnp.sum(b) ** 2, score_scale=scale)
      >>> gradient, tuning = jax.grad(loss, argnums=(0, 1))(jnp.zeros(3), 0.5)
      >>> gradient.shape, tuning.shape
      ((3,), ())

    Reference:
      Shi, Zhou, Hwang, Titsias, Mackey, "Gradient Estimation with Discrete Stein Operators", 2022.
      https://arxiv.org/abs/2202.09497
    """
    name = "discrete_stein"
    draws = draw_samples(key, dist, num_samples)
    values, aux = evaluate(name, f, draws, has_aux)
    slopes = for_each(jax.grad(fixed_cost(name, f, has_aux, lax.stop_gradient(dist.mean()))), draws)
    fixed_values, slopes = widen(lax.stop_gradient(values)), widen(lax.stop_gradient(slopes))
    tunables = {"parameters": parameters, "baseline_scale": baseline_scale, "score_scale": score_scale}
    others = (1 - jnp.eye(num_samples, dtype=fixed_values.dtype)) / (num_samples - 1)

    def surrogates_around(draw: Any, weights: Any, parameters: Any) -> tuple[Any, Any]:
        """Both surrogates of this draw, at the draw (first) and at its neighbours."""

        def changes_from(other: Any, slope: Any) -> Float[Array, "points"]:
            here = inner(slope, draw - other)
            return jnp.append(here, here + dist.neighbour_changes(slope, widen(draw)))

        def average(changes: Float[Array, "n"]) -> tuple[Any, Any]:
            first, second = jax.vmap(lambda value, change: surrogates(parameters, value, change))(fixed_values, changes)
            return mean_of_others(first, weights), mean_of_others(second, weights)

        changes = jax.vmap(changes_from, out_axes=1)(draws, slopes)
        if chunk_size is None:
            return jax.vmap(average)(changes)
        # Computed again for the gradient, so that the hidden units of all chunks are not kept.
        return lax.map(jax.checkpoint(average), changes, batch_size=chunk_size)

    def gradient(tunables: Any) -> Any:
        in_baseline, beside_score = jax.vmap(lambda x, w: surrogates_around(x, w, tunables["parameters"]))(
            draws, others
        )
        changes = jax.vmap(lambda x, h: expected_change(dist, x, h[0], h[1:]))(draws, in_baseline)
        with_scores = jax.vmap(lambda x, h: expected_change_of_score(dist, x, h[0], h[1:]))(draws, beside_score)
        controlled = fixed_values + jnp.asarray(tunables["baseline_scale"], changes.dtype) * changes
        scores = widen(draws) - widen(lax.stop_gradient(dist.mean()))[None]
        signals = fixed_values - jnp.matmul(others, controlled, precision="highest")
        correction = jnp.asarray(tunables["score_scale"], changes.dtype) * jnp.mean(with_scores, 0)
        return jnp.tensordot(signals, scores, 1, precision="highest") / num_samples + correction

    def square(tunables: Any) -> tuple[Any, Any]:
        mean_gradient = gradient(tunables)
        return squared_norm(mean_gradient), mean_gradient

    arrays, tuning, mean_gradient = slopes_of_square(square, tunables)
    value = with_gradient(jnp.mean(values), dist.logits, mean_gradient.astype(dist.logits.dtype), name=name)
    return estimate_of(with_tuning(value, arrays, tuning, name=name), aux, has_aux)
