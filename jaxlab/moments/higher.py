"""Moments to the fourth order and co-moments, as states that merge."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen

__all__ = ["CentralMoments", "CoMoments", "central_moments_of", "co_moments_of"]


class CentralMoments(NamedTuple):
    """Number and mean of samples, and the sums of the second to fourth powers of their deviations from it."""

    num_samples: Int[Array, ""]
    mean: Float[Array, "*shape"]
    second: Float[Array, "*shape"]
    third: Float[Array, "*shape"]
    fourth: Float[Array, "*shape"]

    @jit()
    def merge(self, other: "CentralMoments") -> "CentralMoments":
        r"""The moments of the union of two sets of samples.

        .. math:: M_3 = M_{3a} + M_{3b} + \delta^3 \frac{n_a n_b (n_a - n_b)}{n^2}
                        + 3 \delta \frac{n_a M_{2b} - n_b M_{2a}}{n}

        and alike for the fourth, with :math:`\delta` the difference of the means.

        Args:
          other: moments of other samples of the same shape; either may be empty.

        Returns:
          The moments of all of them.

        Gradient:
          Exact.

        Raises:
          ValueError: if the shapes differ.

        Examples:
          >>> import jax.numpy as jnp
          >>> state = central_moments_of(jnp.array([0.0, 0.0])).merge(central_moments_of(jnp.array([3.0])))
          >>> float(state.mean), float(state.second), float(state.third)
          (1.0, 6.0, 6.0)

        Reference:
          Pebay, "Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order Statistical
          Moments", 2008 (Sandia report SAND2008-6212).
        """
        _check.same_shape("CentralMoments.merge", self=self.mean, other=other.mean)
        dtype = self.mean.dtype
        total = self.num_samples + other.num_samples
        size = jnp.maximum(total, 1).astype(dtype)
        left, right = self.num_samples.astype(dtype) / size, other.num_samples.astype(dtype) / size
        change = other.mean - self.mean
        both = size * left * right
        second = self.second + other.second + change**2 * both
        third = self.third + other.third + change**3 * both * (left - right)
        third = third + 3 * change * (left * other.second - right * self.second)
        fourth = self.fourth + other.fourth + change**4 * both * (left**2 - left * right + right**2)
        fourth = fourth + 6 * change**2 * (left**2 * other.second + right**2 * self.second)
        fourth = fourth + 4 * change * (left * other.third - right * self.third)
        return CentralMoments(total, self.mean + change * right, second, third, fourth)


@jit()
def central_moments_of(samples: Float[Array, "n *shape"]) -> CentralMoments:
    """The moments to the fourth order of samples that lie along the first axis.

    Args:
      samples: n of them, of any shape; n may be 0, which gives the state to start a merge from.

    Returns:
      Their :class:`CentralMoments`, held in float32 (float64 for float64 samples).

    Gradient:
      Exact.

    Examples:
      >>> import jax.numpy as jnp
      >>> state = central_moments_of(jnp.array([0.0, 0.0, 3.0]))
      >>> float(state.second), float(state.third), float(state.fourth)
      (6.0, 6.0, 18.0)
    """
    samples = widen(samples)
    count = max(samples.shape[0], 1)
    mean = samples.sum(0) / count
    mean = mean + (samples - mean[None]).sum(0) / count
    deviations = samples - mean[None]
    powers = (jnp.sum(deviations**power, 0) for power in (2, 3, 4))
    return CentralMoments(jnp.array(samples.shape[0], jnp.int32), mean, *powers)


class CoMoments(NamedTuple):
    """Number and mean of vectors, and the sum of the outer products of their deviations from it."""

    num_samples: Int[Array, ""]
    mean: Float[Array, "d"]
    products: Float[Array, "d d"]

    @jit()
    def merge(self, other: "CoMoments") -> "CoMoments":
        r"""The co-moments of the union of two sets of vectors.

        .. math:: C = C_a + C_b + \frac{n_a n_b}{n}\, \delta \delta^\top

        Args:
          other: co-moments of other vectors of the same size; either may be empty.

        Returns:
          The co-moments of all of them.

        Gradient:
          Exact.

        Raises:
          ValueError: if the sizes differ.

        Examples:
          >>> import jax.numpy as jnp
          >>> state = co_moments_of(jnp.array([[0.0, 0.0]])).merge(co_moments_of(jnp.array([[2.0, 4.0]])))
          >>> state.products.tolist()
          [[2.0, 4.0], [4.0, 8.0]]

        Reference:
          Pebay, "Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order Statistical
          Moments", 2008 (Sandia report SAND2008-6212).
        """
        _check.same_shape("CoMoments.merge", self=self.mean, other=other.mean)
        total = self.num_samples + other.num_samples
        share = (other.num_samples / jnp.maximum(total, 1)).astype(self.mean.dtype)
        change = other.mean - self.mean
        both = share * self.num_samples.astype(share.dtype)
        products = self.products + other.products + both * jnp.outer(change, change)
        return CoMoments(total, self.mean + change * share, products)

    @jit(static=("unbiased",))
    def covariance(self, *, unbiased: bool = True) -> Float[Array, "d d"]:
        r"""The covariance matrix of the vectors.

        .. math:: \frac{1}{n - 1} \sum_i (x_i - \bar x)(x_i - \bar x)^\top

        Args:
          unbiased: divide by n - 1 or by n.

        Returns:
          A symmetric positive semidefinite matrix; NaN for fewer vectors than the divisor needs.

        Gradient:
          Exact.

        Examples:
          >>> import jax.numpy as jnp
          >>> co_moments_of(jnp.array([[0.0, 0.0], [2.0, 4.0]])).covariance().tolist()
          [[2.0, 4.0], [4.0, 8.0]]
        """
        divisor = (self.num_samples - 1 if unbiased else self.num_samples).astype(self.mean.dtype)
        return jnp.where(divisor > 0, self.products / jnp.maximum(divisor, 1), jnp.nan)


@jit()
def co_moments_of(samples: Float[Array, "n d"]) -> CoMoments:
    """The co-moments of vectors that lie along the first axis.

    Args:
      samples: n vectors; n may be 0.

    Returns:
      Their :class:`CoMoments`, held in float32 (float64 for float64 samples).

    Gradient:
      Exact.

    Examples:
      >>> import jax.numpy as jnp
      >>> co_moments_of(jnp.array([[0.0, 0.0], [2.0, 4.0]])).mean.tolist()
      [1.0, 2.0]
    """
    samples = widen(samples)
    count = max(samples.shape[0], 1)
    mean = samples.sum(0) / count
    mean = mean + (samples - mean[None]).sum(0) / count
    deviations = samples - mean[None]
    return CoMoments(
        jnp.array(samples.shape[0], jnp.int32), mean, jnp.matmul(deviations.T, deviations, precision="highest")
    )
