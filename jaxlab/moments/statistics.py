"""Statistics of samples along the first axis, each in its biased and its unbiased version."""

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen

__all__ = [
    "covariance",
    "fourth_cumulant",
    "kurtosis",
    "mean",
    "skewness",
    "standard_deviation",
    "third_cumulant",
    "variance",
]


def enough(function: str, samples: Array, needed: int) -> None:
    """Raises unless there are as many samples as the statistic needs."""
    if samples.shape[0] < needed:
        some = "1 sample is" if needed == 1 else f"{needed} samples are"
        raise ValueError(f"{function}: at least {some} needed; got {samples.shape[0]}")


def as_many(function: str, **arguments: Array) -> None:
    """Raises unless the arguments are of one number, along their first axis."""
    counts = {name: jax.ShapeDtypeStruct(value.shape[:1], value.dtype) for name, value in arguments.items()}
    _check.same_shape(function, **counts)


def _broadcast(weights, samples):
    return weights.reshape(-1, *(1,) * (samples.ndim - 1))


def _centered(samples):
    samples = widen(samples)
    return samples - jnp.mean(samples, 0, keepdims=True)


def safe_sqrt(x: Array) -> Array:
    """The square root, whose derivative at 0 is 0 instead of infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), jnp.where(x == 0, 0, jnp.nan))


@jit()
def mean(samples: Float[Array, "n *shape"], *, weights: Float[Array, "n"] | None = None) -> Float[Array, "*shape"]:
    r"""The mean, :math:`\sum_i w_i x_i / \sum_i w_i`. There is one version: it is unbiased.

    Args:
      samples: n of them, of any shape.
      weights: of any kind, at least 0 and not all 0; 1 if absent. (Weights that depend on the samples make it a ratio,
        which is biased.)

    Returns:
      The mean, in float32 at least.

    Gradient:
      Exact.

    Raises:
      ValueError: if there is no sample, or another number of weights.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(mean(jnp.array([1.0, 4.0]), weights=jnp.array([2.0, 1.0])))
      2.0
    """
    enough("mean", samples, 1)
    samples = widen(samples)
    if weights is None:
        return jnp.mean(samples, 0)
    as_many("mean", samples=samples, weights=weights)
    weights = weights.astype(samples.dtype)
    return jnp.tensordot(weights / weights.sum(), samples, 1, precision="highest")


@jit(static=("unbiased",))
def variance(
    samples: Float[Array, "n *shape"],
    *,
    unbiased: bool = True,
    frequencies: Float[Array, "n"] | None = None,
    reliabilities: Float[Array, "n"] | None = None,
) -> Float[Array, "*shape"]:
    r"""The variance, with the divisor that makes it unbiased, or with n.

    .. math:: \frac{\sum_i w_i (x_i - \bar x)^2}{W - 1} \;\text{(frequencies)}, \qquad
              \frac{\sum_i w_i (x_i - \bar x)^2}{W - \sum_i w_i^2 / W} \;\text{(reliabilities)}, \qquad W = \sum_i w_i

    Args:
      samples: n of them, of any shape.
      unbiased: whether its mean over sets of samples is the variance; the biased one divides by W.
      frequencies: how often each sample was seen.
      reliabilities: weights whose scale does not matter, such as inverse variances. At most one kind of weights.

    Returns:
      At least 0, in float32 at least.

    Gradient:
      Exact.

    Raises:
      ValueError: if there are fewer than 2 samples (1 for the biased one), or both kinds of weights.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(variance(jnp.array([1.0, 3.0]))), float(variance(jnp.array([1.0, 3.0]), unbiased=False))
      (2.0, 1.0)
    """
    enough("variance", samples, 2 if unbiased and frequencies is None else 1)
    if frequencies is not None and reliabilities is not None:
        raise ValueError("variance: weights must be frequencies or reliabilities; got both")
    samples = widen(samples)
    weights = frequencies if reliabilities is None else reliabilities
    weights = jnp.ones(samples.shape[0], samples.dtype) if weights is None else weights.astype(samples.dtype)
    deviations = samples - mean(samples, weights=weights)[None]
    total = weights.sum()
    lost = jnp.sum(weights**2) / total if reliabilities is not None else jnp.ones_like(total)
    return jnp.tensordot(weights, deviations**2, 1, precision="highest") / (total - lost if unbiased else total)


@jit(static=("unbiased",))
def standard_deviation(samples: Float[Array, "n *shape"], *, unbiased: bool = True) -> Float[Array, "*shape"]:
    r"""The standard deviation: the root of the biased variance, or corrected so that it is unbiased for normal samples.

    .. math:: \hat\sigma = \frac{1}{c_4(n)} \sqrt{\frac{1}{n - 1} \sum_i (x_i - \bar x)^2}, \qquad
              c_4(n) = \sqrt{\frac{2}{n - 1}}\, \frac{\Gamma(n / 2)}{\Gamma((n - 1) / 2)}

    The root of an unbiased variance is biased, low: :math:`c_4(2) = 0.798`, :math:`c_4(10) = 0.973`.

    Args:
      samples: n of them, of any shape.
      unbiased: whether its mean over sets of *normal* samples is the standard deviation (nothing is for all laws).

    Returns:
      At least 0, in float32 at least.

    Gradient:
      Exact; 0 where all samples are equal.

    Raises:
      ValueError: if there are fewer than 2 samples (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> float(standard_deviation(jnp.array([1.0, 3.0]), unbiased=False))
      1.0
    """
    enough("standard_deviation", samples, 2 if unbiased else 1)
    root = safe_sqrt(variance(samples, unbiased=unbiased))
    if not unbiased:
        return root
    half = jnp.asarray((samples.shape[0] - 1) / 2, root.dtype)
    log_factor = gammaln(half + 0.5) - gammaln(half) - jnp.log(half) / 2
    return root / jnp.exp(log_factor)


@jit(static=("unbiased",))
def covariance(samples: Float[Array, "n d"], *, unbiased: bool = True) -> Float[Array, "d d"]:
    r"""The covariance matrix of vectors, with the divisor n - 1 or n.

    .. math:: \frac{1}{n - 1} \sum_i (x_i - \bar x)(x_i - \bar x)^\top

    Args:
      samples: n vectors.
      unbiased: divide by n - 1 (the mean over sets of samples is the covariance) or by n.

    Returns:
      A symmetric positive semidefinite matrix, in float32 at least.

    Gradient:
      Exact.

    Raises:
      ValueError: if there are fewer than 2 samples (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> covariance(jnp.array([[0.0, 0.0], [2.0, 4.0]])).tolist()
      [[2.0, 4.0], [4.0, 8.0]]
    """
    enough("covariance", samples, 2 if unbiased else 1)
    deviations = _centered(samples)
    return jnp.matmul(deviations.T, deviations, precision="highest") / (samples.shape[0] - unbiased)


@jit(static=("unbiased",))
def third_cumulant(samples: Float[Array, "n *shape"], *, unbiased: bool = True) -> Float[Array, "*shape"]:
    r"""The third central moment: the k-statistic, or the biased mean of cubes.

    .. math:: k_3 = \frac{n}{(n - 1)(n - 2)} \sum_i (x_i - \bar x)^3

    Args:
      samples: n of them, of any shape.
      unbiased: whether its mean over sets of samples, of any law, is the cumulant.

    Returns:
      Any number, in float32 at least.

    Gradient:
      Exact.

    Raises:
      ValueError: if there are fewer than 3 samples (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> float(third_cumulant(jnp.array([0.0, 0.0, 3.0])))
      9.0

    Reference:
      Fisher, "Moments and Product Moments of Sampling Distributions", 1930 (k-statistics).
    """
    enough("third_cumulant", samples, 3 if unbiased else 1)
    size = samples.shape[0]
    third = jnp.mean(_centered(samples) ** 3, 0)
    return third * (size**2 / ((size - 1) * (size - 2))) if unbiased else third


@jit(static=("unbiased",))
def fourth_cumulant(samples: Float[Array, "n *shape"], *, unbiased: bool = True) -> Float[Array, "*shape"]:
    r"""The fourth cumulant, :math:`\mu_4 - 3 \mu_2^2`: the k-statistic, or the biased plug-in.

    .. math:: k_4 = \frac{n^2 \big((n + 1)\, m_4 - 3 (n - 1)\, m_2^2\big)}{(n - 1)(n - 2)(n - 3)}, \qquad
              m_p = \frac{1}{n} \sum_i (x_i - \bar x)^p

    Args:
      samples: n of them, of any shape.
      unbiased: whether its mean over sets of samples, of any law, is the cumulant.

    Returns:
      Any number, in float32 at least; 0 in expectation for normal samples.

    Gradient:
      Exact.

    Raises:
      ValueError: if there are fewer than 4 samples (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> float(fourth_cumulant(jnp.array([1.0, -1.0]), unbiased=False))
      -2.0

    Reference:
      Fisher, "Moments and Product Moments of Sampling Distributions", 1930 (k-statistics).
    """
    enough("fourth_cumulant", samples, 4 if unbiased else 1)
    n = samples.shape[0]
    deviations = _centered(samples)
    second, fourth = jnp.mean(deviations**2, 0), jnp.mean(deviations**4, 0)
    if not unbiased:
        return fourth - 3 * second**2
    return ((n + 1) * fourth - 3 * (n - 1) * second**2) * (n**2 / ((n - 1) * (n - 2) * (n - 3)))


def _ratio(cumulant, spread):
    varies = spread > 0
    return jnp.where(varies, cumulant / jnp.where(varies, spread, 1), 0)


@jit(static=("unbiased",))
def skewness(samples: Float[Array, "n *shape"], *, unbiased: bool = True) -> Float[Array, "*shape"]:
    r"""The skewness: of k-statistics, or of biased moments.

    .. math:: k_3 / k_2^{3/2} \quad\text{or}\quad m_3 / m_2^{3/2}

    Args:
      samples: n of them, of any shape.
      unbiased: use the unbiased cumulants (``scipy.stats.skew(bias=False)``). Their ratio is unbiased for normal
        samples only; no estimator is for all laws.

    Returns:
      Any number, in float32 at least; 0 where all samples are equal.

    Gradient:
      Exact where the samples vary.

    Raises:
      ValueError: if there are fewer than 3 samples (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> f"{float(skewness(jnp.array([0.0, 0.0, 3.0]), unbiased=False)):.4f}"
      '0.7071'
    """
    enough("skewness", samples, 3 if unbiased else 1)
    second = variance(samples, unbiased=unbiased)
    positive = second > 0
    return _ratio(
        third_cumulant(samples, unbiased=unbiased), jnp.where(positive, jnp.where(positive, second, 1) ** 1.5, 0)
    )


@jit(static=("unbiased",))
def kurtosis(samples: Float[Array, "n *shape"], *, unbiased: bool = True) -> Float[Array, "*shape"]:
    r"""The excess kurtosis, 0 for a normal law: of k-statistics, or of biased moments.

    .. math:: k_4 / k_2^2 \quad\text{or}\quad m_4 / m_2^2 - 3

    Args:
      samples: n of them, of any shape.
      unbiased: use the unbiased cumulants (``scipy.stats.kurtosis(bias=False)``). Their ratio is unbiased for normal
        samples only; no estimator is for all laws.

    Returns:
      Any number, in float32 at least; 0 where all samples are equal.

    Gradient:
      Exact where the samples vary.

    Raises:
      ValueError: if there are fewer than 4 samples (1 for the biased one).

    Examples:
      >>> import jax.numpy as jnp
      >>> float(kurtosis(jnp.array([1.0, -1.0]), unbiased=False))
      -2.0
    """
    enough("kurtosis", samples, 4 if unbiased else 1)
    return _ratio(fourth_cumulant(samples, unbiased=unbiased), variance(samples, unbiased=unbiased) ** 2)
