"""Some rows at a time, where what is made of all of them at once would not fit; in the derivative too."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray

# What is made of some rows at a time has so many numbers: 8 MiB of float32.
NUMBERS = 2**21
# So many are taken with all others, of which there may be few: what they make is added while it is in a CPU's cache.
ROWS = 256


def rows_at_once(num_numbers: int) -> int:
    """How many rows at a time, each of which makes so many numbers."""
    return max(1, NUMBERS // max(1, num_numbers))


def rows_with_others(num_numbers: int) -> int:
    """How many rows at a time, each of which is taken with all the others, which have so many numbers."""
    return min(ROWS, rows_at_once(num_numbers))


def key_of_each(key: PRNGKeyArray, numbers: Int[Array, "n"]) -> Array:
    """A key for each row by its number: what a row draws does not depend on which rows are drawn for with it."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def by_rows(of_row: Callable, items: Any, num_rows: int) -> Any:
    """``of_row`` of each item (along the leading axis), with memory for ``num_rows`` of them.

    Of so few rows there is no loop. Rows follow one another, and none is made up to fill the last chunk: the derivative
    of a function that somebody gives may be infinite there.
    """
    if jax.tree.leaves(items)[0].shape[0] <= num_rows:
        return jax.vmap(of_row)(items)
    return lax.map(jax.checkpoint(of_row), items, batch_size=num_rows)


def by_chunks(of_chunk: Callable, rows: Any, chunk_size: int, *, derivative: bool = True, shared: Any = None) -> Any:
    """``of_chunk(rows)``, a function of each row and finite at zeros, which fill the last chunk, some rows at a time.

    A chunk has rows from all over, at equal distances: where they are spread over devices without a ``shard_map``, each
    device has its part of every chunk, and none is sent the rows of the others. For the derivative each chunk is made
    again; without one (``derivative=False``) no copy of the rows is made. What is ``shared`` by all chunks comes before
    the rows, as what the loop carries: JAX 0.9.2 cannot transpose a loop in a branch otherwise.
    """
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    num_chunks = max(1, -(-num_rows // chunk_size))
    alone = of_chunk if shared is None else functools.partial(of_chunk, shared)
    if num_chunks == 1:
        return alone(rows)
    size = -(-num_rows // num_chunks)

    def dealt(leaf):
        padded = jnp.pad(leaf, ((0, num_chunks * size - num_rows), *((0, 0),) * (leaf.ndim - 1)))
        return padded.reshape(size, num_chunks, *leaf.shape[1:])

    grid = jax.tree.map(dealt, rows)

    def of_number(number):
        return alone(jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, number, 1, keepdims=False), grid))

    if derivative:
        chunks = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), grid)
        if shared is None:
            found = lax.map(jax.checkpoint(alone, prevent_cse=False), chunks)
        else:
            again = jax.checkpoint(lambda shared, rows: (shared, of_chunk(shared, rows)), prevent_cse=False)
            found = lax.scan(again, shared, chunks)[1]
    else:
        found = lax.map(of_number, jnp.arange(num_chunks))
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])[:num_rows], found)
