"""The smooth functions as rows: soft, hard, and the bound of the error between them. Tests and tables go over it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import jax.scipy.stats
from jaxtyping import Array

from jaxlab.smooth import alignment, elementwise, extremes, kernel, order, quantiles

__all__ = ["SMOOTH", "SmoothFunction"]


@dataclass(frozen=True)
class SmoothFunction:
    """A smooth function of one array along its last axis, the hard function it tends to, and what the error is at most.

    ``soft(x, temperature=...)``; ``hard(x)`` is written with JAX's own functions; ``bound(x, temperature)`` bounds
    ``|soft - hard|``, each entry of it.
    """

    soft: Callable[..., Array]
    hard: Callable[[Array], Array]
    bound: Callable[[Array, float], Array]


def _gap(x):
    """The gap between the two largest."""
    descending = jnp.sort(x, -1, descending=True)
    return descending[..., :1] - descending[..., 1:2] if x.shape[-1] > 1 else jnp.full(x.shape, jnp.inf)


def _log_size(x, temperature):
    return temperature * jnp.log(jnp.asarray(x.shape[-1], x.dtype))


def _smallest_gap(x):
    ascending = jnp.sort(x, -1)
    return jnp.min(ascending[..., 1:] - ascending[..., :-1], -1, keepdims=True, initial=jnp.inf)


def _largest_gap(x):
    ascending = jnp.sort(x, -1)
    return jnp.max(ascending[..., 1:] - ascending[..., :-1], -1, keepdims=True, initial=0)


def _one_hot(x):
    return jax.nn.one_hot(jnp.argmax(x, -1), x.shape[-1], dtype=x.dtype)


def _simplex_bound(x, temperature):
    return jnp.minimum(1, (x.shape[-1] - 1) * jnp.exp(-_gap(x) / temperature))


def _sparse_bound(x, temperature):
    return jnp.where(_gap(x) >= temperature, 0.0, 1.0)


def _step_bound(x, temperature):
    return jax.nn.sigmoid(-jnp.abs(x) / temperature)


def _to_integer(distance):
    return lambda x, temperature: jnp.arctan(temperature / jnp.maximum(distance(x), 1e-30)) / jnp.pi


def _to_half(x):
    return jnp.abs(x - jnp.floor(x) - 0.5)


def _to_whole(x):
    return jnp.abs(x - jnp.round(x))


def _first_two(x):
    """The mask of the two largest (of one, where there is no second), the first of ties first."""
    return jnp.sum(jax.nn.one_hot(jax.lax.top_k(x, min(2, x.shape[-1]))[1], x.shape[-1], dtype=x.dtype), -2)


def _top_bound(x, temperature):
    """For the two largest."""
    if x.shape[-1] <= 2:
        return jnp.zeros(())
    descending = jnp.sort(x, -1, descending=True)
    gap = descending[..., 1:2] - descending[..., 2:3]
    return jnp.minimum(1, x.shape[-1] * jnp.exp(-gap / (2 * temperature)))


def _two(function):
    return lambda x, *, temperature: function(x, k=min(2, x.shape[-1]), temperature=temperature)


SMOOTH: dict[str, SmoothFunction] = {
    "step": SmoothFunction(elementwise.step, lambda x: jnp.heaviside(x, jnp.full((), 0.5, x.dtype)), _step_bound),
    "sign": SmoothFunction(elementwise.sign, jnp.sign, lambda x, t: 2 * _step_bound(x, t)),
    "relu": SmoothFunction(elementwise.relu, jax.nn.relu, lambda x, t: t * jnp.log(2.0)),
    "square_plus": SmoothFunction(elementwise.square_plus, jax.nn.relu, lambda x, t: jnp.asarray(t)),
    "gated_relu": SmoothFunction(elementwise.gated_relu, jax.nn.relu, lambda x, t: jnp.asarray(0.2785 * t)),
    "absolute": SmoothFunction(elementwise.absolute, jnp.abs, lambda x, t: 2 * t * jnp.log(2.0)),
    "clip": SmoothFunction(
        lambda x, *, temperature: elementwise.clip(x, -0.5, 1.0, temperature=temperature),
        lambda x: jnp.clip(x, -0.5, 1.0),
        lambda x, t: t * jnp.log(2.0),
    ),
    "round": SmoothFunction(elementwise.round, jnp.round, _to_integer(_to_half)),
    "floor": SmoothFunction(elementwise.floor, jnp.floor, _to_integer(_to_whole)),
    "equal": SmoothFunction(
        lambda x, *, temperature: elementwise.equal(x, jnp.zeros_like(x), temperature=temperature),
        lambda x: (x == 0).astype(x.dtype),
        lambda x, t: jnp.where(x == 0, 0, jnp.exp(-((x / t) ** 2) / 2)),
    ),
    "maximum": SmoothFunction(extremes.maximum, partial(jnp.max, axis=-1), _log_size),
    "minimum": SmoothFunction(extremes.minimum, partial(jnp.min, axis=-1), _log_size),
    "mellowmax": SmoothFunction(extremes.mellowmax, partial(jnp.max, axis=-1), _log_size),
    "boltzmann": SmoothFunction(extremes.boltzmann, partial(jnp.max, axis=-1), _log_size),
    "one_hot_argmax": SmoothFunction(extremes.one_hot_argmax, _one_hot, _simplex_bound),
    "argmax": SmoothFunction(
        extremes.argmax,
        lambda x: jnp.argmax(x, -1).astype(jnp.float32),
        lambda x, t: (x.shape[-1] - 1) * _simplex_bound(x, t)[..., 0],
    ),
    "sparsemax": SmoothFunction(extremes.sparsemax, _one_hot, _sparse_bound),
    "entmax": SmoothFunction(extremes.entmax, _one_hot, lambda x, t: jnp.where(_gap(x) >= 2 * t, 0.0, 1.0)),
    "top_k_mask": SmoothFunction(_two(quantiles.top_k_mask), _first_two, _top_bound),
    "grad_top_k": SmoothFunction(
        _two(quantiles.grad_top_k), _first_two, lambda x, t: jnp.minimum(1, _top_bound(x, t / 2) * x.shape[-1])
    ),
    "median": SmoothFunction(quantiles.median, partial(jnp.median, axis=-1), _log_size),
    "threshold": SmoothFunction(
        lambda x, *, temperature: kernel.threshold(x, x.shape[-1] / 2, temperature=temperature),
        partial(jnp.median, axis=-1),
        _log_size,
    ),
    "rank": SmoothFunction(
        order.rank,
        lambda x: jax.scipy.stats.rankdata(x, axis=-1),
        lambda x, t: jnp.where(t <= _smallest_gap(x), 0.0, x.shape[-1] - 1),
    ),
    "pairwise_rank": SmoothFunction(
        order.pairwise_rank,
        lambda x: jax.scipy.stats.rankdata(x, axis=-1),
        lambda x, t: (x.shape[-1] - 1) * jax.nn.sigmoid(-_smallest_gap(x) / t),
    ),
    "sort": SmoothFunction(
        order.sort,
        partial(jnp.sort, axis=-1),
        lambda x, t: jnp.where(t * _largest_gap(x) <= 1, 0.0, jnp.ptp(x, -1, keepdims=True)),
    ),
    "dtw": SmoothFunction(
        lambda x, *, temperature: alignment.dtw((x[:, None] - x[None, ::-1]) ** 2, temperature=temperature),
        lambda x: alignment.dtw((x[:, None] - x[None, ::-1]) ** 2, temperature=0.0),
        lambda x, t: t * 2 * x.shape[-1] * jnp.log(3.0),
    ),
}
"""By name. Functions of two arrays stand here as functions of one."""
