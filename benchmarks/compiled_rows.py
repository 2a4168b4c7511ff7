"""Every public function at two sizes: the rows of ``tests/cases``, and these with axes as long as their letters allow.

The laws call each function with a handful of numbers, and read which of its axes may have other sizes
(``tests/sizes.py``). At the large size these are long: a function that keeps what grows as the product of two axes,
where the mathematics does not ask for it, has far more temporary memory than arguments and results.
``compile_functions.md`` begins with those that have most. They list all states or swaps, evaluate a cost at each
neighbour (of eight examples with several samples each, whose chunks come together), keep what a derivative needs of
each step or relaxation, or take a chunk of items with all others.

Found: averages over pairs of 65,536 samples, whose number is none of 32 bits; all features of 256 x 1,024 pairs at
once; matrices of all places of an order, of a Hessian, and of all sites of all neighbours; k^3 numbers for k
categories; single numbers of long rows, gathered on a TPU.
"""

import functools
import importlib
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.compilers import placed
from jaxlab import estimators

#: Numbers in the largest array of an example, and the longest axis; fewer where a result would have more than MOST,
#: or a cost be evaluated at more than these in all.
NUMBERS = 2**20
LONGEST = 2**16
MOST = 2**26
BATCH = 8


def long_axes(
    arrays: list[str], limited: dict[str, tuple[int, ...]], numbers: int, *, within: bool
) -> dict[str, tuple[int]]:
    """A size of each letter; of those that a row limits the last one listed, if it is the only one or ``within``."""
    names = [[part.split("*")[-1] for part in letters.split()] for letters in arrays]
    free = [sum(not name.isdigit() for name in array) for array in names]
    size = min(LONGEST, int(numbers ** (1 / max([1, *free]))))

    def of(letter: str) -> int:
        listed = limited.get(letter, ())
        return listed[-1] if len(listed) == 1 or (listed and within) else size

    parts = [part for letters in arrays for part in letters.split()]
    found = dict.fromkeys("*" * part.startswith("*") + part.split("*")[-1] for part in parts)
    return {letter: (of(letter),) for letter in found if not letter.isdigit()}


def num_evaluated(case: Any, data: dict[str, Any]) -> int:
    """Numbers in all the draws at which an estimator evaluates its cost."""
    row = {**estimators.ESTIMATORS, **estimators.BOUNDS}.get(case.name.removeprefix("estimators."))
    if row is None or "dist" not in data:
        return 0
    num_samples = case.arguments.get("num_samples", row.minimal_num_samples)
    return row.evaluations(num_samples, data["dist"]) * jax.tree.leaves(data["dist"])[0].size


def result_and_gradient(case: Any, key: jax.Array, data: dict[str, Any]) -> Any:
    """The result of a row, and the gradient of the sum of its squares to the floating-point data."""
    programs = importlib.import_module("programs")
    floats, merge = programs.split(data)

    def squares(floats: list[jax.Array]) -> Any:
        result = case.call(key, merge(floats))
        wide = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(result) if programs.is_float(leaf)]
        return sum((jnp.sum(leaf**2) for leaf in wide), jnp.zeros(())), result

    return jax.grad(squares, has_aux=True)(floats)


@dataclass(frozen=True)
class Row:
    """Value and gradient of a batch of examples of a row."""

    case: Any
    size: str  # "small", as in the row, or "large"

    @property
    def name(self) -> str:
        """As the laws call it."""
        return self.case.label

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        """Traces it for a mesh, over whose devices the batch is spread."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BATCH))
        program = jax.jit(jax.vmap(functools.partial(result_and_gradient, self.case)))
        refused = None
        if self.size == "small":
            return program.lower(*(placed(argument, mesh, "batch") for argument in (keys, self.batch(self.example()))))
        for within, numbers in itertools.product((False, True), (NUMBERS >> shift for shift in range(0, 20, 2))):
            data = self.data(numbers, within)
            try:
                if num_evaluated(self.case, data) > MOST:
                    continue
                results = jax.tree.leaves(jax.eval_shape(self.case.call, key, data))
                if sum(leaf.size for leaf in results) <= MOST:
                    return program.lower(*(placed(argument, mesh, "batch") for argument in (keys, self.batch(data))))
            except ValueError as error:  # it has a largest size, or sizes that are not free of each other
                refused = error
        raise refused or AssertionError(self.name)

    def batch(self, data: dict[str, Any]) -> dict[str, Any]:
        """The shapes of a batch of such data."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((BATCH, *np.shape(leaf)), jnp.result_type(leaf)), data)

    def example(self) -> dict[str, Any]:
        """The row's data."""
        return importlib.import_module("programs").example(self.case)

    def data(self, numbers: int, within: bool) -> dict[str, Any]:
        """The row's data with long axes, or as it is where no axis is free."""
        sizes = importlib.import_module("sizes")
        if not sizes.free_letters(self.case):
            return self.example()
        arrays = sizes.data_letters(self.case)
        return sizes.resized(self.case, long_axes(arrays, self.case.sizes, numbers, within=within))


def rows() -> Iterator[Row]:
    """All that have data; raises FileNotFoundError without ``tests``, which is no package: only a checkout has it."""
    tests = Path(__file__).parents[1] / "tests"
    if not tests.is_dir():
        raise FileNotFoundError(f"the rows are those of {tests}, which is not here")
    sys.path.insert(0, str(tests))
    cases = [case for case in importlib.import_module("cases").CASES if case.data]
    yield from (Row(case, size) for size in ("small", "large") for case in cases)
