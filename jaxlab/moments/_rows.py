"""A function of each sample and all the others, some samples at a time: no matrix of all pairs."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

# So many samples are taken with all others at a time; of fewer there is no loop.
ROWS = 256


def by_rows(of_row: Callable, items: Any) -> Any:
    """``of_row`` of each item (along the leading axis), with memory for ROWS of them, in the gradient too."""
    if jax.tree.leaves(items)[0].shape[0] <= ROWS:
        return jax.vmap(of_row)(items)
    return lax.map(jax.checkpoint(of_row), items, batch_size=ROWS)
