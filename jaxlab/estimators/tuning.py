r"""What may be tuned in an estimator without a change of what it estimates: temperatures, scales, networks.

As the mean of the gradient G does not depend on them, the gradient of :math:`\|G\|^2` is an unbiased one of the total
variance of G. It comes out of the same pass: ``jax.grad`` with respect to what may be tuned is it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlab._precision import widen
from jaxlab.gradients import with_gradient

__all__ = []


def squared_norm(gradient: Any) -> Float[Array, ""]:
    """The sum of the squares of all entries of a pytree, in at least float32; integers have no gradient."""
    leaves = [leaf for leaf in jax.tree.leaves(gradient) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    squares = [jnp.sum(widen(leaf) ** 2) for leaf in leaves]
    return sum(squares[1:], squares[0])


def with_tuning(value: Float[Array, ""], tunables: Any, slopes: Any, *, name: str) -> Float[Array, ""]:
    """The value, whose gradient with respect to each leaf of ``tunables`` is that of ``slopes``."""
    for leaf, slope in zip(jax.tree.leaves(tunables), jax.tree.leaves(slopes), strict=True):
        value = with_gradient(value, leaf, slope, name=name)
    return value
