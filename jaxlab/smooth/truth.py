"""Smooth truth values: equality, and what is made of probabilities in place of conditions."""

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.smooth._common import over

__all__ = ["equal", "logical_and", "logical_not", "logical_or", "where"]


@jit(hard_at_zero=("temperature",))
def equal(
    x: Float[Array, "*shape"], y: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0
) -> Float[Array, "*shape"]:
    r"""How nearly two numbers are equal: a Gaussian of their difference.

    .. math:: \exp\big(-(x - y)^2 / 2\lambda^2\big)

    Args:
      x: any numbers.
      y: others, of the same shape.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``x == y`` as 0 and 1.

    Returns:
      Numbers in [0, 1]; 1 where they are equal. The error is the value itself where they are not.

    Gradient:
      That of the smooth function; zero at temperature 0.

    Raises:
      ValueError: if the shapes differ, or ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> equal(jnp.array([1.0, 1.0]), jnp.array([1.0, 9.0]), temperature=0.5).tolist()
      [1.0, 0.0]
    """
    _check.same_shape("equal", x=x, y=y)
    if _check.is_zero(temperature):
        return (x == y).astype(x.dtype)
    return jnp.exp(-(over(widen(x) - widen(y), temperature) ** 2) / 2).astype(x.dtype)


@jit()
def logical_and(p: Float[Array, "*shape"], q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""The probability that two independent events both happen, :math:`p\, q`; the logical and of 0 and 1.

    Args:
      p: probabilities.
      q: others, of the same shape.

    Returns:
      Probabilities in [0, 1].

    Gradient:
      Exact.

    Raises:
      ValueError: if the shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(logical_and(jnp.array(0.5), jnp.array(0.5)))
      0.25
    """
    _check.same_shape("logical_and", p=p, q=q)
    return p * q


@jit()
def logical_or(p: Float[Array, "*shape"], q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""The probability that one of two independent events happens, :math:`p + q - p q`; the logical or of 0 and 1.

    Args:
      p: probabilities.
      q: others, of the same shape.

    Returns:
      Probabilities in [0, 1].

    Gradient:
      Exact.

    Raises:
      ValueError: if the shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(logical_or(jnp.array(0.5), jnp.array(0.5)))
      0.75
    """
    _check.same_shape("logical_or", p=p, q=q)
    return p + q * (1 - p)


@jit()
def logical_not(p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""The probability that an event does not happen, :math:`1 - p`; the logical not of 0 and 1.

    Args:
      p: probabilities.

    Returns:
      Probabilities in [0, 1].

    Gradient:
      Exact.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(logical_not(jnp.array(0.25)))
      0.75
    """
    return 1 - p


@jit()
def where(p: Float[Array, "*shape"], x: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""A choice between two numbers with a probability in place of the condition, :math:`p\, x + (1 - p)\, y`.

    Args:
      p: probabilities of ``x``; 0 and 1 give ``jnp.where`` bit for bit.
      x: finite numbers.
      y: others, of the same shape.

    Returns:
      Numbers between x and y.

    Gradient:
      Exact: the mean over the choice; nothing is cut off, so NaN in either number comes through.

    Raises:
      ValueError: if the shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(where(jnp.array(0.25), jnp.array(4.0), jnp.array(0.0)))
      1.0
    """
    _check.same_shape("where", p=p, x=x, y=y)
    return p * x + (1 - p) * y
