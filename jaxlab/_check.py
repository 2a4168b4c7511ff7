"""The errors for bad input: each names the function, the argument, what it got, and what is allowed.

Only what is known while tracing is looked at (shapes, types, Python numbers); the value of a traced array never is.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer


def key(function: str, value: Any) -> None:
    """Raises unless ``value`` is one typed PRNG key, as ``jax.random.key`` makes it."""
    if not isinstance(value, jax.Array) or not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        got = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else type(value).__name__
        raise TypeError(
            f"{function}: key must be a typed key, made by jax.random.key(seed); got {got}"
            " (an old-style uint32 key becomes a typed one by jax.random.wrap_key_data)"
        )
    if value.shape != ():
        raise ValueError(
            f"{function}: key must be one key of shape (); got keys of shape {value.shape}"
            " (jax.vmap over the keys gives a batch of draws)"
        )


def positive(function: str, argument: str, value: Any) -> None:
    """Raises if ``value`` is a Python number at or below zero (or not a number at all)."""
    if isinstance(value, (int, float)) and not value > 0:
        raise ValueError(f"{function}: {argument} must be greater than 0; got {value}")


def non_negative(function: str, argument: str, value: Any) -> None:
    """Raises if ``value`` is a Python number below zero (or not a number at all)."""
    if isinstance(value, (int, float)) and not value >= 0:
        raise ValueError(f"{function}: {argument} must not be negative; got {value}")


def is_zero(value: Any) -> bool:
    """Whether ``value`` is the Python number 0, which the program may be specialised for."""
    return isinstance(value, (int, float)) and value == 0


def within(function: str, argument: str, value: Any, minimum: float | int, maximum: float | int) -> None:
    """Raises if ``value`` is a Python number outside ``minimum`` ... ``maximum`` (or not a number at all)."""
    if isinstance(value, (int, float)) and not minimum <= value <= maximum:
        raise ValueError(f"{function}: {argument} must lie in {minimum} ... {maximum}; got {value}")


def fraction(function: str, argument: str, value: Any) -> None:
    """Raises if ``value`` is a Python number outside [0, 1)."""
    if isinstance(value, (int, float)) and not 0 <= value < 1:
        raise ValueError(f"{function}: {argument} must be at least 0 and less than 1; got {value}")


def at_least(function: str, argument: str, value: Any, minimum: int) -> None:
    """Raises unless ``value`` is a Python integer not below ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{function}: {argument} must be a Python integer; got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{function}: {argument} must be at least {minimum}; got {value}")


def multiple_of(function: str, argument: str, value: int, factor: int) -> None:
    """Raises unless ``value`` is a multiple of ``factor``."""
    if value % factor:
        raise ValueError(f"{function}: {argument} must be a multiple of {factor}; got {value}")


def is_traced(value: Any) -> bool:
    """Whether the numbers of an array are not known, as inside ``jax.jit`` or ``jax.vmap``."""
    return isinstance(value, Tracer)


def values_within(
    function: str, argument: str, value: Any, minimum: float | int, maximum: float | int, where: Any = None
) -> None:
    """Raises if an array whose numbers are known (it is not traced) has one outside ``minimum`` ... ``maximum``."""
    if is_traced(value) or is_traced(where):
        return
    numbers = jax.device_get(value)  # on the host: an operation of JAX would become part of a surrounding program
    wrong = ~((numbers >= minimum) & (numbers <= maximum))
    if where is not None:
        where = jax.device_get(where) != 0
        wrong = wrong & where.reshape(where.shape + (1,) * (wrong.ndim - where.ndim))
    if wrong.any():
        raise ValueError(
            f"{function}: {argument} must lie in {minimum:g} ... {maximum:g}; got {float(numbers[wrong][0]):g}"
            f" ({int(wrong.sum())} of {wrong.size} outside)"
        )


def same_shape(function: str, **arguments: Any) -> None:
    """Raises unless all the arguments have one shape, so that nothing broadcasts in silence."""
    shapes = {name: jnp.shape(value) for name, value in arguments.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"{function}: {' and '.join(shapes)} must have the same shape; got {got}")


def axis_of(function: str, argument: str, value: Any, axis: int) -> None:
    """Raises unless the array ``value`` has the axis ``axis``, with at least one element along it."""
    shape = jnp.shape(value)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{function}: axis must be an axis of {argument}, of shape {list(shape)}; got {axis}")
    if shape[axis] == 0:
        raise ValueError(f"{function}: {argument} must not be empty along axis {axis}; got shape {list(shape)}")
