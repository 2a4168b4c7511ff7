r"""Means and variances that are gathered in pieces, their standard errors, and moving averages.

A statistic over more samples than fit in memory (or on one device) is a small state: it is made from a part of the
samples, two states merge into the state of the union, and merging in any order and grouping gives the same numbers up
to rounding. Differences are taken from the mean, never between large sums: 10,000 + N(0, 1) in float32 keeps its
variance.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen

__all__ = ["Moments", "MovingAverage", "moments_of", "moving_average"]


class Moments(NamedTuple):
    """Number, mean and sum of squared deviations of samples: a state that merges."""

    num_samples: Int[Array, ""]
    mean: Float[Array, "*shape"]
    sum_of_squares: Float[Array, "*shape"]  # of the deviations from the mean

    @jit()
    def merge(self, other: "Moments") -> "Moments":
        r"""The moments of the union of two sets of samples.

        .. math:: M = M_a + M_b + (\bar x_b - \bar x_a)^2\, n_a n_b / n, \qquad
                  \bar x = \bar x_a + (\bar x_b - \bar x_a)\, n_b / n

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
          >>> merged = moments_of(jnp.array([1.0, 2.0])).merge(moments_of(jnp.array([6.0])))
          >>> int(merged.num_samples), float(merged.mean), float(merged.variance())
          (3, 3.0, 7.0)

        Reference:
          Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979
          (Stanford University, technical report STAN-CS-79-773).
        """
        _check.same_shape("Moments.merge", self=self.mean, other=other.mean)
        total = self.num_samples + other.num_samples
        share = (other.num_samples / jnp.maximum(total, 1)).astype(self.mean.dtype)
        difference = other.mean - self.mean
        return Moments(
            total,
            self.mean + difference * share,
            self.sum_of_squares + other.sum_of_squares + difference**2 * share * self.num_samples.astype(share.dtype),
        )

    @jit(static=("unbiased",))
    def variance(self, *, unbiased: bool = True) -> Float[Array, "*shape"]:
        r"""The variance of the samples, in their unit squared.

        .. math:: \hat\sigma^2 = \frac{1}{n - 1} \sum_i (x_i - \bar x)^2

        Args:
          unbiased: divide by n - 1 (the mean of this over samples is the variance) or by n.

        Returns:
          At least 0; NaN for fewer samples than the divisor needs (2, or 1 when not unbiased).

        Gradient:
          Exact.

        Examples:
          >>> import jax.numpy as jnp
          >>> state = moments_of(jnp.array([1.0, 3.0]))
          >>> float(state.variance()), float(state.variance(unbiased=False))
          (2.0, 1.0)
        """
        divisor = (self.num_samples - 1 if unbiased else self.num_samples).astype(self.mean.dtype)
        return jnp.where(divisor > 0, self.sum_of_squares / jnp.maximum(divisor, 1), jnp.nan)

    @jit()
    def standard_error(self) -> Float[Array, "*shape"]:
        r"""The standard error of the mean, :math:`\hat\sigma / \sqrt n`, in the unit of the samples.

        Returns:
          At least 0; NaN for fewer than 2 samples.

        Gradient:
          Exact where the variance is not 0.

        Examples:
          >>> import jax.numpy as jnp
          >>> float(moments_of(jnp.array([1.0, 3.0])).standard_error())
          1.0
        """
        return jnp.sqrt(self.variance() / jnp.maximum(self.num_samples, 1).astype(self.mean.dtype))

    @jit()
    def z_score(self, expected: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r"""How many standard errors the mean lies above ``expected``: :math:`(\bar x - \mu) / (\hat\sigma / \sqrt n)`.

        Args:
          expected: the mean :math:`\mu` under the hypothesis; of the shape of one sample.

        Returns:
          Near N(0, 1) for many samples if the hypothesis holds; 0 if mean and ``expected`` are equal, infinite
          if they differ and the samples do not vary.

        Gradient:
          Exact where the variance is not 0.

        Raises:
          ValueError: if the shape of ``expected`` is another one.

        Examples:
          >>> import jax.numpy as jnp
          >>> float(moments_of(jnp.array([1.0, 3.0])).z_score(jnp.array(0.0)))
          2.0
        """
        _check.same_shape("Moments.z_score", mean=self.mean, expected=expected)
        difference = self.mean - expected
        return jnp.where(difference == 0, 0, difference / self.standard_error())


@jit()
def moments_of(samples: Float[Array, "n *shape"]) -> Moments:
    """The moments of samples that lie along the first axis.

    Args:
      samples: n of them, of any shape; n may be 0, which gives the state to start a merge from.

    Returns:
      Their :class:`Moments`, held in float32 (float64 for float64 samples).

    Gradient:
      Exact.

    Examples:
      >>> import jax.numpy as jnp
      >>> state = moments_of(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
      >>> state.mean.tolist(), state.variance().tolist()
      ([2.0, 5.0], [2.0, 0.0])
    """
    samples = widen(samples)
    count = samples.shape[0]
    mean = samples.sum(0) / max(count, 1)
    # A second look at the rounding of the mean itself costs nothing beside the squares (the corrected two-pass form).
    mean = mean + (samples - mean[None]).sum(0) / max(count, 1)
    return Moments(jnp.array(count, jnp.int32), mean, jnp.sum((samples - mean[None]) ** 2, 0))


class MovingAverage(NamedTuple):
    """An exponentially weighted mean of past values, and the weight they have so far: a state that is updated."""

    weighted_sum: Float[Array, "*shape"]
    weight: Float[Array, ""]

    @jit()
    def mean(self) -> Float[Array, "*shape"]:
        r"""The weighted mean of the values so far, :math:`s_t / w_t`: exact from the first one on.

        Returns:
          The mean; 0 before the first update.

        Gradient:
          Exact.

        Examples:
          >>> float(moving_average().mean())
          0.0
        """
        return jnp.where(self.weight > 0, self.weighted_sum / jnp.where(self.weight > 0, self.weight, 1), 0)

    @jit(fraction=("decay",))
    def update(self, value: Float[Array, "*shape"], *, decay: ScalarLike = 0.99) -> "MovingAverage":
        r"""The average after one more value.

        .. math:: s_t = d\, s_{t-1} + (1 - d)\, x_t, \qquad w_t = d\, w_{t-1} + (1 - d), \qquad \bar x_t = s_t / w_t

        The sum and its weight decay alike, so the mean of a constant is that constant at every step. (Dividing by
        :math:`1 - d^t` and storing the quotient, as some libraries do, corrects twice.)

        Args:
          value: the next value.
          decay: how much of the old sum stays, in [0, 1).

        Returns:
          The new state.

        Gradient:
          Exact.

        Raises:
          ValueError: if ``value`` is of another shape, or ``decay`` a Python number outside [0, 1).

        Examples:
          >>> import jax.numpy as jnp
          >>> float(moving_average().update(jnp.array(3.0)).update(jnp.array(3.0)).mean())
          3.0
        """
        _check.same_shape("MovingAverage.update", average=self.weighted_sum, value=value)
        decay = jnp.asarray(decay, self.weight.dtype)
        weighted_sum = decay * self.weighted_sum + (1 - decay) * widen(jnp.asarray(value))
        return MovingAverage(weighted_sum, decay * self.weight + (1 - decay))


def moving_average(*, shape: tuple[int, ...] = ()) -> MovingAverage:
    """A moving average that has seen nothing: its mean is 0 and its first value will count in full.

    Args:
      shape: of one value.

    Returns:
      The state to update.

    Gradient:
      None: it is a constant.

    Examples:
      >>> state = moving_average()
      >>> float(state.update(jnp.array(5.0)).mean())
      5.0
    """
    return MovingAverage(jnp.zeros(shape), jnp.zeros(()))
