"""Smooth steps: of the sign of a number, and of its whole part."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, ScalarLike

from jaxlab import _check
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.smooth._common import over

__all__ = ["floor", "round", "sign", "step"]


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
