"""Smooth steps, absolute values, rectifiers, roundings and truth values, one number at a time."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.smooth._common import in_unit, over

__all__ = [
    "absolute",
    "clip",
    "equal",
    "floor",
    "gated_relu",
    "logical_and",
    "logical_not",
    "logical_or",
    "relu",
    "round",
    "sign",
    "square_plus",
    "step",
    "where",
]


@jit(hard_at_zero=("temperature",))
def step(x: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape"]:
    r"""The smooth unit step: the logistic function.

    .. math:: \sigma(x / \lambda), \qquad |\mathrm{error}| = \sigma(-|x| / \lambda) \le 1/2

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.heaviside(x, 1/2)``.

    Returns:
      Numbers in [0, 1]; 1/2 at 0.

    Gradient:
      That of the smooth function; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> step(jnp.array([-1.0, 0.0, 1.0]), temperature=0.0).tolist()
      [0.0, 0.5, 1.0]
      >>> step(jnp.array([0.0, 100.0])).tolist()
      [0.5, 1.0]
    """
    if _check.is_zero(temperature):
        return jnp.heaviside(x, jnp.full((), 0.5, x.dtype))
    return jax.nn.sigmoid(over(widen(x), temperature)).astype(x.dtype)


@jit(hard_at_zero=("temperature",))
def sign(x: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape"]:
    r"""The smooth sign, twice the step minus one.

    .. math:: \tanh(x / 2\lambda), \qquad |\mathrm{error}| = 2\sigma(-|x| / \lambda) \le 1

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.sign``.

    Returns:
      Numbers in [-1, 1]; 0 at 0.

    Gradient:
      That of the smooth function; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> sign(jnp.array([-100.0, 0.0, 100.0])).tolist()
      [-1.0, 0.0, 1.0]
    """
    if _check.is_zero(temperature):
        return jnp.sign(x)
    return jnp.tanh(over(widen(x) / 2, temperature)).astype(x.dtype)


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


@jit(hard_at_zero=("temperature",))
def round(x: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape"]:
    r"""The smooth nearest integer: what rounding does on average to a number with Cauchy noise of scale temperature.

    .. math:: x - \frac{1}{\pi} \arctan \frac{\sin 2\pi x}{e^{2\pi\lambda} + \cos 2\pi x}, \qquad
              |\mathrm{error}| \le \frac{1}{\pi} \arctan \frac{\lambda}{d}

    with d the distance of x to the nearest half-integer. The Fourier series of rounding, each term damped by
    :math:`e^{-2\pi k \lambda}`: increasing and analytic at every temperature above 0; the identity at infinity.

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.round``.

    Returns:
      Numbers within 1/2 of x; at the half-integers, themselves.

    Gradient:
      That of the smooth function, positive and of mean 1; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> round(jnp.array([1.4, 1.5, 1.6]), temperature=1e-4).round(2).tolist()
      [1.0, 1.5, 2.0]
    """
    if _check.is_zero(temperature):
        return jnp.round(x)
    return _rounded(widen(x), temperature).astype(x.dtype)


@jit(hard_at_zero=("temperature",))
def floor(x: Float[Array, "*shape"], *, temperature: ScalarLike = 1.0) -> Float[Array, "*shape"]:
    r"""The smooth largest integer not above: :func:`round` of x - 1/2.

    .. math:: \mathrm{round}_\lambda(x - \tfrac12), \qquad |\mathrm{error}| \le \frac{1}{\pi} \arctan \frac{\lambda}{d}

    with d the distance of x to the nearest integer.

    Args:
      x: any numbers.
      temperature: :math:`\lambda`, in the unit of ``x``; the number 0 gives ``jnp.floor``.

    Returns:
      Numbers within [x - 1, x]; at the integers, x - 1/2.

    Gradient:
      That of the smooth function, positive and of mean 1; zero at temperature 0.

    Raises:
      ValueError: if ``temperature`` is a negative Python number.

    Examples:
      >>> import jax.numpy as jnp
      >>> floor(jnp.array([1.25, 1.75]), temperature=0.0).tolist()
      [1.0, 1.0]
    """
    if _check.is_zero(temperature):
        return jnp.floor(x)
    return _rounded(widen(x) - 0.5, temperature).astype(x.dtype)


def _rounded(x: Float[Array, "..."], temperature: ScalarLike) -> Float[Array, "..."]:
    # The whole turns are left out first, where that is exact: sin(2 pi x) of a large x would be noise.
    offset = x - lax.stop_gradient(jnp.round(x))
    decay = 2 * jnp.pi * jnp.maximum(jnp.asarray(temperature, x.dtype), jnp.finfo(x.dtype).eps)
    damping = jnp.exp(-decay)
    # From the nearest half-integer, where the step is: exact there, and 1 - damping * cos does not cancel.
    side = lax.stop_gradient(jnp.where(offset < 0, -1.0, 1.0)).astype(x.dtype)
    away = 0.5 - side * offset
    across = damping * jnp.sin(2 * jnp.pi * away)
    along = -jnp.expm1(-decay) + 2 * damping * jnp.sin(jnp.pi * away) ** 2
    return x - side * jnp.arctan2(across, along) / jnp.pi


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
