"""Where numbers are held in more bits than they came in.

Sums are made in float32 at least. Products of matrices are those of float32 too (``precision="highest"``), for what a
platform does by default may be less: a TPU rounds the operands to bfloat16, in which 257 examples are 256. The cells of
:mod:`jaxlab.recurrent`, whose time is that of their products, follow ``jax.default_matmul_precision``, and add in
float32.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def widen(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``x`` in float32, or in float64 if it already is: the least precision in which noise and sums are right."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x
