"""What the laws run of each row of ``cases``: its data in a dtype, batches of it, its value and gradient."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case
from jax.sharding import Mesh, NamedSharding, PartitionSpec

#: Examples in a batch.
BATCH = 4
#: For a test that spreads something over four devices, where conftest.py cannot make them: on a machine with one GPU.
#: Looked at when the test runs: benchmarks read this file before they choose their platform.
needs_four_devices = pytest.mark.skipif(
    "__import__('jax').device_count() < 4", reason="it spreads over four devices; here are fewer"
)


def over(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """A test for each of these rows."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.label) for case in cases])


def is_float(leaf: Any) -> bool:
    return isinstance(leaf, float) or jnp.issubdtype(leaf.dtype, jnp.floating)


def example(case: Case, dtype: Any = jnp.float32, number: int = 0) -> dict[str, Any]:
    """The data of a row as JAX arrays; those of higher ``number`` are shrunk by so many tenths.

    Floating-point arrays are in ``dtype``, but arguments in ``case.wide`` in no less than float32; Python numbers stay
    Python numbers, as in most calls.
    """

    shrunk = 1 - number / 10

    def convert(dtype, leaf):
        if isinstance(leaf, float):
            return leaf * shrunk
        return jnp.asarray(leaf * shrunk, dtype) if is_float(leaf) else jnp.asarray(leaf)

    wide = dtype if jnp.finfo(dtype).bits > 32 else jnp.float32
    return {
        name: jax.tree.map(functools.partial(convert, wide if name in case.wide else dtype), value)
        for name, value in case.data.items()
    }


def batch(case: Case, size: int, dtype: Any = jnp.float32) -> dict[str, Any]:
    """The first ``size`` examples of a row, stacked."""
    return stack([example(case, dtype, number) for number in range(size)])


def stack(trees: list[Any]) -> Any:
    """Trees of arrays as one tree of longer ones, on the host: each operation of JAX would be a program of its own."""
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves])), *trees)


def leaf_names(data: dict[str, Any]) -> list[str]:
    """The names of the floating-point leaves, as ``argument.field``, in the order of ``value_and_gradient``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(data)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, leaf in leaves if is_float(leaf)]


def promised(name: str, promises: tuple[str, ...]) -> bool:
    """Whether the leaf ``argument.field`` is in ``promises``, where it or its whole argument may stand."""
    return any(f"{name}.".startswith(f"{promise}.") for promise in promises)


def weighted_sum(result: Any) -> Any:
    """A sum of all floating-point results, each with another weight: gradients of different results do not cancel."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    total = np.zeros((), dtype)
    for position, leaf in enumerate(jax.tree.leaves(result)):
        if is_float(leaf):
            weights = np.cos(np.arange(leaf.size) + position).reshape(leaf.shape).astype(dtype)
            total = total + (leaf.astype(dtype) * weights).sum()
    return total


def operations(jaxpr: Any) -> Iterator[Any]:
    """Those of a traced function, and of the functions in it."""
    for operation in jaxpr.eqns:
        yield operation
        for inner in jax.tree.leaves(list(operation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from operations(inner)


def split(data: dict[str, Any]) -> tuple[list[jax.Array], Any]:
    """The floating-point leaves of the data, and the function that puts such leaves back."""
    leaves, tree = jax.tree.flatten(data)

    def merge(floats):
        rest = iter(floats)
        return tree.unflatten([next(rest) if is_float(leaf) else leaf for leaf in leaves])

    return [leaf for leaf in leaves if is_float(leaf)], merge


@functools.cache
def program(case: Case) -> Callable[[jax.Array, dict[str, Any]], Any]:
    """The call of a row: JAX traces it once for all laws, and then batches and differentiates what it has."""
    return jax.jit(case.call)


def value_and_gradient(case: Case, key: jax.Array, data: dict[str, Any]) -> tuple[Any, list[jax.Array]]:
    """The result, and the gradient of its weighted sum with respect to each floating-point leaf of the data."""
    floats, merge = split(data)

    def weighted(floats):
        result = program(case)(key, merge(floats))
        return weighted_sum(result), result

    gradient, result = jax.grad(weighted, has_aux=True)(floats)
    return result, gradient


# Compiled and run once for all the laws.
@functools.cache
def compiled(case: Case) -> Callable[[jax.Array, dict[str, Any]], Any]:
    """Value and gradient of one example, compiled."""
    return jax.jit(functools.partial(value_and_gradient, case))


@functools.cache
def compiled_batch(case: Case) -> Callable[[jax.Array, dict[str, Any]], Any]:
    """Values and gradients of a batch, compiled."""
    return jax.jit(jax.vmap(functools.partial(value_and_gradient, case)))


def keys() -> jax.Array:
    """A key for each example of a batch."""
    return jax.random.split(jax.random.key(0), BATCH)


def spread_over_devices(*arguments: Any) -> Any:
    """Arguments whose first axis is spread over all devices."""
    return jax.device_put(arguments, NamedSharding(Mesh(jax.devices(), ("batch",)), PartitionSpec("batch")))
