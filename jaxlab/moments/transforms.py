"""Transformations of statistics: the same statistic with less bias, and with what its error is."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.moments.statistics import enough, safe_sqrt

__all__ = [
    "Bootstrap",
    "Estimate",
    "bootstrap",
    "delta",
    "jackknife",
    "log_mean_exp",
    "multilevel",
    "u_statistic",
    "v_statistic",
]


class Estimate(NamedTuple):
    """A statistic with its bias taken off, its standard error, and the bias that was found."""

    value: Float[Array, "*shape"]
    standard_error: Float[Array, "*shape"]
    bias: Float[Array, "*shape"]


class Bootstrap(NamedTuple):
    """A statistic, its standard error and bias, and two confidence intervals [low, high]: percentiles, and BCa."""

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    bias: Float[Array, ""]
    percentile: Float[Array, "2"]
    accelerated: Float[Array, "2"]


def _tuples(kernel, samples, order):
    """The kernel at all ordered tuples of samples: an array with one axis of n for each place."""
    function = kernel
    for place in reversed(range(order)):
        function = jax.vmap(function, [0 if other == place else None for other in range(order)])
    return function(*(samples,) * order)


def u_statistic(kernel: Callable, *, order: int = 2) -> Callable:
    r"""The unbiased mean of a kernel: over all tuples of *different* samples.

    .. math:: U = \frac{(n - r)!}{n!} \sum_{i_1, \dots, i_r \;\text{different}} h(x_{i_1}, \dots, x_{i_r})

    Args:
      kernel: h, a function of ``order`` single samples; its value is a number or an array.
      order: r, at least 1; the cost is n to the power r.

    Returns:
      A function of samples [n, ...]: the U-statistic, whose mean over sets of independent samples is that of h.

    Gradient:
      Exact, and unbiased as the gradient of the mean of h.

    Raises:
      ValueError: if ``order`` is below 1; when called, if there are fewer samples than ``order``.

    Examples:
      >>> import jax.numpy as jnp
      >>> half_square = u_statistic(lambda x, y: (x - y) ** 2 / 2)
      >>> float(half_square(jnp.array([1.0, 3.0])))  # the variance
      2.0

    Reference:
      Hoeffding, "A Class of Statistics with Asymptotically Normal Distribution", 1948.
    """
    _check.at_least("u_statistic", "order", order, 1)

    def statistic(samples: Array) -> Array:
        enough("u_statistic", samples, order)
        size = samples.shape[0]
        values = _tuples(kernel, samples, order)
        index = jnp.arange(size)
        different = jnp.ones((size,) * order, bool)
        for one, other in itertools.combinations(range(order), 2):
            along = [jnp.expand_dims(index, [a for a in range(order) if a != place]) for place in (one, other)]
            different = different & jnp.broadcast_to(along[0] != along[1], different.shape)
        mask = different.reshape(*different.shape, *(1,) * (values.ndim - order))
        count = 1.0
        for place in range(order):
            count *= size - place
        # The kernel at equal samples may be infinite: it is left out before it is added.
        return jnp.sum(jnp.where(mask, values, 0), tuple(range(order))) / count

    return statistic


def v_statistic(kernel: Callable, *, order: int = 2) -> Callable:
    r"""The plug-in mean of a kernel: over all tuples of samples, equal ones too; biased, of less variance.

    .. math:: V = n^{-r} \sum_{i_1, \dots, i_r} h(x_{i_1}, \dots, x_{i_r})

    Args:
      kernel: h, a function of ``order`` single samples; its value is a number or an array.
      order: r, at least 1; the cost is n to the power r.

    Returns:
      A function of samples [n, ...]: the V-statistic, the mean of h under the empirical distribution.

    Gradient:
      Exact; biased as the gradient of the mean of h, by O(1 / n).

    Raises:
      ValueError: if ``order`` is below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> half_square = v_statistic(lambda x, y: (x - y) ** 2 / 2)
      >>> float(half_square(jnp.array([1.0, 3.0])))  # the biased variance
      1.0

    Reference:
      von Mises, "On the Asymptotic Distribution of Differentiable Statistical Functions", 1947.
    """
    _check.at_least("v_statistic", "order", order, 1)

    def statistic(samples: Array) -> Array:
        enough("v_statistic", samples, 1)
        return jnp.mean(_tuples(kernel, samples, order), tuple(range(order)))

    return statistic


def _leave_one_out(statistic, samples):
    size = samples.shape[0]
    # Sample number size - 1 stands in for the one left out, whose place is the last.
    index = jnp.arange(size - 1)
    return jax.vmap(lambda out: statistic(samples[jnp.where(index < out, index, index + 1)]))(jnp.arange(size))


def jackknife(statistic: Callable) -> Callable:
    r"""A statistic with the bias of order 1 / n taken off, by leaving out one sample after the other.

    .. math:: n\, T - (n - 1)\, \overline{T_{-i}}, \qquad
              \mathrm{se}^2 = \frac{n - 1}{n} \sum_i (T_{-i} - \overline{T_{-i}})^2

    Args:
      statistic: a smooth function of samples [n, ...]; it is called on n - 1 samples n times, in one ``vmap``.

    Returns:
      A function of samples to an :class:`Estimate`.

    Gradient:
      Exact; that of the value has the bias of order 1 / n taken off too, as a gradient of what T tends to.

    Raises:
      ValueError: when called, if there are fewer than 2 samples.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(jackknife(lambda x: jnp.mean(x) ** 2)(jnp.array([1.0, 3.0])).value)
      3.0

    Reference:
      Quenouille, "Notes on Bias in Estimation", 1956; Efron, Stein, "The Jackknife Estimate of Variance", 1981.
    """

    def estimate(samples: Array) -> Estimate:
        enough("jackknife", samples, 2)
        size = samples.shape[0]
        whole, parts = statistic(samples), _leave_one_out(statistic, samples)
        bias = (size - 1) * (jnp.mean(parts, 0) - whole)
        spread = jnp.sum((parts - jnp.mean(parts, 0, keepdims=True)) ** 2, 0) * ((size - 1) / size)
        return Estimate(whole - bias, safe_sqrt(spread), bias)

    return estimate


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
        size = samples.shape[0]
        center = jnp.mean(samples, 0)
        deviations = samples - center[None]

        def along(direction):
            slope = lambda point: jax.jvp(function, (point,), (direction,))[1]  # noqa: E731
            first, second = jax.jvp(slope, (center,), (direction,))
            return first, second

        slopes, curvatures = jax.vmap(along)(deviations)
        scale = 1 / ((size - 1) * size)
        bias = jnp.sum(curvatures) * scale / 2
        return Estimate(function(center) - bias, safe_sqrt(jnp.sum(slopes**2) * scale), bias)

    return estimate


def bootstrap(statistic: Callable, *, num_resamples: int = 1000, level: float = 0.95) -> Callable:
    r"""A statistic with its error and confidence intervals, by drawing from the samples again and again.

    The percentile interval holds the middle ``level`` of the resampled statistics; the BCa interval shifts the
    percentiles by the bias :math:`z_0` and the acceleration a (from the jackknife):

    .. math:: \alpha' = \Phi\Big(z_0 + \frac{z_0 + z_\alpha}{1 - a (z_0 + z_\alpha)}\Big)

    Args:
      statistic: a function of samples [n, ...] to one number.
      num_resamples: how many sets of n samples are drawn with replacement.
      level: of the confidence intervals, in (0, 1).

    Returns:
      A function of a key (consumed) and samples to a :class:`Bootstrap`. Its ``value`` is the statistic as it is.

    Gradient:
      Exact with the draws held fixed, also through the order of the resampled statistics.

    Raises:
      ValueError: if ``num_resamples`` is below 2, or ``level`` outside (0, 1); when called, if there are fewer than 2
        samples.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> result = bootstrap(jnp.mean)(jax.random.key(0), jnp.arange(100.0))
      >>> bool(result.percentile[0] < 49.5 < result.percentile[1])
      True

    Reference:
      Efron, "Better Bootstrap Confidence Intervals", 1987, section 2.
    """
    _check.at_least("bootstrap", "num_resamples", num_resamples, 2)
    if not 0 < level < 1:
        raise ValueError(f"bootstrap: level must lie in (0, 1); got {level}")

    def estimate(key: Any, samples: Array) -> Bootstrap:
        _check.key("bootstrap", key)
        enough("bootstrap", samples, 2)
        size = samples.shape[0]
        value = statistic(samples)
        draws = jax.random.randint(key, (num_resamples, size), 0, size)
        resampled = jax.vmap(lambda draw: statistic(samples[draw]))(draws)
        tails = jnp.array([(1 - level) / 2, (1 + level) / 2], value.dtype)
        center = jnp.mean(resampled)
        below = jnp.mean(jnp.where(resampled == value, 0.5, jnp.where(resampled < value, 1.0, 0.0))).astype(value.dtype)
        shift = ndtri(jnp.clip(below, 0.5 / num_resamples, 1 - 0.5 / num_resamples))
        parts = _leave_one_out(statistic, samples)
        deviations = jnp.mean(parts) - parts
        squares = jnp.sum(deviations**2)
        spread = jnp.where(squares > 0, squares, 1) ** 1.5
        acceleration = jnp.where(squares > 0, jnp.sum(deviations**3) / (6 * spread), 0)
        moved = shift + ndtri(tails)
        tails_shifted = ndtr(shift + moved / (1 - acceleration * moved))
        return Bootstrap(
            value,
            safe_sqrt(jnp.sum((resampled - center) ** 2) / (num_resamples - 1)),
            center - value,
            jnp.quantile(resampled, tails),
            jnp.quantile(resampled, tails_shifted),
        )

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
