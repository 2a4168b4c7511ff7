"""Every public function at a large size: the rows of ``tests/cases``, with axes as long as their letters allow.

The laws call each function with a handful of numbers, and read which of its axes may have other sizes
(``tests/sizes.py``). Here these are long: a function that keeps what grows as the product of two axes, where the
mathematics does not ask for it, has far more temporary memory than arguments and results.

Found: averages over pairs of 65,536 samples, whose number is none of 32 bits.
"""

import functools
import importlib
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

#: Numbers in the largest array of an example, and the longest axis.
NUMBERS = 2**20
LONGEST = 2**16
BATCH = 8


def long_axes(arrays: list[str], limited: dict[str, tuple[int, ...]], *, within: bool) -> dict[str, tuple[int]]:
    """A size of each letter; of those that a row limits the last one listed, if it is the only one or ``within``."""
    names = [[part.split("*")[-1] for part in letters.split()] for letters in arrays]
    free = [sum(not name.isdigit() for name in array) for array in names]
    size = min(LONGEST, int(NUMBERS ** (1 / max([1, *free]))))

    def of(letter: str) -> int:
        listed = limited.get(letter, ())
        return listed[-1] if len(listed) == 1 or (listed and within) else size

    parts = [part for letters in arrays for part in letters.split()]
    found = dict.fromkeys("*" * part.startswith("*") + part.split("*")[-1] for part in parts)
    return {letter: (of(letter),) for letter in found if not letter.isdigit()}


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
    """Value and gradient of a batch of examples of a row, each of them large."""

    case: Any
    size: str = "large"

    @property
    def name(self) -> str:
        """As the laws call it."""
        return self.case.label

    def lower(self, mesh: Mesh) -> jax.stages.Lowered:
        """Traces it for a mesh, over whose devices the batch is spread."""
        programs, sizes = (importlib.import_module(name) for name in ("programs", "sizes"))
        arrays = sizes.data_letters(self.case)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BATCH))
        program = jax.jit(jax.vmap(functools.partial(result_and_gradient, self.case)))
        for within in (False, True):
            data = programs.example(self.case)
            if sizes.free_letters(self.case):
                data = sizes.resized(self.case, long_axes(arrays, self.case.sizes, within=within))
            batch = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((BATCH, *np.shape(leaf)), jnp.result_type(leaf)), data
            )
            try:
                return program.lower(*(placed(argument, mesh, "batch") for argument in (keys, batch)))
            except ValueError:  # it has a largest size, or sizes that are not free of each other
                if within:
                    raise
        raise AssertionError


def rows() -> Iterator[Row]:
    """All that have data; raises FileNotFoundError without ``tests``, which is no package: only a checkout has it."""
    tests = Path(__file__).parents[1] / "tests"
    if not tests.is_dir():
        raise FileNotFoundError(f"the rows are those of {tests}, which is not here")
    sys.path.insert(0, str(tests))
    yield from (Row(case) for case in importlib.import_module("cases").CASES if case.data)
