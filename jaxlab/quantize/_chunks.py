"""Some vectors at a time, where what is made of all of them at once would not fit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray


def key_of_each(key: PRNGKeyArray, numbers: Int[Array, "n"]) -> Array:
    """A key for each row by its number: what a row draws does not depend on which rows are drawn for with it."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def by_chunks(of_chunk: Callable, rows: Any, chunk_size: int) -> Any:
    """``of_chunk(rows)``, a function of each row, some rows at a time; its derivative makes each chunk again.

    A chunk has rows from all over, at equal distances: where they are spread over devices without a ``shard_map``, each
    device has its part of every chunk, and none is sent the rows of the others.
    """
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    num_chunks = max(1, -(-num_rows // chunk_size))
    if num_chunks == 1:
        return of_chunk(rows)
    size = -(-num_rows // num_chunks)

    def cut(leaf):
        padded = jnp.pad(leaf, ((0, num_chunks * size - num_rows), *((0, 0),) * (leaf.ndim - 1)))
        return padded.reshape(size, num_chunks, *leaf.shape[1:]).swapaxes(0, 1)

    found = lax.map(jax.checkpoint(of_chunk, prevent_cse=False), jax.tree.map(cut, rows))
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:])[:num_rows], found)
