"""What an estimator claims, and what every one of them does alike: check its input, draw, evaluate f."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab.distributions import Categorical, Scored

__all__ = ["BOUNDS", "ESTIMATORS", "Estimator"]

Function = TypeVar("Function", bound=Callable)

# A scalar; or, with has_aux, the pair of it and the auxiliary values.
Estimate: TypeAlias = Any


@dataclass(frozen=True)
class Estimator:
    """One row of :data:`ESTIMATORS`: what the estimator needs, what it claims, what it costs.

    ``minimal_num_samples`` is 0 where an estimator takes no samples at all. Evaluations of f' are those with respect to
    the draw; what f closes over is differentiated in each evaluation anyway.
    """

    name: str
    estimate: Callable
    needs: type  # the capability that the distribution must have
    unbiased_value: bool
    unbiased_gradient: bool
    derivative_order: int | float  # math.inf, or the highest valid one; a higher one raises
    evaluations: Callable[[int, Any], int]  # of f, by num_samples and distribution
    derivative_evaluations: Callable[[int, Any], int]  # of f' with respect to the draw, by the same
    minimal_num_samples: int
    samples_in_groups_of: int = 1  # num_samples must be a multiple of it
    relaxed_draws: bool = False  # f sees draws between the discrete values
    tunable: tuple[str, ...] = ()  # options whose value changes bias or variance
    initial_state: Callable[[], Any] | None = None  # then: estimate(key, dist, f, state, ...) -> (value, state)


#: Every estimator by name, in the order of the documentation. The tests and the benchmarks run over this table.
ESTIMATORS: dict[str, Estimator] = {}

#: Likewise for the bounds of several samples, whose value is not the expectation of f.
BOUNDS: dict[str, Estimator] = {}


def is_capable(needs: type, dist: Any) -> bool:
    """Whether ``dist`` has the methods of the protocol ``needs``, or is of that one family."""
    return not capabilities_missing(needs, dist) if getattr(needs, "_is_protocol", False) else isinstance(dist, needs)


def capabilities_missing(needs: type, dist: Any) -> list[str]:
    """The methods of the protocol ``needs`` that ``dist`` does not have."""
    methods = {name for c in needs.__mro__ for name in vars(c) if not name.startswith("_")}
    return sorted(name for name in methods if not callable(getattr(dist, name, None)))


def check_capability(row: Estimator, dist: Any, table: dict[str, Estimator]) -> None:
    """Raises the TypeError that names what ``dist`` lacks and which estimators would take it."""
    if not is_capable(row.needs, dist):
        is_protocol = getattr(row.needs, "_is_protocol", False)
        lacks = f", which has no {', '.join(capabilities_missing(row.needs, dist))}" if is_protocol else ""
        fitting = [other.name for other in table.values() if is_capable(other.needs, dist)]
        raise TypeError(
            f"{row.name}: dist must be {row.needs.__name__}; got {type(dist).__name__}{lacks}."
            f" Estimators for it: {', '.join(fitting) or 'none'}"
        )


def estimator(*, table: dict[str, Estimator] = ESTIMATORS, **claims: Any) -> Callable[[Function], Function]:
    """Puts a function into :data:`ESTIMATORS` under its own name, and checks its arguments at every call.

    Args:
      table: where the row goes: :data:`ESTIMATORS` or :data:`BOUNDS`.
      **claims: the fields of :class:`Estimator` but ``name`` and ``estimate``.

    Returns:
      A decorator that leaves name, docstring and signature as they are.
    """

    def decorate(function: Function) -> Function:
        name = function.__name__
        signature = inspect.signature(function)
        cost = list(signature.parameters)[2]  # after key and dist: f, or log_joint

        @functools.wraps(function)
        def checked(*args, **kwargs):
            arguments = signature.bind(*args, **kwargs)
            arguments.apply_defaults()
            options = arguments.arguments
            _check.key(name, options["key"])
            check_capability(row, options["dist"], table)
            if isinstance(options["dist"], Categorical):
                _check.axis_of(name, "logits of dist", options["dist"].logits, -1)
            if not callable(options[cost]):
                raise TypeError(f"{name}: {cost} must be a function of one draw; got {type(options[cost]).__name__}")
            if "num_samples" in options:
                _check.at_least(name, "num_samples", options["num_samples"], row.minimal_num_samples)
                _check.multiple_of(name, "num_samples", options["num_samples"], row.samples_in_groups_of)
            if options.get("chunk_size") is not None:
                _check.at_least(name, "chunk_size", options["chunk_size"], 1)
            if "temperature" in options:
                _check.positive(name, "temperature", options["temperature"])
            return function(*args, **kwargs)

        row = Estimator(name=name, estimate=checked, **claims)
        table[name] = row
        return checked  # pyright: ignore[reportReturnType]

    return decorate


def for_each(function: Callable, *arguments: Any) -> Any:
    """``jax.vmap(function)(*arguments)``; but one sample is not made a batch of one.

    Under a ``vmap`` over examples, an axis of length 1 costs XLA a transposed copy for each weight's gradient.
    """
    if jax.tree.leaves(arguments)[0].shape[0] != 1:
        return jax.vmap(function)(*arguments)
    return only(function(*jax.tree.map(lambda leaf: leaf[0], arguments)))


def only(tree: Any) -> Any:
    """The arrays of ``tree`` with a first axis of length 1."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)


def draw_each(draw: Callable[[PRNGKeyArray], Any], key: PRNGKeyArray, num_samples: int) -> Any:
    """``num_samples`` independent draws along a new first axis."""
    # The key itself, and not an element of an array of keys, so that its reuse can be found.
    return jax.vmap(draw)(jax.random.split(key, num_samples)) if num_samples > 1 else only(draw(key))


def draw_samples(key: PRNGKeyArray, dist: Scored, num_samples: int) -> Any:
    """``num_samples`` independent draws along a new first axis, constants to ``jax.grad``."""
    return lax.stop_gradient(draw_each(dist.sample, key, num_samples))


def evaluate(
    name: str, f: Callable[[Any], Any], draws: Any, has_aux: bool, argument: str = "f"
) -> tuple[Float[Array, "n"], Any]:
    """The values of ``f`` at each of the draws, and its auxiliary values (None without ``has_aux``)."""
    return for_each(functools.partial(evaluate_one, name, f, has_aux, argument=argument), draws)


def evaluate_one(
    name: str, f: Callable[[Any], Any], has_aux: bool, draw: Any, argument: str = "f"
) -> tuple[Float[Array, ""], Any]:
    """The value of ``f`` at one draw; raises unless it is one real scalar. Errors call f ``argument``."""
    returned = f(draw)
    if has_aux and not (isinstance(returned, tuple) and len(returned) == 2):
        got = type(returned).__name__
        raise TypeError(f"{name}: {argument} must return (scalar, aux) when has_aux is True; got {got}")
    value, aux = returned if has_aux else (returned, None)
    if not hasattr(value, "dtype") and not isinstance(value, (int, float)):
        raise TypeError(
            f"{name}: {argument} must return one scalar (or with has_aux=True a pair of a scalar and anything);"
            f" got {type(value).__name__}"
        )
    value = jnp.asarray(value)
    if value.shape != ():
        raise ValueError(
            f"{name}: {argument} must return one scalar, of shape (), for one draw; got shape {value.shape}"
            " (a batch of examples is a jax.vmap over this estimator)"
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name}: {argument} must return a floating-point scalar; got {value.dtype}")
    return value, aux


def fixed_cost(name: str, f: Callable[[Any], Any], has_aux: bool, draw: Any) -> Callable[[Any], Float[Array, ""]]:
    """The value of ``f`` at draws like ``draw``, as a function of the draw alone: what f closes over is a constant.

    What is made of it for a control variate then asks f for no second derivative, which estimators inside f may lack.
    """

    def cost(draw: Any) -> Float[Array, ""]:
        return evaluate_one(name, f, has_aux, draw)[0]

    converted, closed_over = jax.closure_convert(cost, draw)
    constants = lax.stop_gradient(closed_over)
    return lambda draw: converted(draw, *constants)


def estimate_of(value: Float[Array, ""], aux: Any, has_aux: bool) -> Estimate:
    """What an estimator returns: the value, or the pair of it and the auxiliary values."""
    return (value, aux) if has_aux else value
