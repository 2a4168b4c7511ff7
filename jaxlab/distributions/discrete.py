"""What random variables of finitely many values share."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = []

MAXIMAL_NUM_STATES = 2**20


def weighted(weight: Float[Array, "..."], value: Float[Array, "..."]) -> Float[Array, "..."]:
    """``weight * value`` with 0 for a weight of 0 and an infinite value; differentiable in both also there."""
    return weight * jnp.where((weight == 0) & jnp.isinf(value), 0, value)


def product_states(function: str, num_values: int, num_variables: int) -> Int[Array, "states variables"]:
    """All combinations of ``num_variables`` variables with ``num_values`` values, the last one counting fastest."""
    num_states = num_values ** min(num_variables, 64)  # that of many has thousands of digits
    if num_states > MAXIMAL_NUM_STATES:
        raise ValueError(
            f"{function}: the number of states must be at most 2**20 to list them; got {num_values}**{num_variables}"
        )
    places = num_values ** jnp.arange(num_variables - 1, -1, -1)
    return jnp.arange(num_states)[:, None] // places[None, :] % num_values
