"""Metrics of one list of scored items: areas under curves, discounted gains, the first hit.

They compare items with each other, so that they are no means over items; the mean over *lists* is one:
:func:`mean_over_lists` makes a :class:`Metric` of each.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from jaxlab import _check, smooth
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.metrics.decisions import ratio
from jaxlab.metrics.metric import Metric
from jaxlab.smooth.isotonic import means_of_blocks

__all__ = [
    "average_precision",
    "mean_over_lists",
    "ndcg",
    "partial_auc",
    "precision_at",
    "recall_at",
    "reciprocal_rank",
    "roc_auc",
]


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
    return Metric(lambda prediction, target: function(prediction, target), lambda mean: mean, increasing, counts=False)


def _weighted(name, scores, targets, weights):
    """Scores, and the weights of the relevant and of the other items."""
    _check.same_shape(name, scores=scores, targets=targets)
    _check.axis_of(name, "scores", scores, -1)
    scores = widen(scores)
    relevant = targets.astype(scores.dtype)
    if weights is None:
        share = jnp.ones_like(scores)
    else:
        _check.same_shape(name, scores=scores, weights=weights)
        share = weights.astype(scores.dtype)
        # What has no weight may have any score, also one that is not finite.
        scores = jnp.where(share > 0, scores, 0)
    return scores, relevant * share, (1 - relevant) * share


def _in_chunks(of_item, items, chunk_size):
    """The sum of a function over items, with memory for one chunk of them, in the gradient too."""
    sums = lax.map(jax.checkpoint(of_item), items, batch_size=chunk_size)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, 0), sums)


@jit(static=("chunk_size",), hard_at_zero=("temperature",))
def roc_auc(
    scores: Float[Array, "n"],
    targets: Num[Array, "n"] | Bool[Array, "n"],
    *,
    weights: Float[Array, "n"] | None = None,
    temperature: ScalarLike = 1.0,
    chunk_size: int = 128,
) -> Float[Array, ""]:
    r"""The area under the ROC curve: the chance that a positive has a higher score than a negative.

    .. math:: \frac{\sum_{i \in +} \sum_{j \in -} w_i w_j\, \sigma\big((s_i - s_j) / \lambda\big)}
              {\sum_{i \in +} w_i \sum_{j \in -} w_j}

    A U-statistic of two samples: unbiased over batches with the same number of each. Ties count one half.

    Args:
      scores: of the items.
      targets: 1 for positives, 0 for negatives.
      weights: of the items; 0 leaves one out.
      temperature: :math:`\lambda`, in the unit of the scores; the number 0 gives ``sklearn.metrics.roc_auc_score``.
      chunk_size: items that are compared with all others at a time: memory is this times n.

    Returns:
      A number in [0, 1], in float32 at least; 1/2 if there are no positives or no negatives.

    Gradient:
      That of the smooth function, for scores and weights; zero for the scores at temperature 0.

    Raises:
      ValueError: if the shapes differ, ``temperature`` is negative or ``chunk_size`` below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(roc_auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1]), temperature=0.0))
      0.75

    Reference:
      Yan et al., "Optimizing Classifier Performance via an Approximation to the Wilcoxon-Mann-Whitney Statistic", 2003.
    """
    _check.at_least("roc_auc", "chunk_size", chunk_size, 1)
    scores, positive, negative = _weighted("roc_auc", scores, targets, weights)

    def of_item(item):
        score, weight = item
        return weight * jnp.sum(negative * smooth.step(score - scores, temperature=_again(temperature)))

    total = _in_chunks(of_item, (scores, positive), chunk_size)
    return ratio(total, positive.sum() * negative.sum(), 0.5)


def _again(temperature):
    """The temperature, which is the Python number 0 or an array, to be passed on."""
    return 0.0 if _check.is_zero(temperature) else temperature


@jit(hard_at_zero=("temperature",), check=lambda *_, max_rate=0.1, **__: _check_rate(max_rate))
def partial_auc(
    scores: Float[Array, "n"],
    targets: Num[Array, "n"] | Bool[Array, "n"],
    *,
    max_rate: ScalarLike = 0.1,
    temperature: ScalarLike = 1.0,
) -> Float[Array, ""]:
    r"""The area under the part of the ROC curve with few false positives, scaled so that chance is 1/2.

    .. math:: \frac{1}{2} \Big(1 + \frac{A - r^2 / 2}{r - r^2 / 2}\Big), \qquad
              A = \frac{1}{n_+ n_-} \sum_{j \in -} m_j \sum_{i \in +} \sigma\big((s_i - s_j) / \lambda\big)

    with m the smooth mask of the :math:`r\, n_-` highest negatives.

    Args:
      scores: of the items.
      targets: 1 for positives, 0 for negatives.
      max_rate: r, the largest rate of false positives, in (0, 1].
      temperature: :math:`\lambda`, in the unit of the scores; the number 0 gives
        ``sklearn.metrics.roc_auc_score(max_fpr=r)``.

    Returns:
      A number of at most 1, in float32 at least; 1/2 if there are no positives or no negatives.

    Gradient:
      That of the smooth function; zero for the scores at temperature 0. None for ``max_rate``.

    Raises:
      ValueError: if the shapes differ, ``max_rate`` is outside (0, 1] or ``temperature`` negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> scores, targets = jnp.array([0.9, 0.8, 0.7, 0.1]), jnp.array([1, 0, 1, 0])
      >>> float(partial_auc(scores, targets, max_rate=1.0, temperature=0.0))
      0.75

    Reference:
      McClish, "Analyzing a Portion of the ROC Curve", 1989 (the scale).
    """
    scores, positive, negative = _weighted("partial_auc", scores, targets, None)
    rate = lax.stop_gradient(jnp.asarray(max_rate, scores.dtype))
    kept = rate * negative.sum()
    difference = scores[:, None] - scores[None, :]  # of i and j
    if _check.is_zero(temperature):
        above, tied = (difference > 0).astype(scores.dtype), (difference == 0).astype(scores.dtype)
        mask = jnp.clip((kept - negative @ above) / jnp.maximum(negative @ tied, 1), 0, 1)
        # Along a group of ties the curve is a straight line, of which the share that is kept counts.
        area = jnp.sum(negative * mask * (positive @ above + positive @ tied * mask / 2))
    else:
        mask = smooth.top_k_mask(scores, kept, temperature=temperature, where=negative > 0)
        area = jnp.sum(mask * (positive @ smooth.step(difference, temperature=temperature)))
    area = ratio(area, positive.sum() * negative.sum(), 0.0)
    some = (positive.sum() > 0) & (negative.sum() > 0)
    return jnp.where(some, (1 + (area - rate**2 / 2) / (rate - rate**2 / 2)) / 2, 0.5)


def _check_rate(max_rate):
    _check.positive("partial_auc", "max_rate", max_rate)
    _check.within("partial_auc", "max_rate", max_rate, 0, 1)


@jit(static=("chunk_size",), hard_at_zero=("temperature",))
def average_precision(
    scores: Float[Array, "n"],
    targets: Num[Array, "n"] | Bool[Array, "n"],
    *,
    weights: Float[Array, "n"] | None = None,
    temperature: ScalarLike = 1.0,
    chunk_size: int = 128,
) -> Float[Array, ""]:
    r"""The average precision, the area under the steps of the precision-recall curve.

    .. math:: \frac{1}{\sum_{i \in +} w_i} \sum_{i \in +} w_i
              \frac{w_i + \sum_{j \in +,\, j \ne i} w_j\, \sigma((s_j - s_i) / \lambda)}
              {w_i + \sum_{j \ne i} w_j\, \sigma((s_j - s_i) / \lambda)}

    Args:
      scores: of the items.
      targets: 1 for positives, 0 for negatives.
      weights: of the items; 0 leaves one out.
      temperature: :math:`\lambda`, in the unit of the scores; the number 0 gives
        ``sklearn.metrics.average_precision_score``, where a tie counts as above (in the limit it counts one half).
      chunk_size: items that are compared with all others at a time: memory is this times n.

    Returns:
      A number in [0, 1], in float32 at least; 0 if there are no positives.

    Gradient:
      That of the smooth function, for scores and weights; zero for the scores at temperature 0.

    Raises:
      ValueError: if the shapes differ, ``temperature`` is negative or ``chunk_size`` below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> value = average_precision(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1]), temperature=0.0)
      >>> f"{float(value):.4f}"
      '0.8333'

    Reference:
      Brown et al., "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval", 2020, eq. (3).
      https://arxiv.org/abs/2007.12163
    """
    _check.at_least("average_precision", "chunk_size", chunk_size, 1)
    scores, positive, negative = _weighted("average_precision", scores, targets, weights)
    index = jnp.arange(scores.shape[0])

    def of_item(item):
        score, weight, place = item
        if _check.is_zero(temperature):
            above = (scores >= score).astype(scores.dtype)
        else:
            above = jnp.where(index == place, 1, smooth.step(scores - score, temperature=temperature))
        found = jnp.sum(positive * above)
        return weight * ratio(found, found + jnp.sum(negative * above), 0.0)

    total = _in_chunks(of_item, (scores, positive, index), chunk_size)
    return ratio(total, positive.sum(), 0.0)


@jit(static=("num_top",), hard_at_zero=("temperature",))
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
      ValueError: if the shapes differ, ``num_top`` is below 1 or ``temperature`` negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(ndcg(jnp.array([3.0, 2.0, 1.0]), jnp.array([2.0, 1.0, 0.0]), temperature=0.0))
      1.0

    Reference:
      Qin, Liu, Li, "A General Approximation Framework for Direct Optimization of Information Retrieval Measures", 2010.
    """
    _check.same_shape("ndcg", scores=scores, gains=gains)
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
        order = jnp.argsort(jnp.where(valid, -scores, jnp.inf))
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


@jit(hard_at_zero=("temperature",))
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
      ValueError: if the shapes differ, or ``temperature`` is negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(reciprocal_rank(jnp.array([3.0, 2.0, 1.0]), jnp.array([0, 1, 1]), temperature=0.0))
      0.5

    Reference:
      Voorhees, "The TREC-8 Question Answering Track Report", 1999 (the metric).
    """
    _check.same_shape("reciprocal_rank", scores=scores, targets=targets)
    scores = widen(scores)
    valid = jnp.ones(scores.shape, bool) if where is None else where
    relevant = valid & (targets.astype(scores.dtype) > 0)
    some = relevant.any()
    first = smooth.maximum(scores, temperature=_again(temperature), where=relevant)
    first = jnp.where(some, first, 0)
    before = smooth.step(jnp.where(valid, scores, 0) - first, temperature=_again(temperature))
    rank = 1 + jnp.sum(before, where=valid & ~relevant)
    return jnp.where(some, 1 / rank, 0)


def _found(name, scores, targets, num_top, temperature, where):
    _check.same_shape(name, scores=scores, targets=targets)
    _check.at_least(name, "num_top", num_top, 1)
    _check.within(name, "num_top", num_top, 1, scores.shape[0])
    scores = widen(scores)
    valid = jnp.ones(scores.shape, bool) if where is None else where
    relevant = jnp.where(valid, targets.astype(scores.dtype), 0)
    return jnp.sum(
        relevant * smooth.top_k_mask(scores, num_top, temperature=_again(temperature), where=valid)
    ), relevant


@jit(static=("num_top",), hard_at_zero=("temperature",))
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
      ValueError: if the shapes differ, ``num_top`` is outside 1 ... n or ``temperature`` negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(precision_at(jnp.array([3.0, 2.0, 1.0]), jnp.array([1, 0, 1]), num_top=2, temperature=0.0))
      0.5
    """
    found, _ = _found("precision_at", scores, targets, num_top, temperature, where)
    return found / num_top


@jit(static=("num_top",), hard_at_zero=("temperature",))
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
      ValueError: if the shapes differ, ``num_top`` is outside 1 ... n or ``temperature`` negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> float(recall_at(jnp.array([3.0, 2.0, 1.0]), jnp.array([1, 0, 1]), num_top=1, temperature=0.0))
      0.5
    """
    found, relevant = _found("recall_at", scores, targets, num_top, temperature, where)
    return ratio(found, jnp.sum(relevant), 0.0)
