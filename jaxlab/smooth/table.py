"""The smooth functions as rows: soft, hard, and the bound of the error between them. Tests and tables go over it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import jax.scipy.stats
from jaxtyping import Array

from jaxlab.smooth import alignment, extremes, kernel, matrices, order, quantiles, rectifiers, steps, truth

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


def _lower_quartile(x):
    """``numpy.quantile(x, 0.25, method="averaged_inverted_cdf")``, a method that JAX has not."""
    above, ascending = x.shape[-1] // 4, jnp.sort(x, -1)
    # A quarter of the size that is whole falls between two elements.
    below = above if x.shape[-1] % 4 else above - 1
    return 0.5 * ascending[..., below] + 0.5 * ascending[..., above]


@jax.jit
def _trimmed(x):
    size, out = x.shape[-1], x.shape[-1] // 4
    place = jnp.argsort(jnp.argsort(x, -1, descending=True), -1)
    kept = jnp.where((place >= out) & (place < size - out), 1, 0).astype(x.dtype)
    return jnp.sum(kept * x, -1) / max(size - 2 * out, 1)


def _trimmed_bound(x, temperature):
    size = x.shape[-1]
    return temperature * jnp.log(2.0) * size / (size - 2 * (size // 4))


def _zigzag(x):
    """Numbers of the shape of x with another order: 0, 1, 0, -1, ... times 1, 2, 3, ..."""
    index = jnp.arange(x.shape[-1], dtype=x.dtype)
    return jnp.broadcast_to(jnp.round(jnp.sin(index * jnp.pi / 2)) * (index + 1), x.shape)


@jax.jit
def _correlation(x, y):
    x, y = (z - (z.shape[-1] + 1) / 2 for z in (x, y))
    squares = jnp.sum(x**2, -1) * jnp.sum(y**2, -1)
    return jnp.where(squares > 0, jnp.sum(x * y, -1) / jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def _permutation(x):
    return jax.nn.one_hot(jnp.argsort(x, -1), x.shape[-1], dtype=x.dtype)


def _permutation_bound(x, temperature):
    return jnp.minimum(1, (x.shape[-1] - 1) * jnp.exp(-_smallest_gap(x)[..., None] / temperature))


def _distances(x, y):
    return (x[:, None] - y[None, :]) ** 2


def _differ(x):
    """How much two numbers of a sequence and of its mirror image differ as symbols, between 0 and 1."""
    return jnp.minimum(_distances(x, x[::-1]), 1)


def _best_path(gain, gap, *, entered=False):
    """The largest sum along a monotone path, cell by cell: a move to the side costs a gap, or what it enters."""
    rows, columns = gain.shape
    best = {(0, 0): jnp.zeros(())}
    for i in range(rows + 1):
        for j in range(columns + 1):
            options = []
            if i and j:
                options.append(best[i - 1, j - 1] + gain[i - 1, j - 1])
            if i:
                options.append(best[i - 1, j] + (gain[i - 1, j - 1] if entered and j else gap))
            if j:
                options.append(best[i, j - 1] + (gain[i - 1, j - 1] if entered and i else gap))
            if options:
                best[i, j] = jnp.max(jnp.stack(options))
    return best[rows, columns]


def _alignment_bound(x, temperature):
    """The logarithm of the number of alignments, which is below 3 to the sum of the lengths."""
    return temperature * 2 * x.shape[-1] * jnp.log(3.0)


SMOOTH: dict[str, SmoothFunction] = {
    "step": SmoothFunction(steps.step, lambda x: jnp.heaviside(x, jnp.full((), 0.5, x.dtype)), _step_bound),
    "sign": SmoothFunction(steps.sign, jnp.sign, lambda x, t: 2 * _step_bound(x, t)),
    "relu": SmoothFunction(rectifiers.relu, jax.nn.relu, lambda x, t: t * jnp.log(2.0)),
    "square_plus": SmoothFunction(rectifiers.square_plus, jax.nn.relu, lambda x, t: jnp.asarray(t)),
    "gated_relu": SmoothFunction(rectifiers.gated_relu, jax.nn.relu, lambda x, t: jnp.asarray(0.2785 * t)),
    "absolute": SmoothFunction(rectifiers.absolute, jnp.abs, lambda x, t: 2 * t * jnp.log(2.0)),
    "clip": SmoothFunction(
        lambda x, *, temperature: rectifiers.clip(x, -0.5, 1.0, temperature=temperature),
        lambda x: jnp.clip(x, -0.5, 1.0),
        lambda x, t: t * jnp.log(2.0),
    ),
    "round": SmoothFunction(steps.round, jnp.round, _to_integer(_to_half)),
    "floor": SmoothFunction(steps.floor, jnp.floor, _to_integer(_to_whole)),
    "equal": SmoothFunction(
        lambda x, *, temperature: truth.equal(x, jnp.zeros_like(x), temperature=temperature),
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
    "quantile": SmoothFunction(
        lambda x, *, temperature: quantiles.quantile(x, 0.25, temperature=temperature),
        _lower_quartile,
        # Below four elements q n is less than one: the threshold lies beyond the smallest.
        lambda x, t: _log_size(x, t) + (t * jnp.log(3.0) if x.shape[-1] < 4 else 0),
    ),
    "trimmed_mean": SmoothFunction(quantiles.trimmed_mean, _trimmed, _trimmed_bound),
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
        lambda x, t: jnp.asarray(t * (x.shape[-1] - 1) / 2),
    ),
    "spearman": SmoothFunction(
        lambda x, *, temperature: order.spearman(x, _zigzag(x), temperature=temperature),
        lambda x: _correlation(jax.scipy.stats.rankdata(x, axis=-1), jax.scipy.stats.rankdata(_zigzag(x), axis=-1)),
        lambda x, t: jnp.where(t <= _smallest_gap(x), 0.0, 2.0)[..., 0],
    ),
    "soft_sort": SmoothFunction(matrices.soft_sort, _permutation, _permutation_bound),
    "neural_sort": SmoothFunction(matrices.neural_sort, _permutation, _permutation_bound),
    "dtw": SmoothFunction(
        lambda x, *, temperature: alignment.dtw(_distances(x, x[::-1]), temperature=temperature),
        lambda x: -_best_path(-_distances(x, x[::-1]), -jnp.inf, entered=True),
        _alignment_bound,
    ),
    "dtw_divergence": SmoothFunction(
        lambda x, *, temperature: alignment.dtw_divergence(x[:, None], x[::-1, None], temperature=temperature),
        lambda x: -_best_path(-_distances(x, x[::-1]), -jnp.inf, entered=True),
        _alignment_bound,
    ),
    "edit_distance": SmoothFunction(
        lambda x, *, temperature: alignment.edit_distance(_differ(x), temperature=temperature),
        lambda x: -_best_path(-_differ(x), -1.0),
        _alignment_bound,
    ),
    "longest_common_subsequence": SmoothFunction(
        lambda x, *, temperature: alignment.longest_common_subsequence(1 - _differ(x), temperature=temperature),
        lambda x: _best_path(1 - _differ(x), 0.0),
        _alignment_bound,
    ),
}
"""By name. Functions of two arrays stand here as functions of one.

``iterative_top_k`` (which fails, see there) and ``sinkhorn_sort`` (whose error depends on its iterations) have no bound
to state, and the logical functions and ``isotonic`` no temperature.
"""
