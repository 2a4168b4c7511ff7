"""The order of numbers, found as fast as the platform can."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

__all__ = ["argsort"]


def _packed_argsort(x: Float[Array, "*batch n"], *, descending: bool) -> Int[Array, "*batch n"]:
    """By sorting one integer an element, its key above its place: the place breaks ties, so any sort is stable."""
    # -0 equals 0, and every NaN is the largest, as in jnp.argsort.
    x = jnp.where(x == 0, 0, jnp.where(jnp.isnan(x), jnp.nan, x))
    bits = lax.bitcast_convert_type(x, jnp.int32)
    # The bits of floats order like integers; those of negative ones backwards, but for the sign.
    key = jnp.where(bits < 0, bits ^ jnp.iinfo(jnp.int32).max, bits)
    key = ~key if descending else key
    place = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    with jax.enable_x64(True):
        wide = functools.partial(lax.convert_element_type, new_dtype=jnp.int64)
        packed = lax.sort(lax.shift_left(wide(key), jnp.int64(32)) | wide(place), dimension=x.ndim - 1)
        return lax.convert_element_type(packed & jnp.int64(2**32 - 1), jnp.int32)


def argsort(x: Float[Array, "*batch n"], *, descending: bool = False) -> Int[Array, "*batch n"]:
    """The indices that sort the last axis, ties in their own order: ``jnp.argsort``, a constant to ``jax.grad``.

    XLA sorts single integers on CPUs several times faster than floats, or numbers beside indices.
    """
    x = lax.stop_gradient(x)
    plain = functools.partial(jnp.argsort, axis=-1, descending=descending)
    if x.dtype != jnp.float32:
        return plain(x).astype(jnp.int32)
    packed = functools.partial(_packed_argsort, descending=descending)
    return lax.platform_dependent(x, cpu=packed, default=lambda x: plain(x).astype(jnp.int32))
