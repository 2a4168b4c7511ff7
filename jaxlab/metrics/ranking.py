"""Metrics of the order of one list of scored items: discounted gains, the first hit, what is among the first.

They compare items with each other, so that they are no means over items; the mean over *lists* is one:
:func:`mean_over_lists` makes a :class:`Metric` of each.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from jaxlab import _check, smooth
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab._sorting import argsort
from jaxlab.metrics.areas import again, check_targets
from jaxlab.metrics.decisions import ratio
from jaxlab.metrics.metric import Metric
from jaxlab.smooth.isotonic import means_of_blocks

__all__ = ["mean_over_lists", "ndcg", "precision_at", "recall_at", "reciprocal_rank"]


def mean_over_lists(function: Callable, *, increasing: bool = True) -> Metric:
    """The mean over examples of any function of one example, as a :class:`Metric`.

    Args:
      function: of a prediction and a target, to a number.
      increasing: whether more is better.

    Returns:
      A :class:`Metric`: of lists of items, of pairs of sequences, of vectors.

    Gradient:
      That of the function; unbiased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> mean_auc = mean_over_lists(metrics.roc_auc)
      >>> scores, targets = jnp.array([[0.0, 9.0], [0.0, 9.0]]), jnp.array([[0, 1], [1, 0]])
      >>> f"{float(metrics.evaluate(mean_auc, scores, targets)):.4f}"
      '0.5000'
    """
    named = getattr(function, "func", function)  # of a partial
    statistic = f"mean of {getattr(named, '__qualname__', type(named).__name__)}"

    def stat(prediction, target):
        return function(prediction, target)

    return Metric(stat, lambda mean: mean, increasing, counts=False, statistic=statistic)


def _check_gains(scores, gains, *, where=None, **_):
    _check.values_within("ndcg", "gains", gains, 0, math.inf, where)


@jit(static=("num_top",), hard_at_zero=("temperature",), check=_check_gains)
def ndcg(
    scores: Float[Array, "n"],
    gains: Num[Array, "n"],
    *,
    num_top: int | None = None,
    temperature: ScalarLike = 1.0,
    where: Bool[Array, "n"] | None = None,
) -> Float[Array, ""]:
    r"""The normalised discounted cumulative gain of an order by scores.

    .. math:: \frac{1}{\mathrm{ideal}} \sum_i \frac{g_i\, m_i}{\log_2 (1 + r_i)}

    with :math:`r_i` the rank from the top, by pairs, and m the smooth mask of the ``num_top`` highest.

    Args:
      scores: of the items.
      gains: at least 0 (for graded relevance often :math:`2^{\mathrm{grade}} - 1`).
      num_top: how many of the highest count; all if absent.
      temperature: :math:`\lambda`, in the unit of the scores; the number 0 gives ``sklearn.metrics.ndcg_score``, where
        tied items share the mean of their discounts.
      where: valid items.

    Returns:
      A number in [0, 1], in float32 at least; 0 if no item gains.

    Gradient:
      That of the smooth function for the scores (zero at temperature 0), and for the gains.

    Raises:
      ValueError: if there are no scores, the shapes differ, ``num_top`` is below 1, ``temperature`` negative, or a gain
        that is not traced negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(ndcg(jnp.array([3.0, 2.0, 1.0]), jnp.array([2.0, 1.0, 0.0]), temperature=0.0))
      1.0

    Reference:
      Qin, Liu, Li, "A General Approximation Framework for Direct Optimization of Information Retrieval Measures", 2010.
    """
    _check.same_shape("ndcg", scores=scores, gains=gains)
    _check.axis_of("ndcg", "scores", scores, 0)
    size = scores.shape[0]
    num_top = size if num_top is None else num_top
    _check.at_least("ndcg", "num_top", num_top, 1)
    num_top = min(num_top, size)
    scores = widen(scores)
    valid = jnp.ones(size, bool) if where is None else where
    gains = jnp.where(valid, gains.astype(scores.dtype), 0)
    places = jnp.arange(1, size + 1, dtype=scores.dtype)
    discounts = jnp.where(places <= num_top, 1 / jnp.log2(1 + places), 0)
    ideal = jnp.sum(jnp.sort(gains, descending=True) * discounts)
    if _check.is_zero(temperature):
        order = argsort(jnp.where(valid, -scores, jnp.inf))
        ordered, ordered_valid = scores[order], valid[order]
        fresh = (ordered[1:] != ordered[:-1]) | (ordered_valid[1:] != ordered_valid[:-1])
        block = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(fresh, dtype=jnp.int32)])
        gained = jnp.sum(gains[order] * means_of_blocks(discounts, block))
    else:
        ranks = smooth.pairwise_rank(-scores, temperature=temperature, where=valid)
        mask = jnp.ones_like(scores)
        if num_top < size:
            mask = smooth.top_k_mask(scores, num_top, temperature=temperature, where=valid)
        gained = jnp.sum(gains * mask / jnp.log2(1 + jnp.where(valid, ranks, 1)))
    return ratio(gained, ideal, 0.0)


@jit(hard_at_zero=("temperature",), check=check_targets("reciprocal_rank"))
def reciprocal_rank(
    scores: Float[Array, "n"],
    targets: Num[Array, "n"] | Bool[Array, "n"],
    *,
    temperature: ScalarLike = 1.0,
    where: Bool[Array, "n"] | None = None,
) -> Float[Array, ""]:
    r"""One over the rank of the first relevant item.

    .. math:: 1 \Big/ \Big(1 + \sum_{j \in -} \sigma\big((s_j - \max\nolimits_\lambda s_+) / \lambda\big)\Big)

    Args:
      scores: of the items.
      targets: 1 for relevant items, 0 for others.
      temperature: :math:`\lambda`, in the unit of the scores; the number 0 counts hard, and of ties one half.
      where: valid items.

    Returns:
      A number in [0, 1], in float32 at least; 0 if nothing is relevant.

    Gradient:
      That of the smooth function; zero at temperature 0.

    Raises:
      ValueError: if there are no scores, the shapes differ, ``temperature`` is negative, or a target that is not traced
        is outside 0 ... 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(reciprocal_rank(jnp.array([3.0, 2.0, 1.0]), jnp.array([0, 1, 1]), temperature=0.0))
      0.5

    Reference:
      Voorhees, "The TREC-8 Question Answering Track Report", 1999 (the metric).
    """
    _check.same_shape("reciprocal_rank", scores=scores, targets=targets)
    _check.axis_of("reciprocal_rank", "scores", scores, 0)
    scores = widen(scores)
    valid = jnp.ones(scores.shape, bool) if where is None else where
    relevant = valid & (targets.astype(scores.dtype) > 0)
    some = relevant.any()
    first = smooth.maximum(scores, temperature=again(temperature), where=relevant)
    first = jnp.where(some, first, 0)
    before = smooth.step(jnp.where(valid, scores, 0) - first, temperature=again(temperature))
    rank = 1 + jnp.sum(before, where=valid & ~relevant)
    return jnp.where(some, 1 / rank, 0)


def _found(name, scores, targets, num_top, temperature, where):
    _check.same_shape(name, scores=scores, targets=targets)
    _check.axis_of(name, "scores", scores, 0)
    _check.at_least(name, "num_top", num_top, 1)
    _check.within(name, "num_top", num_top, 1, scores.shape[0])
    scores = widen(scores)
    valid = jnp.ones(scores.shape, bool) if where is None else where
    relevant = jnp.where(valid, targets.astype(scores.dtype), 0)
    return jnp.sum(relevant * smooth.top_k_mask(scores, num_top, temperature=again(temperature), where=valid)), relevant


@jit(static=("num_top",), hard_at_zero=("temperature",), check=check_targets("precision_at"))
def precision_at(
    scores: Float[Array, "n"],
    targets: Num[Array, "n"] | Bool[Array, "n"],
    *,
    num_top: int,
    temperature: ScalarLike = 1.0,
    where: Bool[Array, "n"] | None = None,
) -> Float[Array, ""]:
    r"""The share of the k items with the highest scores that is relevant.

    .. math:: \frac{1}{k} \sum_i m^k_\lambda(s)_i\, y_i

    Args:
      scores: of the items.
      targets: 1 for relevant items, 0 for others.
      num_top: k, in 1 ... n.
      temperature: :math:`\lambda`, in the unit of the scores; the number 0 counts hard, of ties the first.
      where: valid items.

    Returns:
      A number in [0, 1], in float32 at least.

    Gradient:
      That of the smooth mask; zero at temperature 0.

    Raises:
      ValueError: if the shapes differ, ``num_top`` is outside 1 ... n, ``temperature`` negative, or a target that is
        not traced outside 0 ... 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(precision_at(jnp.array([3.0, 2.0, 1.0]), jnp.array([1, 0, 1]), num_top=2, temperature=0.0))
      0.5
    """
    found, _ = _found("precision_at", scores, targets, num_top, temperature, where)
    return found / num_top


@jit(static=("num_top",), hard_at_zero=("temperature",), check=check_targets("recall_at"))
def recall_at(
    scores: Float[Array, "n"],
    targets: Num[Array, "n"] | Bool[Array, "n"],
    *,
    num_top: int,
    temperature: ScalarLike = 1.0,
    where: Bool[Array, "n"] | None = None,
) -> Float[Array, ""]:
    r"""The share of the relevant items that is among the k with the highest scores.

    .. math:: \sum_i m^k_\lambda(s)_i\, y_i \Big/ \sum_i y_i

    Args:
      scores: of the items.
      targets: 1 for relevant items, 0 for others.
      num_top: k, in 1 ... n.
      temperature: :math:`\lambda`, in the unit of the scores; the number 0 counts hard, of ties the first.
      where: valid items.

    Returns:
      A number in [0, 1], in float32 at least; 0 if nothing is relevant.

    Gradient:
      That of the smooth mask; zero at temperature 0.

    Raises:
      ValueError: if the shapes differ, ``num_top`` is outside 1 ... n, ``temperature`` negative, or a target that is
        not traced outside 0 ... 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(recall_at(jnp.array([3.0, 2.0, 1.0]), jnp.array([1, 0, 1]), num_top=1, temperature=0.0))
      0.5
    """
    found, relevant = _found("recall_at", scores, targets, num_top, temperature, where)
    return ratio(found, jnp.sum(relevant), 0.0)
