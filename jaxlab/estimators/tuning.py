r"""What may be tuned in an estimator without a change of what it estimates: temperatures, scales, networks.

As the mean of the gradient G does not depend on them, the gradient of :math:`\|G\|^2` is an unbiased one of the total
variance of G. It comes out of the same pass: ``jax.grad`` with respect to what may be tuned is it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxlab._precision import widen
from jaxlab.gradients import with_gradient

__all__ = []


def squared_norm(gradient: Any) -> Float[Array, ""]:
    """The sum of the squares of all entries of a pytree, in at least float32; integers have no gradient."""
    leaves = [leaf for leaf in jax.tree.leaves(gradient) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    squares = [jnp.sum(widen(leaf) ** 2) for leaf in leaves]
    return sum(squares[1:], squares[0])


def slopes_of_square(
    square: Callable[[Any], tuple[Float[Array, ""], Any]], tunables: Any
) -> tuple[list[Array], list[Array], Any]:
    """The arrays in ``tunables``, the gradient of ``square`` for each of them, and its auxiliary values.

    Python numbers cannot be differentiated: nothing is computed for them, and no second derivative of f asked for.
    """
    leaves, tree = jax.tree.flatten(tunables)
    numbers = [number for number, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
    arrays = [leaves[number] for number in numbers]
    if not arrays:
        return [], [], square(tunables)[1]

    def square_of(arrays: list[Array]) -> tuple[Float[Array, ""], Any]:
        replaced = dict(zip(numbers, arrays, strict=True))
        return square(tree.unflatten([replaced.get(number, leaf) for number, leaf in enumerate(leaves)]))

    slopes, aux = jax.grad(square_of, has_aux=True)(lax.stop_gradient(arrays))
    return arrays, slopes, aux


def with_tuning(value: Float[Array, ""], arrays: list[Array], slopes: list[Array], *, name: str) -> Float[Array, ""]:
    """The value, whose gradient with respect to each of ``arrays`` is the slope that belongs to it."""
    for array, slope in zip(arrays, slopes, strict=True):
        value = with_gradient(value, array, slope, name=name)
    return value
