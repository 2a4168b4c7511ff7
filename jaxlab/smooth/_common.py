"""What the smooth functions share: masks and axes, and the scale of a temperature."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, ScalarLike

from jaxlab import _check
from jaxlab._precision import widen

__all__ = []


def check_mask(function: str, name: str, value: Array, where: Bool[Array, "..."] | None) -> None:
    """Raises unless ``where`` is absent or has the shape of the array it masks."""
    if where is not None:
        _check.same_shape(function, **{name: value, "where": where})


def last(
    function: str, name: str, value: Float[Array, "..."], axis: int, where: Bool[Array, "..."] | None
) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
    """The array, widened, with ``axis`` last, and the mask of its valid elements; invalid ones are 0."""
    _check.axis_of(function, name, value, axis)
    check_mask(function, name, value, where)
    value = jnp.moveaxis(widen(value), axis, -1)
    # Replaced before anything is computed of them: the derivative of what is cut off later could be NaN.
    if where is None:
        return value, jnp.ones(value.shape, bool)
    where = jnp.moveaxis(where, axis, -1)
    return jnp.where(where, value, 0), where


def over(value: Float[Array, "..."], temperature: ScalarLike) -> Float[Array, "..."]:
    """``value / temperature``, finite for a traced temperature of 0 too."""
    tiny = jnp.finfo(value.dtype).tiny ** 0.5
    return value / jnp.maximum(jnp.asarray(temperature, value.dtype), jnp.asarray(tiny, value.dtype))


def in_unit(value: Float[Array, "..."], temperature: ScalarLike) -> Float[Array, "..."]:
    """``value`` times the temperature."""
    return value * jnp.asarray(temperature, value.dtype)
