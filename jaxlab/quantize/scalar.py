"""Quantizers without a codebook: each feature is rounded by itself, and the code is made of the digits."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxlab import _check
from jaxlab._precision import widen
from jaxlab.gradients import straight_through
from jaxlab.quantize.codebook import check_weights
from jaxlab.quantize.contract import (
    Quantized,
    Quantizer,
    check_vectors,
    claims,
    consume,
    flat_mask,
    quantized,
    squared_error,
    without_negative,
)
from jaxlab.quantize.indices import check_levels, ravel_codes, unravel_codes
from jaxlab.quantize.nearest import unit

__all__ = ["binary_spherical_quantizer", "finite_scalar_quantizer", "lookup_free_quantizer"]

# How far the ends of the bounded range lie beyond the outer levels, relative to it: without it, no vector gets there.
MARGIN = 1e-3


def bounds(level: int) -> tuple[float, float, float]:
    """Half the bounded range of a feature, its offset, and the shift of its argument that takes 0 to 0."""
    half, offset = (level - 1) * (1 + MARGIN) / 2, (1 - level % 2) / 2
    # With two levels that shift would put their border at -3.8; theirs is at 0.
    return half, offset, 0.0 if level == 2 else math.atanh(offset / half)


@claims(lambda factory: factory(levels=(5, 4, 3, 2)), straight_through=False)
def finite_scalar_quantizer(*, levels: tuple[int, ...], symmetric: bool = False) -> Quantizer:
    r"""FSQ: each feature is squashed into a range and rounded to one of a few levels.

    .. math:: z = \frac{\mathrm{round}(b(x))}{\lfloor L/2 \rfloor}, \qquad b(x) = h \tanh(x + \mathrm{atanh}(o/h)) - o,
              \quad h = \tfrac12 (L - 1)(1 + 10^{-3}), \quad o = \tfrac12 [L \text{ even}]

    With an even number of levels these are asymmetric: -1, ..., 1 - 2/L; ``symmetric`` has :math:`z = 2a/(L-1) - 1`,
    :math:`a = \lfloor (L-1)(\tanh x + 1)/2 + \tfrac12 \rfloor`, from -1 to 1 for every L. Two levels of the asymmetric
    kind are -1 and 0 with their border at x = 0 (the formula would put it at -3.8). There is nothing to train:
    ``params`` and ``state`` are empty and the loss is 0.

    Args:
      levels: how many for each feature, at least 2, as many as vectors have features; their product, the number of
        codes, is at most 2**31. The authors recommend 5 or more.
      symmetric: whether the levels lie symmetrically.

    Returns:
      A quantizer with values in [-1, 1], on a grid.

    Gradient:
      Straight-through the rounding (biased), the squashing's own derivative: it vanishes for large x.

    Raises:
      ValueError: for a level below 2 or more than 2**31 codes; from its functions, for vectors with another number of
        features than there are levels, and a mask of another shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> quantizer = finite_scalar_quantizer(levels=(3, 5))
      >>> quantized, _ = quantizer.apply(jax.random.key(0), (), (), jnp.array([[-9.0, 0.3]]))
      >>> quantized.values.tolist(), quantized.codes.tolist(), quantizer.num_codes
      ([[-1.0, 0.5]], [9], 15)

    Reference:
      Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2024, section 3 and the published code; the
      symmetric levels: Parker et al., "Scaling Transformers for Low-Bitrate High-Quality Speech Coding", 2024.
      https://arxiv.org/abs/2309.15505 https://arxiv.org/abs/2411.19842
    """
    name = "finite_scalar_quantizer"
    check_levels(name, levels)
    # From digits 0, 1, ... to rounded numbers, whose zero is in the middle.
    lowest = tuple(0 if symmetric else level // 2 for level in levels)

    def row(numbers, dtype):
        return jnp.array([list(numbers)], dtype)

    def rounded(x, mask):
        check_vectors(name, x, len(levels), mask)
        vectors = widen(x).reshape(-1, len(levels))
        dtype = vectors.dtype
        highest = row((level - 1 - low for level, low in zip(levels, lowest, strict=True)), dtype)
        if symmetric:
            bounded = row(((level - 1) / 2 for level in levels), dtype) * (jnp.tanh(vectors) + 1)
            hard = jnp.floor(lax.stop_gradient(bounded) + 0.5)
        else:
            half, offset, shift = (row(column, dtype) for column in zip(*map(bounds, levels), strict=True))
            bounded = jnp.tanh(vectors + shift) * half - offset
            hard = jnp.round(lax.stop_gradient(bounded))
        # Beyond 1,000 levels the margin is more than half a level.
        hard = jnp.clip(hard, -row(lowest, dtype), highest)
        return jnp.where(hard == 0, 0, hard), bounded  # no negative zero, which no code has

    def code_of(hard):
        # A NaN has no digits; its code is that of the lowest.
        return ravel_codes(jnp.nan_to_num(hard).astype(jnp.int32) + row(lowest, jnp.int32), levels=levels)

    def scaled(numbers):
        if symmetric:
            return numbers / row(((level - 1) / 2 for level in levels), numbers.dtype) - 1
        return numbers / row((level // 2 for level in levels), numbers.dtype)

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        consume(key)
        check_vectors(name, sample, len(levels), mask)
        return (), ()

    def apply(
        key: PRNGKeyArray, params: Any, state: Any, x: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Quantized, Any]:
        consume(key)
        hard, bounded = rounded(x, mask)
        values = scaled(straight_through(hard, bounded))
        return quantized(x, values, code_of(hard), jnp.zeros((), values.dtype), mask), state

    def encode(params: Any, state: Any, x: Float[Array, "*n d"]) -> Int[Array, "*n"]:
        return code_of(rounded(x, None)[0]).reshape(x.shape[:-1])

    def decode(params: Any, state: Any, codes: Int[Array, "*n"]) -> Float[Array, "*n d"]:
        digits = unravel_codes(codes.reshape(-1), levels=levels)
        values = scaled((digits - row(lowest, jnp.int32)).astype(jnp.float32))
        return without_negative(values.reshape(*codes.shape, len(levels)), codes)

    return Quantizer(init, apply, encode, decode, math.prod(levels))


def binary_entropy(logits: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The entropy in nats of bits with these logits."""
    return jax.nn.softplus(logits) - logits * jax.nn.sigmoid(logits)


# Groups of so many bits are taken in two halves.
HALVED = 6


def patterns_of(logits: Float[Array, "n g b"]) -> Float[Array, "n g p"]:
    """The probability of each pattern of the bits with these logits."""
    num_bits = logits.shape[-1]
    patterns = unravel_codes(jnp.arange(2**num_bits), levels=(2,) * num_bits).astype(logits.dtype)
    # log p(pattern) = sum over bits of log sigmoid(+-logit).
    on, off = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    products = (
        jnp.einsum("ngb,pb->ngp", logs, chosen, precision=lax.Precision.HIGHEST)
        for logs, chosen in ((on, patterns), (off, 1 - patterns))
    )
    return jnp.exp(sum(products))


def entropies(
    logits: Float[Array, "n b"], counts: Bool[Array, "n"], group_size: int, axis_name: str | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """In nats: the mean entropy of a vector's code, and the entropy of the mean distribution, by groups of bits."""
    weights = counts.astype(logits.dtype)
    # Bits outside of the mask have finite logits, so that no gradient of theirs is 0 * inf.
    logits = jnp.where(counts[:, None], logits, 0)
    groups = logits.reshape(logits.shape[0], logits.shape[1] // group_size, group_size)
    if group_size < HALVED:
        sums = jnp.sum(patterns_of(groups) * weights[:, None, None], 0)
    else:
        # All patterns of a group are those of one half of its bits with those of the other: their sum over vectors is a
        # product of matrices, and no vector has 2**group_size numbers.
        first, second = patterns_of(groups[..., : group_size // 2]), patterns_of(groups[..., group_size // 2 :])
        sums = jnp.einsum("nga,ngc->gac", first * weights[:, None, None], second, precision=lax.Precision.HIGHEST)
    totals = sums, jnp.sum(weights)
    totals = totals if axis_name is None else lax.psum(totals, axis_name)
    mean = totals[0] / jnp.maximum(totals[1], 1)
    of_mean = -jnp.sum(jnp.where(mean > 0, mean * jnp.log(jnp.where(mean > 0, mean, 1)), 0))
    each = jnp.sum(binary_entropy(logits), -1)
    of_each = jnp.sum(each * weights) / jnp.maximum(jnp.sum(weights), 1)
    return of_each, of_mean


def binary_quantizer(
    name: str,
    num_bits: int,
    scale: float,
    spherical: bool,
    entropy_weight: float,
    diversity_weight: float,
    commitment_weight: float,
    temperature: float,
    group_size: int,
    axis_name: str | None,
) -> Quantizer:
    """The quantizer by signs: of x itself, or of its direction."""
    _check.at_least(name, "num_bits", num_bits, 1)
    _check.at_least(name, "group_size", group_size, 1)
    _check.positive(name, "temperature", temperature)
    check_weights(
        name,
        entropy_weight=entropy_weight,
        diversity_weight=diversity_weight,
        commitment_weight=commitment_weight,
    )
    levels = (2,) * num_bits
    check_levels(name, levels)
    if num_bits % group_size:
        raise ValueError(f"{name}: group_size must divide the {num_bits} bits; got {group_size}")

    def vectors_of(x, mask=None):
        check_vectors(name, x, num_bits, mask)
        vectors = widen(x).reshape(-1, num_bits)
        return unit(vectors) if spherical else vectors

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        consume(key)
        check_vectors(name, sample, num_bits, mask)
        return (), ()

    def apply(
        key: PRNGKeyArray, params: Any, state: Any, x: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Quantized, Any]:
        consume(key)
        vectors, counts = vectors_of(x, mask), flat_mask(x, mask)
        bits = (vectors > 0).astype(jnp.int32)
        hard = jnp.where(bits > 0, scale, -scale).astype(vectors.dtype)
        loss = commitment_weight * squared_error(vectors, hard, counts)
        if entropy_weight:
            of_each, of_mean = entropies(4 * scale / temperature * vectors, counts, group_size, axis_name)
            loss = loss + entropy_weight * (of_each - diversity_weight * of_mean)
        values = straight_through(hard.astype(x.dtype), vectors.astype(x.dtype))
        return quantized(x, values, ravel_codes(bits, levels=levels), loss, mask), state

    def encode(params: Any, state: Any, x: Float[Array, "*n d"]) -> Int[Array, "*n"]:
        bits = (vectors_of(x) > 0).astype(jnp.int32)
        return ravel_codes(bits, levels=levels).reshape(x.shape[:-1])

    def decode(params: Any, state: Any, codes: Int[Array, "*n"]) -> Float[Array, "*n d"]:
        bits = unravel_codes(codes.reshape(-1), levels=levels)
        values = jnp.where(bits > 0, scale, -scale).astype(jnp.float32).reshape(*codes.shape, num_bits)
        return without_negative(values, codes)

    return Quantizer(init, apply, encode, decode, 2**num_bits)


@claims(lambda factory: factory(num_bits=4), idempotent=True)
def lookup_free_quantizer(
    *,
    num_bits: int,
    entropy_weight: float = 0.1,
    diversity_weight: float = 1.0,
    commitment_weight: float = 0.25,
    temperature: float = 0.01,
    group_size: int = 1,
    axis_name: str | None = None,
) -> Quantizer:
    r"""LFQ: the signs of the features are the code.

    .. math:: z = \mathrm{sign}(x), \qquad L = w\big(\overline{H(p(c \mid x))} - \gamma H(\overline{p(c \mid x)})\big)
              + \beta\, \overline{(x - z)^2}, \qquad p(c \mid x) \propto e^{-\lVert x - c \rVert^2 / T}

    The bits of one vector are independent, :math:`p(c_b = 1 \mid x) = \sigma(4 x_b / T)`, so the first entropy is a sum
    over bits, exactly, and no table of :math:`2^d` codes is made. The second one is summed over groups of bits: the
    exact one for ``group_size = num_bits`` and an upper bound below. ``params`` and ``state`` are empty.

    Args:
      num_bits: features of a vector, at most 31; each is one bit.
      entropy_weight: :math:`w`, in front of both entropies, which are in nats.
      diversity_weight: :math:`\gamma`, for the second one, which is to grow.
      commitment_weight: :math:`\beta`.
      temperature: :math:`T`, in squared units of x; T = 1 / (inverse temperature) of other libraries.
      group_size: bits whose joint distribution is averaged; a divisor of ``num_bits``. Memory grows as n d 2^(g/2) / g.
      axis_name: of the axis over which vectors are spread, to average the distribution over all devices.

    Returns:
      A quantizer with values of -1 and 1 (-1 for a feature of exactly 0); bit b of a code is the sign of feature b.

    Gradient:
      Of values: straight-through (biased). Of the loss: exact.

    Raises:
      ValueError: for fewer than 1 or more than 31 bits, a negative weight, a temperature not above 0, a group size that
        does not divide the bits; from its functions, for vectors of another number of features and a mask of another
        shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> quantizer = lookup_free_quantizer(num_bits=3)
      >>> quantized, _ = quantizer.apply(jax.random.key(0), (), (), jnp.array([[0.2, -3.0, 0.7]]))
      >>> quantized.values.tolist(), quantized.codes.tolist()
      ([[1.0, -1.0, 1.0]], [5])

    Reference:
      Yu et al., "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation", 2024, section 3.1.
      https://arxiv.org/abs/2310.05737
    """
    return binary_quantizer(
        "lookup_free_quantizer",
        num_bits=num_bits,
        scale=1.0,
        spherical=False,
        entropy_weight=entropy_weight,
        diversity_weight=diversity_weight,
        commitment_weight=commitment_weight,
        temperature=temperature,
        group_size=group_size,
        axis_name=axis_name,
    )


@claims(lambda factory: factory(num_bits=4), idempotent=True, straight_through=False)
def binary_spherical_quantizer(
    *,
    num_bits: int,
    entropy_weight: float = 0.1,
    diversity_weight: float = 1.0,
    commitment_weight: float = 0.25,
    temperature: float = 0.01,
    group_size: int = 1,
    axis_name: str | None = None,
) -> Quantizer:
    r"""BSQ: the signs of the features are the code, and both sides of the rounding lie on the unit sphere.

    .. math:: z = \frac{\mathrm{sign}(u)}{\sqrt d}, \quad u = \frac{x}{\lVert x \rVert}, \qquad
              L = w\big(\overline{H(p(c \mid u))} - \gamma H(\overline{p(c \mid u)})\big) + \beta\, \overline{(u - z)^2}

    with :math:`p(c \mid u) \propto e^{-\lVert u - c \rVert^2 / T}`: bits are independent given u,
    :math:`p(c_b > 0 \mid u) = \sigma(4 u_b / (\sqrt d\, T))`. See :func:`lookup_free_quantizer` for the entropies.

    Args:
      num_bits: features of a vector, at most 31; each is one bit.
      entropy_weight: :math:`w`, in front of both entropies, which are in nats.
      diversity_weight: :math:`\gamma`, for the second one, which is to grow.
      commitment_weight: :math:`\beta`.
      temperature: :math:`T`.
      group_size: bits whose joint distribution is averaged; a divisor of ``num_bits``. Memory grows as n d 2^(g/2) / g.
      axis_name: of the axis over which vectors are spread, to average the distribution over all devices.

    Returns:
      A quantizer with values on the unit sphere (a zero vector gets those of code 0).

    Gradient:
      Of values: straight-through to the direction u (biased), and its own from there to x. Of the loss: exact.

    Raises:
      ValueError: for fewer than 1 or more than 31 bits, a negative weight, a temperature not above 0, a group size that
        does not divide the bits; from its functions, for vectors of another number of features and a mask of another
        shape.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> quantizer = binary_spherical_quantizer(num_bits=4)
      >>> quantized, _ = quantizer.apply(jax.random.key(0), (), (), jnp.array([[0.2, -3.0, 0.7, 0.1]]))
      >>> quantized.values.tolist()
      [[0.5, -0.5, 0.5, 0.5]]

    Reference:
      Zhao, Xiong, Krähenbühl, "Image and Video Tokenization with Binary Spherical Quantization", 2024.
      https://arxiv.org/abs/2406.07548
    """
    return binary_quantizer(
        "binary_spherical_quantizer",
        num_bits=num_bits,
        scale=max(num_bits, 1) ** -0.5,
        spherical=True,
        entropy_weight=entropy_weight,
        diversity_weight=diversity_weight,
        commitment_weight=commitment_weight,
        temperature=temperature,
        group_size=group_size,
        axis_name=axis_name,
    )
