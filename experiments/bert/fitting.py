"""What fine-tuning shares: what settings may be, the rate by step, the mean of weights, and the best of these."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def check_settings(config: Any, *, counts: Sequence[str], positive: Sequence[str], shares: Sequence[str]) -> None:
    """Refuses settings out of their ranges.

    Args:
      config: the settings.
      counts: which must be at least 1.
      positive: which must be above 0.
      shares: which must be in [0, 1).

    Raises:
      ValueError: if one is not.
    """
    for names, allowed, is_right in (
        (counts, "at least 1", lambda value: value >= 1),
        (positive, "above 0", lambda value: value > 0),
        (shares, "in [0, 1)", lambda value: 0 <= value < 1),
    ):
        for name in names:
            if not is_right(getattr(config, name)):
                raise ValueError(f"Config: {name} must be {allowed}; got {getattr(config, name)}")


def triangle(count: jax.Array, rising: int, total: int) -> jax.Array:
    """Rises in a line to 1 during ``rising`` steps, and falls in a line to 0 at ``total``."""
    step = count.astype(jnp.float32)
    return jnp.minimum((step + 1) / rising, (total - step) / max(1, total - rising))


def averaged(average: Any, parameters: Any, count: jax.Array, decay: float) -> Any:
    """The mean of weights after one more step; shorter in the first steps, of which there were ``count``."""
    steps = count.astype(jnp.float32)
    decay_now = jnp.minimum(decay, (1 + steps) / (10 + steps))
    return jax.tree.map(lambda mean, new: new + decay_now * (mean - new), average, parameters)


def after_epoch(state: Any, epoch: int, score: float) -> Any:
    """Keeps the ``average`` of a state as its ``best`` if it is better than all before."""
    if score <= float(state.best_score):
        return state
    best = jax.tree.map(jnp.copy, state.average)
    changed = jnp.full_like(state.best_score, score), jnp.full_like(state.best_epoch, epoch)
    return state._replace(best=best, best_score=changed[0], best_epoch=changed[1])
