"""Smooth rectifiers, absolute values, and numbers held between two bounds."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.smooth._common import in_unit, over

__all__ = ["absolute", "clip", "gated_relu", "relu", "square_plus"]


@jit(hard_at_zero=("temperature",))
def relu(x: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape"]:
    r"""The smooth rectifier whose derivative is :func:`step`: the softplus.

    .. math:: \lambda \log(1 + e^{x / \lambda}), \qquad 0 \le \mathrm{error} \le \lambda \log 2

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jax.nn.relu``.

    Returns:
      Numbers at least ``max(x, 0)``.

    Gradient:
      That of the smooth function, in (0, 1).

    Raises:
      ValueError: if ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> f"{float(relu(jnp.array(0.0))):.4f}"
      '0.6931'

    Reference:
      Dugas et al., "Incorporating Second-Order Functional Knowledge for Better Option Pricing", 2001.
    """
    if _check.is_zero(temperature):
        return jax.nn.relu(x)
    return in_unit(jax.nn.softplus(over(widen(x), temperature)), temperature).astype(x.dtype)


@jit(hard_at_zero=("temperature",))
def square_plus(x: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape"]:
    r"""An algebraic smooth rectifier: no exponential, and tails that fall like a power.

    .. math:: \tfrac{1}{2} \big(x + \sqrt{x^2 + 4\lambda^2}\big), \qquad 0 \le \mathrm{error} \le \lambda

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jax.nn.relu``.

    Returns:
      Numbers at least ``max(x, 0)``.

    Gradient:
      That of the smooth function, in (0, 1).

    Raises:
      ValueError: if ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(square_plus(jnp.array(0.0), temperature=0.5))
      0.5

    Reference:
      Barron, "Squareplus: A Softplus-Like Algebraic Rectifier", 2021. https://arxiv.org/abs/2112.11687
    """
    if _check.is_zero(temperature):
        return jax.nn.relu(x)
    scaled = over(widen(x), temperature)
    root = jnp.sqrt(scaled**2 + 4)
    # The other root of the same equation where the sum would cancel.
    safe = jnp.where(scaled < 0, root - scaled, 1)
    value = jnp.where(scaled < 0, 2 / safe, (scaled + root) / 2)
    return in_unit(value, temperature).astype(x.dtype)


@jit(hard_at_zero=("temperature",))
def gated_relu(x: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape"]:
    r"""A rectifier from below, the number times its step (SiLU at temperature 1); not monotone.

    .. math:: x\, \sigma(x / \lambda), \qquad -0.2785\, \lambda \le \mathrm{error} \le 0

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jax.nn.relu``.

    Returns:
      Numbers at most ``max(x, 0)``.

    Gradient:
      That of the smooth function.

    Raises:
      ValueError: if ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(gated_relu(jnp.array(0.0)))
      0.0

    Reference:
      Elfwing, Uchibe, Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in Reinforcement
      Learning", 2018. https://arxiv.org/abs/1702.03118
    """
    if _check.is_zero(temperature):
        return jax.nn.relu(x)
    wide = widen(x)
    return (wide * jax.nn.sigmoid(over(wide, temperature))).astype(x.dtype)


@jit(hard_at_zero=("temperature",))
def absolute(x: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape"]:
    r"""The smooth absolute value whose derivative is :func:`sign`.

    .. math:: \lambda \log(2 + 2 \cosh(x / \lambda)), \qquad 0 \le \mathrm{error} \le 2 \lambda \log 2

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.abs``.

    Returns:
      Numbers at least ``|x|``.

    Gradient:
      That of the smooth function, in (-1, 1); 0 at 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(absolute(jnp.array(-3.0), temperature=0.01))
      3.0
    """
    if _check.is_zero(temperature):
        return jnp.abs(x)
    scaled = over(widen(x), temperature)
    return in_unit(jax.nn.softplus(scaled) + jax.nn.softplus(-scaled), temperature).astype(x.dtype)


@jit(hard_at_zero=("temperature",))
def clip(
    x: Float[Array, "*shape"], minimum: ScalarLike, maximum: ScalarLike, *, temperature: ScalarLike = 1.0
) -> Float[Array, "*shape"]:
    r"""The number held between two bounds, both of which are approached smoothly.

    .. math:: a + \mathrm{relu}_\lambda(x - a) - \mathrm{relu}_\lambda(x - b), \qquad
              |\mathrm{error}| \le \lambda \log 2

    Args:
      x: any numbers.
      minimum: the lower bound a.
      maximum: the upper bound b, at least a.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.clip``.

    Returns:
      Numbers in [a, b].

    Gradient:
      That of the smooth function, in (0, 1).

    Raises:
      ValueError: if ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> clip(jnp.array([-9.0, 0.5, 9.0]), 0.0, 1.0, temperature=0.01).round(4).tolist()
      [0.0, 0.5, 1.0]
    """
    if _check.is_zero(temperature):
        return jnp.clip(x, minimum, maximum)
    wide = widen(x)
    low, high = jnp.asarray(minimum, wide.dtype), jnp.asarray(maximum, wide.dtype)
    above_low, above_high = over(wide - low, temperature), over(wide - high, temperature)
    # Each form is exact at one end: the other would subtract two large numbers there.
    from_below = low + in_unit(jax.nn.softplus(above_low) - jax.nn.softplus(above_high), temperature)
    from_above = high + in_unit(jax.nn.softplus(-above_low) - jax.nn.softplus(-above_high), temperature)
    return jnp.where(wide - low > high - wide, from_above, from_below).astype(x.dtype)
