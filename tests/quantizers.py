"""The rows of ``QUANTIZERS``, in use, for the tests that run over them."""

import functools

import jax
import numpy as np
import pytest
from compiler import AS_USED

from jaxlab.quantize import QUANTIZERS

ROWS = list(QUANTIZERS.values())
DTYPES = ("float32", "bfloat16", "float16")
CODEBOOKS = ("vector_quantizer", "ema_vector_quantizer", "sim_vector_quantizer")


def over(rows):
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in rows])


def vectors(shape=(6, 5, 4), seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@functools.cache
def made(row):
    """A small quantizer, with parameters and state that have been in use for some steps."""
    quantizer = row.small()
    params, state = quantizer.init(jax.random.key(1), vectors(seed=3))
    step = jax.jit(quantizer.apply)
    for number in range(3):
        _, state = step(jax.random.key(10 + number), params, state, vectors(seed=20 + number))
    return quantizer, params, state


def bits_of(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def applied(row, x, *, key=2, mask=None):
    quantizer, params, state = made(row)
    # Bits are compared: those of the compiler as it is used, and not as the tests use it (compiler.py).
    compiled = jax.jit(quantizer.apply, compiler_options=AS_USED)
    return compiled(jax.random.key(key), params, state, x, mask=mask)
