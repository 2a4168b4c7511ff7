r"""A metric is a function of a mean: the mean over examples of a statistic, and what is made of it at the end.

.. math:: M = g\Big(\frac{\sum_i w_i\, s(\hat y_i, y_i)}{\sum_i w_i}\Big)

Relaxing s makes it differentiable. Adding sums makes it exact over batches and devices. And because g is curved, its
value and gradient on a minibatch are biased; for that see :func:`linearize` and :func:`jackknife_metric`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from jaxlab._precision import widen

__all__ = [
    "Metric",
    "State",
    "Sum",
    "evaluate",
    "merge_states",
    "state_of",
    "value_of",
]


@dataclass(frozen=True)
class Metric:
    """A metric: ``stat(prediction, target)`` of one example, a pytree of float32, and ``final`` of its mean.

    ``increasing`` says whether more is better; ``counts`` whether the statistics are at most about 1 for each example,
    so that their sums are held exactly (in whole numbers and a rest) up to 2 ** 31. ``statistic`` names what is summed:
    metrics of one statistic (precision and recall) read the same states, and others are refused. ``check(function,
    predictions, targets, weights)`` refuses a bad batch that is not traced.
    """

    stat: Callable[[Any, Any], Any]
    final: Callable[[Any], Array]
    increasing: bool = True
    counts: bool = True
    statistic: str = ""
    check: Callable[[str, Any, Any, Any], None] | None = None

    def __post_init__(self) -> None:
        if not self.statistic:
            object.__setattr__(self, "statistic", getattr(self.stat, "__qualname__", type(self.stat).__name__))


class Sum(NamedTuple):
    """A sum as a whole number and a rest: two of them add exactly where float32 would stop at 2 ** 24."""

    whole: Int[Array, "*shape"]
    rest: Float[Array, "*shape"]


class Outer(NamedTuple):
    """A statistic that is the matrix of all products of two vectors, which is made of no example by itself.

    Its sum over examples is one product of matrices, and memory that of the vectors and of the sum.
    """

    left: Float[Array, "*b k"]
    right: Float[Array, "*b h"]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("weight", "sums"), meta_fields=("statistic", "counts")
)
@dataclass(frozen=True)
class State:
    """The state of a metric, a pytree: the summed weight of examples, their summed statistics, and of which statistic.

    Where these are counts, a sum is a whole number and a rest below 1, soft counts too; others have no whole part. Of
    two statistics the structures differ, so that ``jax.tree.map(jnp.add, ...)`` refuses them too.
    """

    weight: Sum
    sums: PyTree
    statistic: str
    counts: bool = True


def check_statistic(function: str, state: State, wanted: str) -> None:
    """Raises unless a state is of the statistic that is wanted."""
    if state.statistic != wanted:
        raise ValueError(f"{function}: state must be of the statistic {wanted!r}; got that of {state.statistic!r}")


def _split(total: Array, counts: bool) -> Sum:
    if not counts:
        return Sum(jnp.zeros(total.shape, jnp.int32), total)
    whole = lax.stop_gradient(jnp.floor(total))
    return Sum(whole.astype(jnp.int32), total - whole)


def _join(sum: Sum) -> Array:
    return sum.whole.astype(sum.rest.dtype) + sum.rest


def _is_sum(node: Any) -> bool:
    return isinstance(node, Sum)


def _is_outer(node: Any) -> bool:
    return isinstance(node, Outer)


def dense(stats: Any) -> Any:
    """Statistics, of one example or of many, with each :class:`Outer` as the matrices it stands for."""

    def whole(leaf: Any) -> Array:
        return leaf.left[..., :, None] * leaf.right[..., None, :] if _is_outer(leaf) else leaf

    return jax.tree.map(whole, stats, is_leaf=_is_outer)


def total_of(stats: Any, weights: Array) -> Any:
    """The weighted sums of the statistics of all examples."""

    def of(leaf: Any) -> Array:
        if _is_outer(leaf):
            return jnp.einsum("b,bi,bj->ij", weights, leaf.left, leaf.right, precision="highest")
        return jnp.tensordot(weights, leaf, 1, precision="highest")

    return jax.tree.map(of, stats, is_leaf=_is_outer)


def statistics_of(function: str, metric: Metric, predictions: Any, targets: Any, weights: Array | None):
    """The statistics of all examples, and their weights."""
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves((predictions, targets, weights))}
    if len(sizes) != 1:
        raise ValueError(
            f"{function}: predictions, targets and weights must have the same number of examples; got {sorted(sizes)}"
        )
    if metric.check is not None:
        metric.check(function, predictions, targets, weights)
    stats = jax.tree.map(widen, jax.vmap(metric.stat)(predictions, targets))
    dtype = jax.tree.leaves(stats)[0].dtype
    return stats, jnp.ones(sizes.pop(), dtype) if weights is None else weights.astype(dtype)


def mean_of(stats: Any, weights: Array) -> Any:
    total = weights.sum()
    return total_of(stats, weights / jnp.where(total == 0, 1, total))


def state_of(metric: Metric, predictions: Any, targets: Any, *, weights: Float[Array, "b"] | None = None) -> State:
    r"""The state of a metric over a batch: the sum of the weights, and the weighted sums of its statistics.

    States add: :func:`merge_states`, or ``jax.lax.psum`` over devices, or ``jax.tree.map(jnp.add, ...)``.

    Args:
      metric: the metric.
      predictions: one for each example, along the first axis of each leaf.
      targets: alike.
      weights: of the examples; 1 if absent, 0 leaves an example out.

    Returns:
      A :class:`State`; each number in it is a :class:`Sum`.

    Gradient:
      That of the statistics.

    Raises:
      ValueError: if the numbers of examples differ, or a target that is not traced is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> accuracy = metrics.accuracy(metrics.binary(temperature=0.0))
      >>> state = state_of(accuracy, jnp.array([2.0, -1.0, 3.0]), jnp.array([1, 0, 0]))
      >>> int(state.weight.whole), int(state.sums.whole)
      (3, 2)
    """
    stats, weights = statistics_of("state_of", metric, predictions, targets, weights)
    sums = jax.tree.map(lambda leaf: _split(leaf, metric.counts), total_of(stats, weights))
    return State(_split(weights.sum(), True), sums, metric.statistic, metric.counts)


def merge_states(state: State, other: State) -> State:
    """The state of the union of two sets of examples: the sum, exact in counts.

    Args:
      state: of some examples.
      other: of others, of the same metric or of one with the same statistic.

    Returns:
      The state of all of them.

    Gradient:
      Exact.

    Raises:
      ValueError: if they are states of different statistics, or of different numbers of classes.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> accuracy = metrics.accuracy(metrics.binary(temperature=0.0))
      >>> right = state_of(accuracy, jnp.array([2.0]), jnp.array([1]))
      >>> wrong = state_of(accuracy, jnp.array([2.0]), jnp.array([0]))
      >>> float(value_of(accuracy, merge_states(right, wrong)))
      0.5
    """
    check_statistic("merge_states", other, state.statistic)
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (state, other)]
    if jax.tree.structure(state) != jax.tree.structure(other) or shapes[0] != shapes[1]:
        raise ValueError(
            f"merge_states: states of {state.statistic!r} must have the same shapes; got {shapes[0]} and {shapes[1]}"
        )

    def add(counts: bool, one: Sum, more: Sum) -> Sum:
        carried = _split(one.rest + more.rest, counts)
        return Sum(one.whole + more.whole + carried.whole, carried.rest)

    return State(
        add(True, state.weight, other.weight),
        jax.tree.map(functools.partial(add, state.counts), state.sums, other.sums, is_leaf=_is_sum),
        state.statistic,
        state.counts,
    )


def means_of(function: str, metric: Metric, state: State) -> Any:
    check_statistic(function, state, metric.statistic)
    total = _join(state.weight)
    total = jnp.where(total == 0, 1, total)
    return jax.tree.map(lambda sum: _join(sum) / total.astype(sum.rest.dtype), state.sums, is_leaf=_is_sum)


def value_of(metric: Metric, state: State) -> Array:
    """The value of a metric, of its state.

    Args:
      metric: the metric.
      state: sums over all examples.

    Returns:
      The value; that of statistics of 0 (as a rule the metric's ``zero_division``) for no examples.

    Gradient:
      Exact.

    Raises:
      ValueError: if the state is of another statistic.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> accuracy = metrics.accuracy(metrics.binary(temperature=0.0))
      >>> state = state_of(accuracy, jnp.array([2.0, -1.0, 3.0, 1.0]), jnp.array([1, 0, 0, 1]))
      >>> float(value_of(accuracy, state))
      0.75
    """
    return metric.final(means_of("value_of", metric, state))


def evaluate(metric: Metric, predictions: Any, targets: Any, *, weights: Float[Array, "b"] | None = None) -> Array:
    """The value of a metric on a batch.

    Args:
      metric: the metric.
      predictions: one for each example, along the first axis of each leaf.
      targets: alike.
      weights: of the examples; 1 if absent.

    Returns:
      The value.

    Gradient:
      That of the smooth statistics through the curved end: biased as an estimate of the gradient for all the data.

    Raises:
      ValueError: if the numbers of examples differ, or a target that is not traced is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> f1 = metrics.f_beta(metrics.binary(temperature=0.0))
      >>> f"{float(evaluate(f1, jnp.array([2.0, -1.0, 3.0, 1.0]), jnp.array([1, 0, 0, 1]))):.4f}"
      '0.8000'
    """
    return value_of(metric, state_of(metric, predictions, targets, weights=weights))
