"""Covariance matrices of few samples, drawn towards a multiple of the identity by just so much."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlab._jit import jit
from jaxlab.moments.statistics import covariance, enough

__all__ = ["ShrunkCovariance", "ledoit_wolf", "oracle_approximating"]


class ShrunkCovariance(NamedTuple):
    """A covariance matrix, and the share of it that is a multiple of the identity."""

    covariance: Float[Array, "d d"]
    shrinkage: Float[Array, ""]


def _shrink(matrix, shrinkage):
    size = matrix.shape[0]
    return (1 - shrinkage) * matrix + shrinkage * jnp.trace(matrix) / size * jnp.eye(size, dtype=matrix.dtype)


@jit()
def ledoit_wolf(samples: Float[Array, "n d"]) -> ShrunkCovariance:
    r"""The covariance with the shrinkage that is best in mean square for many samples, of any law.

    .. math:: (1 - \rho) S + \rho\, \frac{\mathrm{tr}\, S}{d} I, \qquad
              \rho = \min\Big(1, \frac{\sum_i \lVert x_i x_i^\top - S \rVert^2 / n^2}{\lVert S - \mathrm{tr}(S) I / d
              \rVert^2}\Big)

    with centred samples and S the biased covariance.

    Args:
      samples: n vectors.

    Returns:
      A :class:`ShrunkCovariance`, in float32 at least; the shrinkage is in [0, 1] (0 where nothing varies).

    Gradient:
      Exact, where the shrinkage is below 1.

    Raises:
      ValueError: if there is no sample.

    Examples:
      >>> import jax.numpy as jnp
      >>> bool(ledoit_wolf(jnp.array([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])).shrinkage > 0)
      True

    Reference:
      Ledoit, Wolf, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004.
    """
    enough("ledoit_wolf", samples, 1)
    matrix = covariance(samples, unbiased=False)
    size, dim = samples.shape
    deviations = samples.astype(matrix.dtype)
    deviations = deviations - jnp.mean(deviations, 0, keepdims=True)
    target = jnp.trace(matrix) / dim * jnp.eye(dim, dtype=matrix.dtype)
    distance = jnp.sum((matrix - target) ** 2)
    noise = (jnp.sum(jnp.sum(deviations**2, 1) ** 2) / size - jnp.sum(matrix**2)) / size
    varies = distance > 0
    shrinkage = jnp.where(varies, jnp.clip(noise / jnp.where(varies, distance, 1), 0, 1), 0)
    return ShrunkCovariance(_shrink(matrix, shrinkage), shrinkage)


@jit()
def oracle_approximating(samples: Float[Array, "n d"]) -> ShrunkCovariance:
    r"""The covariance with the shrinkage that approximates the best one for normal samples (OAS).

    .. math:: \rho = \min\Big(1, \frac{\lVert S \rVert^2 / d^2 + (\mathrm{tr}\, S / d)^2}{(n + 1) \big(\lVert S
              \rVert^2 / d^2 - (\mathrm{tr}\, S / d)^2 / d\big)}\Big)

    the formula as scikit-learn computes it, with S the biased covariance.

    Args:
      samples: n vectors.

    Returns:
      A :class:`ShrunkCovariance`, in float32 at least; the shrinkage is in [0, 1].

    Gradient:
      Exact, where the shrinkage is below 1.

    Raises:
      ValueError: if there is no sample.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(oracle_approximating(jnp.zeros((3, 2))).shrinkage)
      1.0

    Reference:
      Chen et al., "Shrinkage Algorithms for MMSE Covariance Estimation", 2010, eq. (23).
    """
    enough("oracle_approximating", samples, 1)
    matrix = covariance(samples, unbiased=False)
    size, dim = samples.shape
    square, trace = jnp.mean(matrix**2), (jnp.trace(matrix) / dim) ** 2
    denominator = (size + 1) * (square - trace / dim)
    varies = denominator > 0
    shrinkage = jnp.where(varies, jnp.minimum((square + trace) / jnp.where(varies, denominator, 1), 1), 1)
    return ShrunkCovariance(_shrink(matrix, shrinkage), shrinkage)
