"""Measure-valued derivatives: where that of a law is a difference of laws, that of an expectation is one of means."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxlab._chunks import by_rows, rows_at_once
from jaxlab._precision import widen
from jaxlab.distributions import WeaklyDifferentiable
from jaxlab.estimators.contract import Estimate, draw_each, estimate_of, estimator, evaluate, evaluate_one, for_each
from jaxlab.gradients import with_gradient

__all__ = ["measure_valued"]


def num_replaced(dist: Any) -> int:
    """How many draws differ from the draw itself in one component, over both sides and all parameters."""
    draw, derivatives = jax.eval_shape(lambda key: dist.weak_derivatives(key), jax.random.key(0))
    sides = sum(1 if negative is None else 2 for _, _, negative in derivatives)
    return sides * draw.size


def replaced(
    draw: Float[Array, "*shape"], number: Int[Array, ""], other: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """``draw`` with the component of this number (and no other) taken from ``other``."""
    return jnp.where((jnp.arange(draw.size) == number).reshape(draw.shape), other, draw)


@estimator(
    needs=WeaklyDifferentiable,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples * (1 + num_replaced(dist)),
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=1,
)
def measure_valued(
    key: PRNGKeyArray,
    dist: WeaklyDifferentiable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> Estimate:
    r"""The measure-valued gradient: one component at a time from either of two laws, the others as drawn.

    .. math:: \partial_{\phi_i} p_i = c_i\, (p_i^+ - p_i^-) \quad\Rightarrow\quad
              \nabla_{\phi_i} := c_i \big(f(x \text{ with } x_i^+) - f(x \text{ with } x_i^-)\big) + \nabla_{\phi_i} f

    with coupled draws :math:`x_i^\pm`. It asks nothing of f but its value, as the score function does, at a variance
    near that of the pathwise gradient, and works at jumps of f. For bits and categories it is
    :func:`local_expectation`.

    Args:
      key: consumed.
      dist: a distribution that is WeaklyDifferentiable (Normal, Poisson).
      f: cost of one draw; for each parameter it is evaluated twice for each component of a Normal, once for each count.
      num_samples: n, at least 1.
      chunk_size: for how many components of a draw to evaluate f at once; by default as many as have 2 ** 21 numbers.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f (the mean over the n draws); with ``has_aux`` also the auxiliary
      values at the draws, with a first axis of n.

    Gradient:
      Unbiased, first order only: a second derivative raises TypeError.

    Raises:
      ValueError: for a ``chunk_size`` below 1.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Poisson
      >>> def loss(rate):
      ...     return estimators.measure_valued(jax.random.key(0), Poisson(rate), lambda count: 3 * count.sum())
      >>> jax.grad(loss)(jnp.array([0.5, 4.0])).tolist()  # exact if f is linear
      [3.0, 3.0]

    Reference:
      Pflug, "Sampling Derivatives of Probability Measures", 1989; Mohamed, Rosca, Figurnov, Mnih, "Monte Carlo Gradient
      Estimation in Machine Learning", 2020, section 6. https://arxiv.org/abs/1906.10652
    """
    name = "measure_valued"
    draws, derivatives = draw_each(dist.weak_derivatives, key, num_samples)
    values, aux = evaluate(name, f, draws, has_aux)

    def cost(draw: Any) -> Any:
        return evaluate_one(name, f, has_aux, draw)[0]

    def difference(draw: Any, value: Any, positive: Any, negative: Any) -> Any:
        """The difference of the two sides for each component."""

        def of_component(number: Any) -> Any:
            above = cost(replaced(draw, number, positive))
            below = value if negative is None else cost(replaced(draw, number, negative))
            return widen(above) - widen(below)

        differences = by_rows(of_component, jnp.arange(draw.size), chunk_size or rows_at_once(draw.size))
        return differences.reshape(draw.shape)

    value = jnp.mean(values)
    for parameter, (constant, positive, negative) in zip(jax.tree.leaves(dist), derivatives, strict=True):
        if negative is None:
            differences = for_each(lambda x, v, p: difference(x, v, p, None), draws, values, positive)
        else:
            differences = for_each(difference, draws, values, positive, negative)
        gradient = jnp.mean(widen(constant) * differences, 0).astype(parameter.dtype)
        value = with_gradient(value, parameter, gradient, name=name)
    return estimate_of(value, aux, has_aux)
