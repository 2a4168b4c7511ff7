"""Where numbers are held in more bits than they came in."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def widen(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """``x`` in float32, or in float64 if it already is: the least precision in which noise and sums are right."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x
