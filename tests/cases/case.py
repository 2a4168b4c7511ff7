"""What a row is, and the example arguments that many rows share."""

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True, eq=False)
class Case:
    """One public function with example arguments and its promises.

    Arguments have names. Arrays, tuples of arrays and Python floats are data: the laws batch, differentiate and convert
    them. Everything else (counts, axes, flags, shapes) is part of the program. One field of an argument is written
    ``argument.field``. What is neither in ``exact`` nor in ``surrogate`` is promised a gradient of zero.
    """

    name: str  # the path below jaxlab: "gumbel.concrete", "distributions.Normal.mean"
    arguments: dict[str, Any] = field(default_factory=dict)  # all but the key
    exact: tuple[str, ...] = ()  # arguments whose gradient is the derivative of the value
    surrogate: tuple[str, ...] = ()  # arguments whose gradient is declared to be another one
    results: tuple[str, ...] = ("same",)  # dtype of each: "same" as the data, "wide" (float32 at least), "integer"
    wide: tuple[str, ...] = ()  # arguments that are never in fewer bits than float32
    extremes: tuple[dict[str, Any], ...] = ()  # arguments instead of those above: value and gradient stay finite
    compiled: bool = True  # by its definition (law 4); not so factories, and what is made of sizes alone
    function: Callable | None = None  # how to call it, where it takes or returns something that is not an array
    variant: str = ""  # tells the rows of one function apart
    axes: dict[str, str] = field(default_factory=dict)  # their letters, where the annotations do not say them all
    returned: tuple[str, ...] = ()  # those of each result, likewise
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of these letters, if not any from 0 on
    below: dict[str, str] = field(default_factory=dict)  # integers that are less than the size of this letter

    @property
    def label(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @functools.cached_property
    def target(self) -> Callable:
        """The public function itself."""
        module, *path = self.name.split(".")
        return functools.reduce(getattr, path, importlib.import_module(f"jaxlab.{module}"))

    @functools.cached_property
    def random(self) -> bool:
        return "key" in inspect.signature(self.function or self.target).parameters

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        return {name: value for name, value in self.arguments.items() if is_data(value)}

    def call(self, key: jax.Array, data: dict[str, Any]) -> Any:
        """The result for this key (which only a random function sees) and this data."""
        arguments = {**self.arguments, **data, **({"key": key} if self.random else {})}
        return (self.function or self.target)(**arguments)


def is_data(value: Any) -> bool:
    return any(isinstance(leaf, (float, np.ndarray, np.generic, jax.Array)) for leaf in jax.tree.leaves(value))


def f32(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def each(name: str, *values: Any) -> tuple[dict[str, Any], ...]:
    """Extremes that differ from the example in one argument."""
    return tuple({name: value} for value in values)


# Sizes of an axis that must not be empty, or needs two.
ONE_UP, TWO_UP, THREE_UP, FOUR_UP = (1, 2, 3, 5), (2, 3, 5), (3, 5), (4, 5)
LAST: dict[str, Any] = {"returned": ("*batch k",), "sizes": {"k": ONE_UP}}  # of a function along the last axis

# Arguments that many rows share.
LOGITS, VALUE, SCALE = f32(0.5, -1.0, 2.0), f32(1.5, -0.5, 0.25), f32(0.5, 1.0, 2.0)
SQUARE = f32([0.5, -1.0, 2.0], [1.5, 0.25, -0.5], [-2.0, 1.0, 0.75])
ROWS, CODES = SQUARE[:2], np.array([1, 0, 2])
HUGE, TIES, ONE_CATEGORY = f32(1e4, -1e4, 0.0), f32(0.0, 0.0, 0.0), f32(3.0)
CERTAIN, IMPOSSIBLE = f32(-1.0, np.inf, 0.0), f32(-np.inf, 1.0, -np.inf)
COLD = each("temperature", 1e-3)
EXTREME_LOGITS = each("logits", HUGE, TIES, ONE_CATEGORY, CERTAIN, IMPOSSIBLE)
EXTREME_SQUARES = each("logits", 1e4 * SQUARE, 0 * SQUARE, f32([3.0]))
