"""A statistic with what its error is, by computing it again on other samples: jackknife and bootstrap."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

from jaxlab import _check
from jaxlab._chunks import by_rows, rows_with_others
from jaxlab.moments.statistics import enough, safe_sqrt

__all__ = ["Bootstrap", "Estimate", "bootstrap", "jackknife"]


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


def _leave_one_out(statistic, samples):
    size = samples.shape[0]
    index = jnp.arange(size - 1).reshape(-1, *(1,) * (samples.ndim - 1))

    def of_others(out):
        return statistic(jnp.where(index < out, samples[:-1], samples[1:]))

    return by_rows(of_others, jnp.arange(size), rows_with_others(samples.size))


def jackknife(statistic: Callable) -> Callable:
    r"""A statistic with the bias of order 1 / n taken off, by leaving out one sample after the other.

    .. math:: n\, T - (n - 1)\, \overline{T_{-i}}, \qquad
              \mathrm{se}^2 = \frac{n - 1}{n} \sum_i (T_{-i} - \overline{T_{-i}})^2

    Args:
      statistic: a smooth function of samples [n, ...]; it is called on n - 1 samples n times, on up to 256 of
        these sets at once (fewer where they have more than 2 ** 21 numbers).

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


def bootstrap(statistic: Callable, *, num_resamples: int = 1000, level: float = 0.95) -> Callable:
    r"""A statistic with its error and confidence intervals, by drawing from the samples again and again.

    The percentile interval holds the middle ``level`` of the resampled statistics; the BCa interval shifts the
    percentiles by the bias :math:`z_0` and the acceleration a (from the jackknife):

    .. math:: \alpha' = \Phi\Big(z_0 + \frac{z_0 + z_\alpha}{1 - a (z_0 + z_\alpha)}\Big)

    Args:
      statistic: a function of samples [n, ...] to one number.
      num_resamples: how many sets of n samples are drawn with replacement, up to 256 at once (fewer where they have
        more than 2 ** 19 numbers).
      level: of the confidence intervals, in (0, 1).

    Returns:
      A function of a key (consumed) and samples to a :class:`Bootstrap`. Its ``value`` is the statistic as it is.

    Gradient:
      Exact with the draws held fixed, also through the order of the resampled statistics. That of a sample adds up what
      comes from each of its copies: on a GPU in no fixed order, so that two runs may differ in their last bits
      (``XLA_FLAGS=--xla_gpu_deterministic_ops=true`` fixes it).

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

        def of_resample(key):
            return statistic(samples[jax.random.randint(key, (size,), 0, size)])

        # With each sample that is drawn come random bits and its place, and a TPU takes more to gather it.
        at_once = rows_with_others(4 * samples.size)
        resampled = by_rows(of_resample, jax.random.split(key, num_resamples), at_once)
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
