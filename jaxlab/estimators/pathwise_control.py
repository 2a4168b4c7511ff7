"""Pathwise estimators with less variance: a quadratic control variate, and antithetic pairs of draws."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, ScalarLike

from jaxlab._chunks import NUMBERS, by_rows, rows_at_once
from jaxlab._precision import widen
from jaxlab.distributions import Antithetic, Normal
from jaxlab.estimators.contract import Estimate, draw_each, estimate_of, estimator, evaluate, fixed_cost, for_each
from jaxlab.estimators.tuning import slopes_of_square, squared_norm, with_tuning

__all__ = ["reparameterized_antithetic", "reparameterized_delta"]


@estimator(
    needs=Antithetic,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=2,
    samples_in_groups_of=2,
)
def reparameterized_antithetic(
    key: PRNGKeyArray,
    dist: Antithetic,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    has_aux: bool = False,
) -> Estimate:
    r"""The pathwise estimator over antithetic pairs: a reparameterised draw, and the one at the opposite quantile.

    .. math:: \frac1n \sum_k \big(f(x_k) + f(x'_k)\big), \qquad x'_k = F_\phi^{-1}\big(1 - F_\phi(x_k)\big)

    For a symmetric density :math:`x' = 2 \mu - x`. An f that is monotone in each component has less variance than with
    independent draws; the odd part of f (about the centre, of a symmetric density) has none at all, the even part twice
    as much.

    Args:
      key: consumed.
      dist: a distribution that is Antithetic (Normal, MultivariateNormal, Logistic, Laplace, Gumbel, Exponential).
      f: cost of one draw; it must be continuous in the draw and differentiable almost everywhere.
      num_samples: n, even: n / 2 pairs.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n
      (first one half of each pair, then the other).

    Gradient:
      Unbiased; so are higher derivatives if those of f are continuous too. At a jump of f it is biased.

    Raises:
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Normal
      >>> def loss(loc):
      ...     normal = Normal(loc, jnp.array(1.0))
      ...     return estimators.reparameterized_antithetic(jax.random.key(0), normal, lambda x: x**2)
      >>> round(float(jax.grad(loss)(jnp.array(3.0))), 4)  # exact: the derivative is linear
      6.0

    Reference:
      Hammersley, Morton, "A New Monte Carlo Technique: Antithetic Variates", 1956,
      https://doi.org/10.1017/S0305004100031455; along differentiable paths, Wu, Goodman, Ermon, "Differentiable
      Antithetic Sampling for Variance Reduction in Stochastic Variational Inference", 2019.
      https://arxiv.org/abs/1810.02555
    """
    draws = draw_each(dist.reparameterize, key, num_samples // 2)
    partners = for_each(dist.antithetic, draws)
    both = jax.tree.map(lambda *halves: jnp.concatenate(halves), draws, partners)
    values, aux = evaluate("reparameterized_antithetic", f, both, has_aux)
    return estimate_of(jnp.mean(values), aux, has_aux)


def is_small(size: int) -> bool:
    """Whether a matrix of so many rows is kept."""
    return size**2 <= NUMBERS


def diagonal_and_product(
    matrix: Callable[[Array], Array], size: int, dtype: Any
) -> tuple[Float[Array, "d"], Callable[[Float[Array, "d"]], Float[Array, "d"]]]:
    """The diagonal of a symmetric matrix, and the product with it, from the product with vectors of ``dtype``."""

    def row(number: Int[Array, ""]) -> Float[Array, "d"]:
        return widen(lax.stop_gradient(matrix(jax.nn.one_hot(number, size, dtype=dtype))))

    if is_small(size):
        rows = jax.vmap(row)(jnp.arange(size))
        return jnp.diag(rows), lambda x: jnp.matmul(rows, x, precision="highest")
    diagonal = by_rows(lambda number: row(number)[number], jnp.arange(size), rows_at_once(size))
    return diagonal, lambda x: widen(matrix(x.astype(dtype)))


@estimator(
    needs=Normal,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: (
        num_samples + dist.loc.size + 1 + (0 if is_small(dist.loc.size) else num_samples + 1)
    ),
    minimal_num_samples=1,
    tunable=("scale",),
)
def reparameterized_delta(
    key: PRNGKeyArray,
    dist: Normal,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    scale: ScalarLike = 1.0,
    has_aux: bool = False,
) -> Estimate:
    r"""The pathwise estimator with the control variate of the delta method: f's second-order Taylor expansion.

    .. math:: \nabla_\phi := \frac1n \sum_k \nabla_\phi\big(f(x_k) - \alpha\, h(x_k)\big)
              + \alpha\, \nabla_\phi \mathbb E h, \qquad
              h(x) = g^\top (x - \mu) + \tfrac12 (x - \mu)^\top H (x - \mu)

    with the slope g and the Hessian H of f at the mean :math:`\mu`, and
    :math:`\mathbb E h = \tfrac12 \sum_i H_{ii} \sigma_i^2` there. For a quadratic f there is no variance left.

    Args:
      key: consumed.
      dist: Normal.
      f: cost of one draw, twice differentiable at the mean; its whole Hessian there is computed (one product with it
        for each component). Of more than 1,448 components no more than some of its rows are kept, and each draw costs a
        product more.
      num_samples: n, at least 1.
      scale: :math:`\alpha`; 0 is :func:`reparameterized`. Below 1 where the density is wide beside the curves of f.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f (the mean over the n draws); with ``has_aux`` also the auxiliary
      values, with a first axis of n.

    Gradient:
      Unbiased, to every order if the derivatives of f are continuous, for every ``scale``. With respect to ``scale``:
      that of the squared norm of the gradient along the draws' paths, whose descent lowers the variance (first order
      only).

    Raises:
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Normal
      >>> def loss(normal):
      ...     return estimators.reparameterized_delta(jax.random.key(0), normal, lambda x: x**2)
      >>> gradient = jax.grad(loss)(Normal(jnp.array(3.0), jnp.array(2.0)))
      >>> round(float(gradient.loc), 4), round(float(gradient.scale), 4)  # exact for a quadratic f
      (6.0, 4.0)

    Reference:
      Miller, Foti, D'Amour, Adams, "Reducing Reparameterization Gradient Variance", 2017,
      https://arxiv.org/abs/1705.07880; Mohamed, Rosca, Figurnov, Mnih, "Monte Carlo Gradient Estimation in Machine
      Learning", 2020, section 7.4.3 (the delta method). https://arxiv.org/abs/1906.10652
    """
    name = "reparameterized_delta"
    center = lax.stop_gradient(dist.loc)

    cost = fixed_cost(name, f, has_aux, center)

    def slope_at(x: Float[Array, "d"]) -> Float[Array, "d"]:
        return jax.grad(lambda x: cost(x.reshape(center.shape)))(x)

    slope, curvature_along = jax.linearize(slope_at, jnp.ravel(center))
    slope = widen(lax.stop_gradient(slope))
    diagonal, product = diagonal_and_product(curvature_along, center.size, center.dtype)

    def deviation(x: Float[Array, "*shape"]) -> Float[Array, "d"]:
        return jnp.ravel(widen(x) - widen(center))

    def expansion(x: Float[Array, "*shape"]) -> Float[Array, ""]:
        away = deviation(x)
        return jnp.dot(slope + 0.5 * product(away), away, precision="highest")

    def excess(dist: Normal, draws: Float[Array, "n *shape"]) -> Float[Array, ""]:
        """The mean of the expansion over the draws, less its expectation."""
        spread = 0.5 * jnp.sum(diagonal * jnp.ravel(widen(dist.scale)) ** 2)
        return jnp.mean(for_each(expansion, draws)) - expansion(dist.loc) - spread

    draws, pull_back = jax.vjp(lambda dist: draw_each(dist.reparameterize, key, num_samples), dist)
    values, aux = evaluate(name, f, draws, has_aux)
    fixed_dist, fixed_draws = lax.stop_gradient((dist, draws))

    def square(scale: ScalarLike) -> tuple[Float[Array, ""], None]:
        slopes = for_each(jax.grad(cost), fixed_draws)
        of_dist, of_draws = jax.grad(excess, argnums=(0, 1))(fixed_dist, fixed_draws)
        share = jnp.asarray(scale, slopes.dtype)
        (along_path,) = pull_back(slopes / num_samples - share * of_draws)
        return squared_norm(jax.tree.map(lambda a, b: a - share * b, along_path, of_dist)), None

    arrays, tuning, _ = slopes_of_square(square, scale)
    control = lax.stop_gradient(jnp.asarray(scale, float)) * excess(dist, draws)
    # Zero in value: the value stays the mean of f.
    value = jnp.mean(values) - (control - lax.stop_gradient(control)).astype(values.dtype)
    return estimate_of(with_tuning(value, arrays, tuning, name=name), aux, has_aux)
