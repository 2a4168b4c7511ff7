"""Areas under curves of one list of scored items: they compare items in pairs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Num, ScalarLike

from jaxlab import _check, smooth
from jaxlab._chunks import by_rows
from jaxlab._jit import jit
from jaxlab._precision import widen
from jaxlab.metrics.decisions import ratio
from jaxlab.smooth._common import over
from jaxlab.smooth.quantiles import soft_mask

__all__ = ["average_precision", "partial_auc", "precision_recall_auc", "roc_auc"]


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


def check_targets(name: str) -> Callable[..., None]:
    """A check of arguments as they come: that targets which are not traced lie in 0 ... 1."""

    def check(scores, targets, *, weights=None, where=None, **_):
        _check.values_within(name, "targets", targets, 0, 1, weights if where is None else where)

    return check


def _in_chunks(of_item, items, chunk_size):
    """The sum of a function over items, with memory for one chunk of them, in the gradient too."""
    sums = by_rows(of_item, items, chunk_size)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, 0), sums)


def again(temperature):
    """The temperature, which is the Python number 0 or an array, to be passed on."""
    return 0.0 if _check.is_zero(temperature) else temperature


@jit(static=("chunk_size",), hard_at_zero=("temperature",), check=check_targets("roc_auc"))
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
      ValueError: if the shapes differ, ``temperature`` is negative, ``chunk_size`` below 1, or a target that is not
        traced outside 0 ... 1.

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
        return weight * jnp.sum(negative * smooth.step(score - scores, temperature=again(temperature)))

    total = _in_chunks(of_item, (scores, positive), chunk_size)
    return ratio(total, positive.sum() * negative.sum(), 0.5)


def _check_partial(scores, targets, *, weights=None, max_rate=0.1, **_):
    check_targets("partial_auc")(scores, targets, weights=weights)
    _check.positive("partial_auc", "max_rate", max_rate)
    _check.within("partial_auc", "max_rate", max_rate, 0, 1)


@jit(static=("chunk_size",), hard_at_zero=("temperature",), check=_check_partial)
def partial_auc(
    scores: Float[Array, "n"],
    targets: Num[Array, "n"] | Bool[Array, "n"],
    *,
    weights: Float[Array, "n"] | None = None,
    max_rate: ScalarLike = 0.1,
    temperature: ScalarLike = 1.0,
    chunk_size: int = 128,
) -> Float[Array, ""]:
    r"""The area under the part of the ROC curve with few false positives, scaled so that chance is 1/2.

    .. math:: \frac{1}{2} \Big(1 + \frac{A - r^2 / 2}{r - r^2 / 2}\Big), \qquad
              A = \frac{1}{W_+ W_-} \sum_{j \in -} w_j m_j \sum_{i \in +} w_i\, \sigma\big((s_i - s_j) / \lambda\big)

    with :math:`m_j = \sigma((s_j - \theta) / \lambda)` the smooth mask of the highest negatives that weigh
    :math:`r\, W_-` together.

    Args:
      scores: of the items.
      targets: 1 for positives, 0 for negatives.
      weights: of the items; 0 leaves one out.
      max_rate: r, the largest rate of false positives, in (0, 1].
      temperature: :math:`\lambda`, in the unit of the scores; the number 0 gives
        ``sklearn.metrics.roc_auc_score(max_fpr=r)``, with ties as there: a group of them is a straight line.
      chunk_size: items that are compared with all others at a time: memory is this times n.

    Returns:
      A number of at most 1, in float32 at least; 1/2 if there are no positives or no negatives.

    Gradient:
      That of the smooth function, for scores and weights; zero for the scores at temperature 0. None for
        ``max_rate``.

    Raises:
      ValueError: if the shapes differ, ``max_rate`` is outside (0, 1], ``temperature`` negative, ``chunk_size`` below
        1, or a target that is not traced outside 0 ... 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> scores, targets = jnp.array([0.9, 0.8, 0.7, 0.1]), jnp.array([1, 0, 1, 0])
      >>> float(partial_auc(scores, targets, max_rate=1.0, temperature=0.0))
      0.75

    Reference:
      McClish, "Analyzing a Portion of the ROC Curve", 1989 (the scale).
    """
    _check.at_least("partial_auc", "chunk_size", chunk_size, 1)
    scores, positive, negative = _weighted("partial_auc", scores, targets, weights)
    rate = lax.stop_gradient(jnp.asarray(max_rate, scores.dtype))
    kept = rate * negative.sum()
    if _check.is_zero(temperature):

        def of_item(item):
            score, weight = item
            above, tied = (scores > score).astype(scores.dtype), (scores == score).astype(scores.dtype)
            mask = jnp.clip(ratio(kept - jnp.sum(negative * above), jnp.sum(negative * tied), 0.0), 0, 1)
            # Along a group of ties the curve is a straight line, of which the share that is kept counts.
            return weight * mask * jnp.sum(positive * (above + tied * mask / 2))

        area = _in_chunks(of_item, (scores, negative), chunk_size)
    else:
        mask = soft_mask(scores, kept, negative > 0, temperature, negative)

        def of_item(item):
            score, weight = item
            return weight * jnp.sum(positive * smooth.step(scores - score, temperature=temperature))

        area = _in_chunks(of_item, (scores, negative * mask), chunk_size)
    area = ratio(area, positive.sum() * negative.sum(), 0.0)
    some = (positive.sum() > 0) & (negative.sum() > 0)
    return jnp.where(some, (1 + (area - rate**2 / 2) / (rate - rate**2 / 2)) / 2, 0.5)


@jit(static=("chunk_size",), hard_at_zero=("temperature",), check=check_targets("average_precision"))
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
      ValueError: if the shapes differ, ``temperature`` is negative, ``chunk_size`` below 1, or a target that is not
        traced outside 0 ... 1.

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


@jit(static=("chunk_size",), hard_at_zero=("temperature",), check=check_targets("precision_recall_auc"))
def precision_recall_auc(
    scores: Float[Array, "n"],
    targets: Num[Array, "n"] | Bool[Array, "n"],
    *,
    weights: Float[Array, "n"] | None = None,
    temperature: ScalarLike = 1.0,
    chunk_size: int = 128,
) -> Float[Array, ""]:
    r"""The area under the precision-recall curve by trapezoids: precision before and after each positive, averaged.

    .. math:: \frac{1}{W_+} \sum_{i \in +} \frac{w_i}{2} \Big(\frac{w_i + P_i}{w_i + P_i + N_i}
              + \frac{q_i w_i + P_i}{q_i w_i + P_i + N_i}\Big), \qquad
              q_i = \prod_{j \ne i} \Big(1 - \sigma\big((s_j - s_i) / \lambda\big)\Big)

    with :math:`P_i, N_i = \sum_j w_j\, \sigma((s_j - s_i) / \lambda)` over the other positives and the negatives, and
    :math:`q_i` the chance that nothing is above i, where the precision before it is 1. Straight lines between points of
    this curve are too optimistic: :func:`average_precision` has none.

    Args:
      scores: of the items.
      targets: 1 for positives, 0 for negatives.
      weights: of the items; 0 leaves one out.
      temperature: :math:`\lambda`, in the unit of the scores; the number 0 gives ``sklearn.metrics.auc`` of
        ``precision_recall_curve``, where ties are one point of the curve.
      chunk_size: items that are compared with all others at a time: memory is this times n.

    Returns:
      A number in [0, 1], in float32 at least; 0 if there are no positives.

    Gradient:
      That of the smooth function, for scores and weights; zero for the scores at temperature 0.

    Raises:
      ValueError: if the shapes differ, ``temperature`` is negative, ``chunk_size`` below 1, or a target that is not
        traced outside 0 ... 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> value = precision_recall_auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1]), temperature=0.0)
      >>> f"{float(value):.4f}"
      '0.7917'

    Reference:
      Davis, Goadrich, "The Relationship Between Precision-Recall and ROC Curves", 2006 (on the straight lines).
    """
    _check.at_least("precision_recall_auc", "chunk_size", chunk_size, 1)
    scores, positive, negative = _weighted("precision_recall_auc", scores, targets, weights)
    index, total = jnp.arange(scores.shape[0]), positive + negative

    def of_item(item):
        score, weight, place = item
        if _check.is_zero(temperature):
            before, after = (scores > score).astype(scores.dtype), (scores >= score).astype(scores.dtype)
            first = jnp.where(jnp.sum(total * before) > 0, 0, weight)
        else:
            gap = jnp.where(index == place, 0, scores - score)
            before = jnp.where(index == place, 0, smooth.step(gap, temperature=temperature))
            after = jnp.where(index == place, 1, before)
            nothing_above = jnp.sum(
                jnp.where((index == place) | (total == 0), 0, jax.nn.softplus(over(gap, temperature)))
            )
            first = weight * jnp.exp(-nothing_above)
        found, found_before = jnp.sum(positive * after), jnp.sum(positive * before) + first
        precision = ratio(found, found + jnp.sum(negative * after), 0.0)
        precision_before = ratio(found_before, found_before + jnp.sum(negative * before), 0.0)
        return weight * (precision + precision_before) / 2

    area = _in_chunks(of_item, (scores, positive, index), chunk_size)
    return ratio(area, positive.sum(), 0.0)
