"""How well two trees agree: precision, recall and F1 of constituents, in the two conventions of the literature."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxlab import _check
from jaxlab._jit import jit

__all__ = ["SpanCounts", "SpanScores", "corpus_f1", "count_spans", "sentence_f1", "span_scores"]


class SpanCounts(NamedTuple):
    """How many constituents two trees have, and have in common; the counts of several sentences add up."""

    common: Int[Array, "*batch"]
    predicted: Int[Array, "*batch"]
    gold: Int[Array, "*batch"]


class SpanScores(NamedTuple):
    """Precision, recall, and their harmonic mean."""

    precision: Float[Array, "*batch"]
    recall: Float[Array, "*batch"]
    f1: Float[Array, "*batch"]


@jit(static=("root",))
def count_spans(
    predicted: Bool[Array, "t t"], gold: Bool[Array, "t t"], length: Int[Array, ""], *, root: bool = False
) -> SpanCounts:
    r"""Counts the constituents of two trees over one sentence, and those that they share.

    Args:
      predicted: a chart, such as of :func:`distance_to_tree`.
      gold: the chart to compare with.
      length: how many words there are; constituents of fewer than two words or beyond ``length`` do not count.
      root: whether the whole sentence counts, which both have.

    Returns:
      The counts.

    Gradient:
      None: the results are integers.

    Raises:
      ValueError: if the charts are not square and of one size.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab.ordered import left_branching_tree, right_branching_tree
      >>> left, right = (tree(jnp.array(4), size=4) for tree in (left_branching_tree, right_branching_tree))
      >>> [int(count) for count in count_spans(left, right, jnp.array(4), root=True)]
      [1, 3, 3]
    """
    _check.same_shape("count_spans", predicted=predicted, gold=gold)
    if predicted.shape[0] != predicted.shape[1]:
        raise ValueError(f"count_spans: charts must be square; got shape {list(predicted.shape)}")
    first, last = (lax.broadcasted_iota(jnp.int32, predicted.shape, axis) for axis in (0, 1))
    length = length.astype(jnp.int32)
    counted = (first < last) & (last < length)
    if not root:
        counted = counted & ~((first == 0) & (last == length - 1))
    predicted, gold = predicted & counted, gold & counted
    common, predicted, gold = (jnp.sum(chart, dtype=jnp.int32) for chart in (predicted & gold, predicted, gold))
    return SpanCounts(common, predicted, gold)


@jit()
def span_scores(counts: SpanCounts) -> SpanScores:
    r"""Precision, recall and F1 of counts of one sentence or of a corpus.

    .. math:: P = \frac{\mathrm{common}}{\mathrm{predicted}}, \qquad R = \frac{\mathrm{common}}{\mathrm{gold}}, \qquad
              F_1 = \frac{2 P R}{P + R}

    Where there is nothing to find, recall is 1, and precision is 1 if nothing was predicted either, as in the
    evaluation of the ON-LSTM; F1 is 0 where both are 0.

    Args:
      counts: of any shape.

    Returns:
      The scores, in [0, 1].

    Gradient:
      None: the counts are integers.

    Examples:
      >>> import jax.numpy as jnp
      >>> counts = SpanCounts(jnp.array(2), jnp.array(4), jnp.array(2))
      >>> [round(float(score), 4) for score in span_scores(counts)]
      [0.5, 1.0, 0.6667]
    """
    common, predicted, gold = (count.astype(jnp.float32) for count in counts)
    recall = jnp.where(gold > 0, common / jnp.maximum(gold, 1), 1)
    precision = jnp.where(predicted > 0, common / jnp.maximum(predicted, 1), (gold == 0).astype(jnp.float32))
    total = precision + recall
    return SpanScores(precision, recall, jnp.where(total > 0, 2 * precision * recall / jnp.maximum(total, 1e-6), 0))


@jit()
def sentence_f1(
    predicted: Bool[Array, "b t t"], gold: Bool[Array, "b t t"], lengths: Int[Array, "b"]
) -> Float[Array, ""]:
    r"""The mean over sentences of the F1 of their constituents, the whole sentence left out.

    The convention of most papers on unsupervised parsing ("sentence-level F1", "S-F1"). A sentence of one or two
    words has nothing to find and scores 1, as in the evaluation of the ON-LSTM; others leave those of one word out,
    which is done here by the length 0.

    Args:
      predicted: charts.
      gold: charts.
      lengths: how many words each sentence has; one of length 0 is padding and does not count.

    Returns:
      In [0, 1]; NaN without a sentence.

    Gradient:
      None: the charts are boolean.

    Raises:
      ValueError: if the charts are not square and of one size, or ``lengths`` are of another number.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab.ordered import left_branching_tree
      >>> chart = left_branching_tree(jnp.array(4), size=4)[None]
      >>> float(sentence_f1(chart, chart, jnp.array([4])))
      1.0

    Reference:
      Kim, Dyer, Rush, "Compound Probabilistic Context-Free Grammars for Grammar Induction", 2019 (sentence-level F1).
      https://arxiv.org/abs/1906.10225
    """
    check_lengths("sentence_f1", predicted, gold, lengths)
    scores = span_scores(jax.vmap(count_spans)(predicted, gold, lengths))
    return jnp.mean(scores.f1, where=lengths > 0)


@jit()
def corpus_f1(
    predicted: Bool[Array, "b t t"], gold: Bool[Array, "b t t"], lengths: Int[Array, "b"]
) -> Float[Array, ""]:
    r"""The F1 of all constituents of a corpus together, the whole sentences among them.

    The convention of the evaluation program EVALB, unlabelled and with each span counted once.

    Args:
      predicted: charts.
      gold: charts.
      lengths: how many words each sentence has.

    Returns:
      In [0, 1].

    Gradient:
      None: the charts are boolean.

    Raises:
      ValueError: if the charts are not square and of one size, or ``lengths`` are of another number.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab.ordered import left_branching_tree, right_branching_tree
      >>> left, right = (tree(jnp.array(3), size=3)[None] for tree in (left_branching_tree, right_branching_tree))
      >>> float(corpus_f1(left, right, jnp.array([3])))
      0.5
    """
    check_lengths("corpus_f1", predicted, gold, lengths)
    counts = jax.vmap(lambda *charts: count_spans(*charts, root=True))(predicted, gold, lengths)
    return span_scores(SpanCounts(*[jnp.sum(count) for count in counts])).f1


def check_lengths(function: str, predicted: Array, gold: Array, lengths: Array) -> None:
    _check.same_shape(function, predicted=predicted, gold=gold)
    if lengths.shape != predicted.shape[:1]:
        raise ValueError(
            f"{function}: lengths must be one for each of {predicted.shape[0]} charts; got shape {list(lengths.shape)}"
        )
