"""Dropout whose masks are never stored: a bit is a hash of its place and a seed, made again for the backward pass.

A mask of threefry bits costs more than the arithmetic around it, and must be kept or drawn twice. Here each place is
hashed (two rounds of multiplications and shifts, with a word of the seed before each) within the loop that uses the
bit. The rate is exact to 2^-32, and the kept values are divided by its complement, so the mean is that of no dropout.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MULTIPLIERS = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


def kept(seed: jax.Array, places: jax.Array, rate: float) -> jax.Array:
    """Whether each place is kept: true with probability ``1 - rate``, independently.

    Args:
      seed: two random words of 32 bits; every mask needs its own.
      places: whole numbers of 32 bits, any shape, each one once.
      rate: share that is dropped, in [0, 1).
    """
    first, second = (jnp.broadcast_to(word, places.shape) for word in (seed[0], seed[1]))
    bits = (places ^ first) * MULTIPLIERS[0]
    bits = ((bits ^ (bits >> np.uint32(15))) + second) * MULTIPLIERS[1]
    bits = (bits ^ (bits >> np.uint32(16))) * MULTIPLIERS[0]
    bits = bits ^ (bits >> np.uint32(15))
    return bits >= np.uint32(round(rate * 2**32))


def places(shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> jax.Array:
    """The number of each place of an array of this shape, row by row.

    Args:
      shape: of the array.
      order: which axis comes first, second, ... in what is returned; as in the array, by default.
    """
    order = tuple(range(len(shape))) if order is None else order
    strides = [math.prod(shape[axis + 1 :]) % 2**32 for axis in range(len(shape))]
    result = tuple(shape[axis] for axis in order)
    parts = [
        lax.broadcasted_iota(jnp.uint32, result, position) * np.uint32(strides[axis])
        for position, axis in enumerate(order)
    ]
    return functools.reduce(jnp.add, parts, jnp.zeros(result, jnp.uint32))


def dropout(seed: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """``x / (1 - rate)`` where it is kept, and 0 elsewhere.

    Args:
      seed: two random words of 32 bits, used for nothing else.
      x: any array of up to 2^32 numbers.
      rate: share that is dropped, in [0, 1); 0 gives ``x`` back.
    """
    return x if rate == 0 else _dropped(seed, x, rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dropped(seed: jax.Array, x: jax.Array, rate: float) -> Any:
    return jnp.where(kept(seed, places(x.shape), rate), x / (1 - rate), 0)


def _forward(seed, x, rate):
    return _dropped(seed, x, rate), seed


def _backward(rate, seed, gradient):
    return np.zeros(seed.shape, jax.dtypes.float0), _dropped(seed, gradient, rate)


_dropped.defvjp(_forward, _backward)
