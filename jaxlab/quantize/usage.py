"""How a quantizer uses its codes: sums that merge over batches, epochs and devices, and what follows from them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.quantize._sums import counts_of

__all__ = ["CodeUsage", "code_usage"]


class CodeUsage(NamedTuple):
    """Sums over vectors. ``jax.lax.psum`` of it, or :meth:`merge`, is the usage over all devices, or an epoch.

    Of vectors with several codes (of stages or groups) each position has counts of its own.
    """

    counts: Int[Array, "*code k"]  # how often each code was taken
    num_vectors: Int[Array, ""]  # that were in the mask
    num_not_finite: Int[Array, ""]  # of these, with NaN or infinity; they are in no other sum
    signal: Float[Array, ""]  # squares of the vectors
    noise: Float[Array, ""]  # squares of their differences from the values
    log_prob: Float[Array, ""]  # of the codes under a prior, in nats; NaN without one

    @jit()
    def merge(self, other: "CodeUsage") -> "CodeUsage":
        """The usage over the union of two sets of vectors.

        Args:
          other: the usage of other vectors, of the same quantizer.

        Returns:
          Sums of both.

        Gradient:
          Exact, where sums are differentiable at all.

        Raises:
          ValueError: if the numbers of codes differ.

        Examples:
          >>> import jax.numpy as jnp
          >>> x = jnp.ones((2, 1))
          >>> usage = code_usage(x, x, jnp.array([0, 1]), num_codes=2)
          >>> usage.merge(usage).counts.tolist()
          [2, 2]
        """
        _check.same_shape("CodeUsage.merge", self=self.counts, other=other.counts)
        return CodeUsage(*(a + b for a, b in zip(self, other, strict=True)))

    @jit()
    def frequencies(self) -> Float[Array, "*code k"]:
        """How often each code was taken, as a part of all.

        Returns:
          Numbers in [0, 1] that sum to one over codes; 0 if nothing was counted.

        Gradient:
          None: counts are integers.

        Examples:
          >>> import jax.numpy as jnp
          >>> x = jnp.ones((4, 1))
          >>> code_usage(x, x, jnp.array([0, 0, 0, 2]), num_codes=3).frequencies().tolist()
          [0.75, 0.0, 0.25]
        """
        total = jnp.sum(self.counts, -1, keepdims=True, dtype=self.counts.dtype)
        return self.counts.astype(self.signal.dtype) / jnp.maximum(total, 1).astype(self.signal.dtype)

    @jit()
    def marginal_bits(self) -> Float[Array, "*code"]:
        r"""Bits of one code under the frequencies of codes, :math:`-\sum_k p_k \log_2 p_k`.

        What an entropy coder needs that knows how often each code is taken, and nothing of its neighbours.

        Returns:
          Numbers in [0, log2 k], one for each position of a code; their sum is the bits of a vector.

        Gradient:
          None: counts are integers.

        Examples:
          >>> import jax.numpy as jnp
          >>> x = jnp.ones((4, 1))
          >>> float(code_usage(x, x, jnp.array([0, 0, 1, 2]), num_codes=3).marginal_bits())
          1.5
        """
        p = self.frequencies()
        return -jnp.sum(jnp.where(p > 0, p * jnp.log2(jnp.where(p > 0, p, 1)), 0), -1)

    @jit()
    def nominal_bits(self) -> Float[Array, "*code"]:
        r"""Bits of one code written as a number, :math:`\log_2 k`.

        Returns:
          The same number for each position of a code.

        Gradient:
          None: it is a constant.

        Examples:
          >>> import jax.numpy as jnp
          >>> x = jnp.ones((1, 1))
          >>> float(code_usage(x, x, jnp.array([0]), num_codes=8).nominal_bits())
          3.0
        """
        _check.axis_of("CodeUsage.nominal_bits", "counts", self.counts, -1)
        return jnp.full(self.counts.shape[:-1], math.log2(self.counts.shape[-1]), self.signal.dtype)

    @jit()
    def prior_bits(self) -> Float[Array, ""]:
        r"""Bits of all codes of one vector under the prior that gave ``log_prob``, :math:`-\overline{\log_2 p}`.

        Returns:
          At least 0 for a prior over codes; NaN if no ``log_prob`` was given.

        Gradient:
          Exact with respect to ``log_prob``.

        Examples:
          >>> import jax.numpy as jnp
          >>> x = jnp.ones((2, 1))
          >>> usage = code_usage(x, x, jnp.array([0, 1]), num_codes=2, log_prob=jnp.log(jnp.array([0.5, 0.25])))
          >>> float(usage.prior_bits())
          1.5
        """
        count = jnp.maximum(self.num_vectors - self.num_not_finite, 1).astype(self.log_prob.dtype)
        return -self.log_prob / (math.log(2) * count)

    @jit()
    def perplexity(self) -> Float[Array, "*code"]:
        r"""How many codes are used, as it were equally often: :math:`2^{\text{marginal bits}}`.

        That of a whole epoch; the perplexity of a batch is at most its number of vectors.

        Returns:
          Numbers in [1, k], one for each position of a code.

        Gradient:
          None: counts are integers.

        Examples:
          >>> import jax.numpy as jnp
          >>> x = jnp.ones((4, 1))
          >>> float(code_usage(x, x, jnp.array([0, 1, 2, 3]), num_codes=8).perplexity())
          4.0
        """
        return jnp.exp2(self.marginal_bits())

    @jit()
    def dead_fraction(self) -> Float[Array, "*code"]:
        """The part of the codes that was never taken.

        Returns:
          Numbers in [0, 1], one for each position of a code.

        Gradient:
          None: counts are integers.

        Examples:
          >>> import jax.numpy as jnp
          >>> x = jnp.ones((1, 1))
          >>> float(code_usage(x, x, jnp.array([0]), num_codes=4).dead_fraction())
          0.75
        """
        return jnp.mean((self.counts == 0).astype(self.signal.dtype), -1)

    @jit()
    def signal_to_noise(self) -> Float[Array, ""]:
        r"""The quantization's signal-to-noise ratio in decibels, :math:`10 \log_{10} (\sum x^2 / \sum (x - z)^2)`.

        Returns:
          Infinite if the values are the vectors.

        Gradient:
          Exact.

        Examples:
          >>> import jax.numpy as jnp
          >>> x = jnp.array([[10.0]])
          >>> float(code_usage(x, x - 1, jnp.array([0]), num_codes=1).signal_to_noise().round(3))
          20.0
        """
        return 10 * jnp.log10(self.signal / self.noise)


@jit(static=("num_codes",))
def code_usage(
    x: Float[Array, "*n d"],
    values: Float[Array, "*n d"],
    codes: Int[Array, "*codes"],
    *,
    num_codes: int,
    mask: Bool[Array, "*n"] | None = None,
    log_prob: Float[Array, "*n"] | None = None,
) -> CodeUsage:
    """What a batch adds to the statistics of a quantizer.

    Args:
      x: the vectors.
      values: their stand-ins.
      codes: of each vector one, or several along further axes; negative ones are not counted.
      num_codes: size of the codebook.
      mask: which vectors count.
      log_prob: of each vector's codes under a prior, in nats.

    Returns:
      Sums, in int32 and float32 (float64 for float64 vectors).

    Gradient:
      Exact where sums are differentiable: ``signal`` and ``noise`` in x and values, ``log_prob`` in itself.

    Raises:
      ValueError: if vectors, values, codes, mask or log_prob do not fit together.

    Examples:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.1], [jnp.nan], [0.9]])
      >>> usage = code_usage(x, jnp.round(x), jnp.array([0, 0, 1]), num_codes=2)
      >>> usage.counts.tolist(), int(usage.num_vectors), int(usage.num_not_finite)
      ([1, 1], 3, 1)
    """
    _check.at_least("code_usage", "num_codes", num_codes, 1)
    _check.same_shape("code_usage", x=x, values=values)
    shape = x.shape[:-1]
    for argument, value in (("mask", mask), ("log_prob", log_prob)):
        if value is not None and value.shape != shape:
            raise ValueError(f"code_usage: {argument} must be of shape {list(shape)}; got {list(value.shape)}")
    if codes.shape[: len(shape)] != shape:
        raise ValueError(f"code_usage: codes must be of shape {[*shape, '...']}; got {list(codes.shape)}")
    x, values = widen(x), widen(values)
    inside = jnp.ones(shape, bool) if mask is None else mask
    usable = inside & jnp.all(jnp.isfinite(x), -1)
    codes = jnp.where(jnp.expand_dims(usable, tuple(range(len(shape), codes.ndim))), codes, -1)
    by_position = codes.reshape(math.prod(shape), math.prod(codes.shape[len(shape) :])).T
    # A code of -1 is none: beyond the last one it falls out.
    places = jnp.where(by_position < 0, num_codes, by_position)
    counts = jax.vmap(lambda places: counts_of(places.astype(jnp.int32), num_codes=num_codes))(places)

    def total(rows):
        return jnp.sum(jnp.where(usable, rows, 0))

    safe = jnp.where(usable[..., None], x, 0)
    difference = jnp.where(usable[..., None], x - values, 0)
    return CodeUsage(
        counts.reshape(*codes.shape[len(shape) :], num_codes),
        jnp.sum(inside, dtype=jnp.int32),
        jnp.sum(inside & ~usable, dtype=jnp.int32),
        jnp.sum(safe**2),
        jnp.sum(difference**2),
        jnp.full((), jnp.nan, x.dtype) if log_prob is None else total(widen(log_prob)).astype(x.dtype),
    )
