"""Quantizers made of quantizers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, ScalarLike

from jaxlab import _check
from jaxlab._chunks import by_chunks, key_of_each
from jaxlab._precision import widen
from jaxlab.quantize.codebook import CodeAssignment
from jaxlab.quantize.contract import Quantized, Quantizer, check_vectors, claims
from jaxlab.quantize.nearest import first_of_all_devices
from jaxlab.quantize.vector import vector_quantizer

__all__ = ["masked", "product", "stochastic"]


def small_vector_quantizer() -> Quantizer:
    return vector_quantizer(num_codes=8)


@claims(lambda factory: factory(small_vector_quantizer(), groups=2), idempotent=True, trained=True)
def product(quantizer: Quantizer, *, groups: int) -> Quantizer:
    """Features in equal groups, each with a quantizer of its own: product quantization, or heads.

    Parameters and state are those of one quantizer with a leading axis of ``groups``.

    Args:
      quantizer: of the features of one group.
      groups: how many; a divisor of the number of features.

    Returns:
      A quantizer whose codes have a last axis of ``groups`` (before the axes of the quantizer's own codes); its loss is
      the mean over groups.

    Gradient:
      That of the quantizer, in each group.

    Raises:
      ValueError: for fewer than 1 group; from its functions, if the groups do not divide the number of features.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab.quantize import finite_scalar_quantizer
      >>> quantizer = product(finite_scalar_quantizer(levels=(3, 3)), groups=2)
      >>> quantized, _ = quantizer.apply(jax.random.key(0), (), (), jnp.array([[0.0, 0.0, 9.0, 9.0]]))
      >>> quantized.values.tolist(), quantized.codes.tolist()
      ([[0.0, 0.0, 1.0, 1.0]], [[4, 8]])

    Reference:
      Jégou, Douze, Schmid, "Product Quantization for Nearest Neighbor Search", 2011.
      https://doi.org/10.1109/TPAMI.2010.57
    """
    _check.at_least("product", "groups", groups, 1)

    def parted(x):
        check_vectors("product", x, None)
        if x.shape[-1] % groups:
            raise ValueError(f"product: groups must divide the number of features, {x.shape[-1]}; got {groups}")
        return jnp.moveaxis(x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups), -2, 0)

    def joined(values):
        values = jnp.moveaxis(values, 0, -2)
        return values.reshape(*values.shape[:-2], groups * values.shape[-1])

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        return jax.vmap(lambda key, x: quantizer.init(key, x, mask=mask))(jax.random.split(key, groups), parted(sample))

    def apply(
        key: PRNGKeyArray, params: Any, state: Any, x: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Quantized, Any]:
        def one(key, params, state, x):
            return quantizer.apply(key, params, state, x, mask=mask)

        out, state = jax.vmap(one)(jax.random.split(key, groups), params, state, parted(x))
        codes = jnp.moveaxis(out.codes, 0, x.ndim - 1)
        return Quantized(joined(out.values), codes, jnp.mean(out.loss)), state

    def encode(params: Any, state: Any, x: Float[Array, "*n d"]) -> Int[Array, "*codes"]:
        return jnp.moveaxis(jax.vmap(quantizer.encode)(params, state, parted(x)), 0, x.ndim - 1)

    def decode(params: Any, state: Any, codes: Int[Array, "*codes"]) -> Float[Array, "*n d"]:
        return joined(jax.vmap(quantizer.decode)(params, state, jnp.moveaxis(codes, -1 - len(quantizer.code_shape), 0)))

    def update(
        key: PRNGKeyArray,
        params: Any,
        state: Any,
        x: Float[Array, "*n d"],
        codes: Int[Array, "*codes"],
        *,
        mask: Bool[Array, "*n"] | None = None,
    ) -> Any:
        assert quantizer.update is not None
        by_group = jnp.moveaxis(codes, x.ndim - 1, 0)
        own = functools.partial(quantizer.update, mask=mask)
        return jax.vmap(own)(jax.random.split(key, groups), params, state, parted(x), by_group)

    shape = groups, *quantizer.code_shape
    changing = None if quantizer.update is None else update
    return Quantizer(init, apply, encode, decode, quantizer.num_codes, shape, update=changing)


def masked(quantizer: Quantizer, mask: Bool[Array, "*n"]) -> Quantizer:
    """The quantizer of a batch in which only some vectors count: the others enter no statistic and no loss.

    The same as handing ``mask`` to ``init`` and ``apply`` each time. A mask that is True everywhere changes no bit.

    Args:
      quantizer: any.
      mask: which vectors count, of the shape of ``x`` without its features.

    Returns:
      A quantizer of arrays of this shape, with values of 0 and codes of -1 where the mask is False.

    Gradient:
      That of the quantizer; none where the mask is False.

    Raises:
      ValueError: from its functions, if the mask is of another shape than the vectors, or not boolean.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab.quantize import finite_scalar_quantizer
      >>> quantizer = masked(finite_scalar_quantizer(levels=(3,)), jnp.array([True, False]))
      >>> quantized, _ = quantizer.apply(jax.random.key(0), (), (), jnp.array([[9.0], [9.0]]))
      >>> quantized.values.tolist(), quantized.codes.tolist()
      ([[1.0], [0.0]], [2, -1])
    """

    def both(more):
        return mask if more is None else mask & more

    def init(
        key: PRNGKeyArray, sample: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Any, Any]:
        return quantizer.init(key, sample, mask=both(mask))

    def apply(
        key: PRNGKeyArray, params: Any, state: Any, x: Float[Array, "*n d"], *, mask: Bool[Array, "*n"] | None = None
    ) -> tuple[Quantized, Any]:
        return quantizer.apply(key, params, state, x, mask=both(mask))

    def encode(params: Any, state: Any, x: Float[Array, "*n d"]) -> Int[Array, "*codes"]:
        check_vectors("masked", x, None, mask)
        codes = quantizer.encode(params, state, x)
        return jnp.where(jnp.expand_dims(mask, tuple(range(mask.ndim, codes.ndim))), codes, -1)

    def update(
        key: PRNGKeyArray,
        params: Any,
        state: Any,
        x: Float[Array, "*n d"],
        codes: Int[Array, "*codes"],
        *,
        mask: Bool[Array, "*n"] | None = None,
    ) -> Any:
        assert quantizer.update is not None
        return quantizer.update(key, params, state, x, codes, mask=both(mask))

    changing = None if quantizer.update is None else update
    return Quantizer(init, apply, encode, quantizer.decode, quantizer.num_codes, quantizer.code_shape, update=changing)


@claims(lambda factory: factory(small_vector_quantizer(), temperature=1.0), deterministic=False, trained=True)
def stochastic(quantizer: Quantizer, *, temperature: ScalarLike) -> Quantizer:
    r"""The quantizer with codes drawn at random, near ones more often: exploration while it trains.

    .. math:: p(i \mid x) \propto e^{-\lVert x - E_i \rVert^2 / T}

    Loss and statistics are those of the codes that were drawn. Evaluation (``encode``) still takes the nearest code.

    Args:
      quantizer: one with a codebook.
      temperature: :math:`T`, positive, in squared units of x; may be a traced value, for a schedule. The limit 0 is the
        nearest code.

    Returns:
      A quantizer with the same parameters and state.

    Gradient:
      That of the quantizer, at the codes that were drawn.

    Raises:
      TypeError: if the quantizer has no codebook to draw from.
      ValueError: if ``temperature`` is a Python number not above 0.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> quantizer = stochastic(vector_quantizer(num_codes=2), temperature=1.0)
      >>> codebook, x = jnp.array([[0.0], [1.0]]), jnp.full((10_000, 1), 0.5)
      >>> quantized, _ = quantizer.apply(jax.random.key(0), codebook, (), x)
      >>> round(float(quantized.codes.mean()), 1)
      0.5

    Reference:
      Sønderby, Poole, Mnih, "Continuous Relaxation Training of Discrete Latent Variable Image Models", 2017; Takida et
      al., "SQ-VAE", 2022, section 3. https://arxiv.org/abs/2205.07547
    """
    _check.positive("stochastic", "temperature", temperature)
    if quantizer.reassigned is None:
        raise TypeError(
            "stochastic: quantizer must have a codebook to draw from, as vector_quantizer, ema_vector_quantizer and"
            " sim_vector_quantizer do (inside of a combinator, make that one stochastic); this one has none"
        )
    return quantizer.reassigned(by_chance(temperature))


# Scores of so many bytes at a time, with noise for each.
CHUNK_BYTES = 2**22


def by_chance(temperature: ScalarLike) -> CodeAssignment:
    """The rule that draws a code by the Gumbel-max trick, some vectors at a time."""

    def assign(
        key: PRNGKeyArray, x: Float[Array, "n d"], codebook: Float[Array, "k d"], *, axis_name: str | None = None
    ) -> Int[Array, "n"]:
        num_codes, dtype = codebook.shape[0], widen(codebook).dtype
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        offsets = jnp.sum(codebook**2, -1)

        def of_chunk(rows):
            numbers, x = rows
            noise = jax.vmap(lambda key: jax.random.gumbel(key, (num_codes,), dtype))(key_of_each(key, numbers))
            products = jnp.matmul(x, codebook.T, precision=lax.Precision.HIGHEST)
            scores = offsets[None] - 2 * products - jnp.asarray(temperature, dtype) * noise
            return jnp.argmin(scores, -1).astype(jnp.int32), jnp.min(scores, -1)

        rows = jnp.arange(x.shape[0], dtype=jnp.int32), x
        codes, minima = by_chunks(of_chunk, rows, max(1, CHUNK_BYTES // (4 * num_codes)))
        if axis_name is not None:
            return first_of_all_devices(codes, minima, num_codes, axis_name)
        return codes

    return assign
