"""Codes and the digits they are made of: index arithmetic, exact to 2**31 codes."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxlab import _check
from jaxlab._jit import jit

__all__ = ["ravel_codes", "unravel_codes"]

MAXIMAL_NUM_CODES = 2**31  # the last of them is the largest int32


def check_levels(name: str, levels: tuple[int, ...]) -> None:
    """Raises unless ``levels`` are integers of at least 2 with a product that int32 can index."""
    if not isinstance(levels, tuple) or not levels:
        raise TypeError(f"{name}: levels must be a tuple of Python integers, one for each feature; got {levels!r}")
    for level in levels:
        _check.at_least(name, "levels", level, 2)
    if math.prod(levels) > MAXIMAL_NUM_CODES:
        raise ValueError(
            f"{name}: levels must have a product of at most 2**31, the number of codes; got {math.prod(levels)}"
            " (product(quantizer, groups=...) gives each part of the features a code of its own)"
        )


def place_values(levels: tuple[int, ...]) -> Int[Array, "d"]:
    return jnp.array([math.prod(levels[:position]) for position in range(len(levels))], jnp.int32)


@jit(static=("levels",))
def ravel_codes(digits: Int[Array, "*n d"], *, levels: tuple[int, ...]) -> Int[Array, "*n"]:
    r"""One code for a vector of digits, each of which has its own number of levels.

    .. math:: c = \sum_i a_i \prod_{j<i} L_j

    Args:
      digits: integers, the i-th in [0, ``levels[i]``); the first one counts units.
      levels: how many values each digit has, at least 2; their product is at most 2**31.

    Returns:
      int32 codes in [0, product of the levels), exact.

    Gradient:
      None: the codes are integers.

    Raises:
      ValueError: if a level is below 2, the product above 2**31, or the number of digits another one.

    Examples:
      >>> import jax.numpy as jnp
      >>> ravel_codes(jnp.array([[2, 0], [1, 1]]), levels=(3, 2)).tolist()
      [2, 4]
    """
    check_levels("ravel_codes", levels)
    if digits.ndim == 0 or digits.shape[-1] != len(levels):
        raise ValueError(
            f"ravel_codes: digits must have {len(levels)} along the last axis; got digits {list(digits.shape)}"
        )
    values = place_values(levels).reshape((1,) * (digits.ndim - 1) + (-1,))
    return jnp.sum(digits.astype(jnp.int32) * values, -1, dtype=jnp.int32)


@jit(static=("levels",))
def unravel_codes(codes: Int[Array, "*n"], *, levels: tuple[int, ...]) -> Int[Array, "*n d"]:
    r"""The digits of codes: the inverse of :func:`ravel_codes`.

    .. math:: a_i = \Big\lfloor c \Big/ \prod_{j<i} L_j \Big\rfloor \bmod L_i

    Args:
      codes: integers in [0, product of the levels).
      levels: how many values each digit has, at least 2; their product is at most 2**31.

    Returns:
      int32 digits, the i-th in [0, ``levels[i]``).

    Gradient:
      None: the digits are integers.

    Raises:
      ValueError: if a level is below 2, or the product above 2**31.

    Examples:
      >>> import jax.numpy as jnp
      >>> unravel_codes(jnp.array([2, 4]), levels=(3, 2)).tolist()
      [[2, 0], [1, 1]]
    """
    check_levels("unravel_codes", levels)
    shape = (1,) * codes.ndim + (-1,)
    values = place_values(levels).reshape(shape)
    return codes.astype(jnp.int32)[..., None] // values % jnp.array(levels, jnp.int32).reshape(shape)
