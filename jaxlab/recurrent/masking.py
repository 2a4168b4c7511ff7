"""Cells that skip steps and start anew: for scans over padded, packed or interrupted sequences."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

__all__ = ["keep_where", "reset_where"]


def is_float(leaf: Any) -> bool:
    """Whether derivatives with respect to it exist."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def choose(function: str, condition: Bool[Array, "*batch"], chosen: Any, other: Any) -> Any:
    """``where`` over two equal pytrees, whose leaves begin with the axes of ``condition``."""

    def one(chosen, other):
        if chosen.shape[: condition.ndim] != condition.shape:
            raise ValueError(
                f"{function}: every array of the carry, the inputs and the outputs must begin with the axes of the"
                f" condition, {list(condition.shape)}; got shape {list(chosen.shape)}"
            )
        # Not jnp.where, which would promote: both are of one dtype, or it is an error.
        return jax.lax.select(expand(condition, chosen), chosen, other)

    return jax.tree.map(one, chosen, other)


def expand(condition: Bool[Array, "*batch"], like: Array) -> Bool[Array, "..."]:
    axes = tuple(range(condition.ndim))
    return jax.lax.broadcast_in_dim(condition, like.shape, axes)


def keep_where(cell: Callable) -> Callable:
    r"""A cell that leaves the carry as it is at the steps that do not count.

    .. math:: c_t = m_t\, c'_t + (1 - m_t)\, c_{t-1}, \qquad y_t = m_t\, y'_t, \qquad
              (c'_t, y'_t) = \mathrm{cell}(c_{t-1}, m_t x_t)

    Args:
      cell: a body of ``jax.lax.scan``: ``cell(carry, x) -> (carry, y)``.

    Returns:
      The body ``(carry, (mask, x)) -> (carry, y)``. ``mask`` is boolean and its axes are the first ones of every
      array of the carry, of x and of y. Where it is false, x is not looked at (it may be NaN), the carry stays as it
      was, bit for bit, and y is 0.

    Gradient:
      Exact; that of x is 0 where ``mask`` is false, whatever x is.

    Raises:
      ValueError: where an array does not begin with the axes of the mask.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def add(total, x):
      ...     return total + x, total
      >>> mask, x = jnp.array([True, False, True]), jnp.array([1.0, jnp.nan, 3.0])
      >>> total, before = jax.lax.scan(keep_where(add), jnp.array(0.0), (mask, x))
      >>> float(total), before.tolist()
      (4.0, [0.0, 0.0, 1.0])
    """

    def kept(carry, step):
        mask, x = step
        # Zeros in place of what does not count, so that no NaN of it meets a zero cotangent.
        x = choose("keep_where", mask, x, jax.tree.map(jnp.zeros_like, x))
        moved, y = cell(carry, x)
        zeros = jax.tree.map(jnp.zeros_like, y)
        return choose("keep_where", mask, moved, carry), choose("keep_where", mask, y, zeros)

    return kept


def reset_where(cell: Callable, reset_carry: Any) -> Callable:
    r"""A cell that starts from another carry at the steps that begin a sequence.

    .. math:: (c_t, y_t) = \mathrm{cell}\big(r_t\, c_0 + (1 - r_t)\, c_{t-1},\; x_t\big)

    Args:
      cell: a body of ``jax.lax.scan``: ``cell(carry, x) -> (carry, y)``.
      reset_carry: what to start from, like the carry in structure, shapes and dtypes.

    Returns:
      The body ``(carry, (reset, x)) -> (carry, y)``. ``reset`` is boolean and its axes are the first ones of every
      array of the carry; where it is true, the carry is replaced before the step.

    Gradient:
      Exact, ``reset_carry`` included; none flows back past a reset.

    Raises:
      ValueError: where an array of the carry does not begin with the axes of ``reset``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def add(total, x):
      ...     return total + x, total + x
      >>> reset, x = jnp.array([False, False, True]), jnp.array([1.0, 2.0, 3.0])
      >>> jax.lax.scan(reset_where(add, jnp.array(0.0)), jnp.array(10.0), (reset, x))[1].tolist()
      [11.0, 13.0, 3.0]
    """

    def restarted(carry, step):
        reset, x = step
        return cell(choose("reset_where", reset, reset_carry, carry), x)

    return restarted
