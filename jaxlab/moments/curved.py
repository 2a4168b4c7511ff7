"""Functions of a mean, whose curvature makes them biased: corrected, with errors, or with no bias at all."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxlab import _check
from jaxlab._chunks import by_rows, rows_at_once
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.moments.resampling import Estimate
from jaxlab.moments.statistics import enough, safe_sqrt

__all__ = ["delta", "log_mean_exp", "multilevel"]


def delta_around(function: Callable, center: Any, items: Any, sample_of: Callable = lambda item: item) -> Estimate:
    """The delta method around the mean of samples (pytrees), which are made of as many items, some at a time."""
    size = jax.tree.leaves(items)[0].shape[0]

    def along(item):
        direction = jax.tree.map(jnp.subtract, sample_of(item), center)
        slope = lambda point: jax.jvp(function, (point,), (direction,))[1]  # noqa: E731
        return jax.jvp(slope, (center,), (direction,))

    num_rows = rows_at_once(sum(leaf.size for leaf in jax.tree.leaves(center)))
    slopes, curvatures = by_rows(along, items, num_rows)
    scale = 1 / ((size - 1) * size)
    bias = jnp.sum(curvatures) * scale / 2
    return Estimate(function(center) - bias, safe_sqrt(jnp.sum(slopes**2) * scale), bias)


def delta(function: Callable) -> Callable:
    r"""A function of a mean, with the bias that its curvature causes taken off, and its standard error.

    .. math:: g(\bar x) - \frac{\mathrm{tr}(\nabla^2 g\, \hat\Sigma)}{2 n}, \qquad
              \mathrm{se}^2 = \frac{\nabla g^\top \hat\Sigma\, \nabla g}{n}

    Args:
      function: g, of one array of the shape of a sample, twice differentiable; its value is a number.

    Returns:
      A function of samples [n, ...] to an :class:`Estimate`.

    Gradient:
      Exact; it needs the third derivative of g.

    Raises:
      ValueError: when called, if there are fewer than 2 samples.

    Examples:
      >>> import jax.numpy as jnp
      >>> result = delta(lambda m: m**2)(jnp.array([1.0, 3.0]))
      >>> float(result.value), float(result.bias)
      (3.0, 1.0)

    Reference:
      Oehlert, "A Note on the Delta Method", 1992.
    """

    def estimate(samples: Array) -> Estimate:
        enough("delta", samples, 2)
        samples = widen(samples)
        return delta_around(function, jnp.mean(samples, 0), samples)

    return estimate


def multilevel(function: Callable, *, num_base: int = 1, rate: float = 0.6, max_level: int = 12) -> Callable:
    r"""An unbiased estimate of a function of an expectation: a coarse one and a randomly chosen correction.

    .. math:: g(\bar x_{m}) + \frac{1}{P(k)}
              \Big(g(\bar x_{2^{k+1} m}) - \tfrac12 g(\bar x_{\text{odd}}) - \tfrac12 g(\bar x_{\text{even}})\Big),
              \qquad P(k) \propto (1 - r)^k

    For a g that is smooth near the mean the correction falls like :math:`4^{-k}` in square: variance and expected cost
    are finite if and only if :math:`r` lies in (1/2, 3/4). Elsewhere it is still unbiased and of no use: refused.

    Args:
      function: g, of one array of the shape of a sample; its value is a number.
      num_base: m, the samples of the coarse estimate, at least 1.
      rate: r, in (1/2, 3/4).
      max_level: the largest k. The bias that is left is that of :math:`2^{K+1} m` samples.

    Returns:
      A function of a key (consumed) and ``draw(key)``, which makes one sample, to the estimate. One level is
      computed outside ``vmap``; inside, all of them.

    Gradient:
      Exact through the samples; unbiased as the value is, if g has as many derivatives.

    Raises:
      ValueError: if ``num_base`` is below 1, ``max_level`` below 0, or ``rate`` outside (1/2, 3/4).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> estimate = multilevel(jnp.log)
      >>> value = estimate(jax.random.key(0), lambda key: jnp.exp(jax.random.normal(key)))
      >>> bool(jnp.isfinite(value))
      True

    Reference:
      Blanchet, Glynn, "Unbiased Monte Carlo for Optimization and Functions of Expectations via Multi-level
      Randomization", 2015.
    """
    _check.at_least("multilevel", "num_base", num_base, 1)
    _check.at_least("multilevel", "max_level", max_level, 0)
    if not 0.5 < rate < 0.75:
        raise ValueError(f"multilevel: rate must lie in (1/2, 3/4), where variance and cost are finite; got {rate}")
    masses = [rate * (1 - rate) ** level for level in range(max_level + 1)]
    probabilities = [mass / sum(masses) for mass in masses]

    def estimate(key: Any, draw: Callable) -> Array:
        _check.key("multilevel", key)
        level_key, base_key, key = jax.random.split(key, 3)
        base = function(jnp.mean(jax.vmap(draw)(jax.random.split(base_key, num_base)), 0))

        def correction(level):
            def of_key(data):
                keys = jax.random.split(jax.random.wrap_key_data(data), (2, num_base * 2**level))
                halves = jnp.mean(jax.vmap(jax.vmap(draw))(keys), 1)
                fine = function(jnp.mean(halves, 0))
                return (fine - (function(halves[0]) + function(halves[1])) / 2) / probabilities[level]

            return of_key

        level = jax.random.categorical(level_key, jnp.log(jnp.array(probabilities)))
        # Key data and not the key: the checker takes one use in each branch for several.
        return base + lax.switch(level, [correction(k) for k in range(max_level + 1)], jax.random.key_data(key))

    return estimate


@jit()
def log_mean_exp(log_weights: Float[Array, "n"]) -> Estimate:
    r"""The logarithm of a mean weight with the jackknife's correction, its standard error, and the plug-in's bias.

    .. math:: n\, \ell - \frac{n - 1}{n} \sum_i \ell_{-i}, \qquad \ell = \log \frac{1}{n} \sum_j w_j, \quad
              \ell_{-i} = \log \frac{1}{n - 1} \sum_{j \ne i} w_j

    The plug-in :math:`\ell` is too low on average (the bound of importance-weighted autoencoders); for the delta method
    use :func:`delta`, for no bias at all :func:`multilevel`, of ``jnp.log``.

    Args:
      log_weights: logarithms of positive weights, in nats.

    Returns:
      An :class:`Estimate`; the plug-in is ``value + bias``. In the dtype of the logarithms; O(n), in logarithms.

    Gradient:
      Exact.

    Raises:
      ValueError: if there are fewer than 2 weights.

    Examples:
      >>> import jax.numpy as jnp
      >>> result = log_mean_exp(jnp.zeros(5))
      >>> float(result.value), float(result.standard_error)
      (0.0, 0.0)

    Reference:
      Nowozin, "Debiasing Evidence Approximations: On Importance-weighted Autoencoders and Jackknife Variational
      Inference", 2018.
    """
    enough("log_mean_exp", log_weights, 2)
    size = log_weights.shape[0]
    total = jax.nn.logsumexp(log_weights)
    # Without the largest: what is left of the sum would cancel, so that one is summed again.
    largest = jnp.argmax(log_weights)
    is_largest = jnp.arange(size) == largest
    others = jax.nn.logsumexp(jnp.where(is_largest, -jnp.inf, log_weights))
    share = jnp.where(is_largest, 0, jnp.exp(log_weights - total))
    parts = jnp.where(is_largest, others, total + jnp.log1p(-share)) - jnp.log(jnp.asarray(size - 1, total.dtype))
    whole = total - jnp.log(jnp.asarray(size, total.dtype))
    bias = (size - 1) * jnp.mean(parts - whole)
    spread = jnp.sum((parts - jnp.mean(parts)) ** 2) * ((size - 1) / size)
    return Estimate(whole - bias, safe_sqrt(spread), bias)
