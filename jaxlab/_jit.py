"""``jax.jit`` that keeps the signature, and refuses bad Python arguments before they become tracers."""

import functools
import inspect
from collections.abc import Callable
from typing import TypeVar

import jax

from jaxlab import _check

Function = TypeVar("Function", bound=Callable)


def jit(
    *,
    static: tuple[str, ...] = (),
    positive: tuple[str, ...] = (),
    fraction: tuple[str, ...] = (),
    hard_at_zero: tuple[str, ...] = (),
    check: Callable[..., None] | None = None,
) -> Callable[[Function], Function]:
    """Compiles a function where it is defined.

    Inside ``jax.jit`` a Python number is a tracer whose value nobody can see, so what can be refused is refused
    here, outside: a ``key`` that is not one typed key, and an option named in ``positive`` that is a Python number
    at or below zero (or, in ``fraction``, outside [0, 1)).

    Args:
      static: names of arguments that are part of the program and not data.
      positive: names of keyword-only options that must be greater than zero.
      fraction: names of keyword-only options that must lie in [0, 1).
      hard_at_zero: names of keyword-only options that must not be negative, and whose Python number 0 is part of the
        program: the function sees the number itself, and returns what it is the limit of.
      check: called with the arguments as they came, before any of them is a tracer; it raises what it refuses.

    Returns:
      A decorator that leaves name, docstring and signature as they are.
    """

    def decorate(function: Function) -> Function:
        name = function.__qualname__
        code = inspect.unwrap(function).__code__
        positional = code.co_varnames[: code.co_argcount]
        key_position = positional.index("key") if "key" in positional else None

        @functools.cache  # made at the first call: a hundred of these would slow down the import
        def compiled(zeros: tuple[str, ...]) -> Callable:
            # Inlined: the surrounding program's trace stays flat, and so do its error messages.
            return jax.jit(function, static_argnames=static + zeros, inline=True)

        @functools.wraps(function)
        def checked(*args, **kwargs):
            if key_position is not None:
                key = args[key_position] if len(args) > key_position else kwargs.get("key")
                _check.key(name, key)
            for option in positive:
                if option in kwargs:
                    _check.positive(name, option, kwargs[option])
            for option in fraction:
                if option in kwargs:
                    _check.fraction(name, option, kwargs[option])
            for option in hard_at_zero:
                if option in kwargs:
                    _check.non_negative(name, option, kwargs[option])
            if check is not None:
                check(*args, **kwargs)
            zeros = tuple(option for option in hard_at_zero if _check.is_zero(kwargs.get(option)))
            return compiled(zeros)(*args, **kwargs)

        return checked  # pyright: ignore[reportReturnType]

    return decorate
