"""Metrics of true positives among what was decided and what is true: the F-measures and their kin."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ScalarLike

from jaxlab import _check
from jaxlab._precision import widen
from jaxlab.metrics.decisions import Decision, check_of, macro, multilabel, name_of, ratio
from jaxlab.metrics.metric import Metric, dense

__all__ = ["dice", "f_beta", "jaccard", "precision", "recall", "samplewise", "set_f1", "tversky"]


def _counts(decision: Decision) -> Callable[[Any, Any], dict[str, Array]]:
    """For each class: true positives, decided and true."""

    def stat(prediction: Any, target: Any) -> dict[str, Array]:
        decided, true = decision(prediction, target)
        return {"both": decided * true, "decided": decided, "true": true}

    return stat


def _of_counts(decision: Decision, score: Callable, average: Callable) -> Metric:
    def final(counts: dict[str, Array]) -> Array:
        return average(score, counts)

    # One statistic for all of them: a state of the precision gives the recall and the F-measure too.
    final.__qualname__ = f"{average.__qualname__} {score.__qualname__}"
    return Metric(_counts(decision), final, statistic=f"counts of {name_of(decision)}", check=check_of(decision))


def f_beta(decision: Decision, *, beta: float = 1.0, average: Callable = macro, zero_division: float = 0.0) -> Metric:
    r"""The F-measure: recall, weighted beta times as much as precision, and precision in harmonic mean.

    .. math:: F_\beta = \frac{(1 + \beta^2)\, \mathrm{TP}}
              {\beta^2\, (\mathrm{TP} + \mathrm{FN}) + \mathrm{TP} + \mathrm{FP}}

    Args:
      decision: :func:`binary`, :func:`multiclass` or :func:`multilabel`, hard or at a temperature.
      beta: positive.
      average: over classes, :func:`macro`, :func:`micro` or :func:`weighted`; for each example see
        :func:`samplewise`.
      zero_division: the value of 0 / 0.

    Returns:
      A :class:`Metric` in [0, 1]; hard it is ``sklearn.metrics.fbeta_score``.

    Gradient:
      That of the expected counts. On a minibatch biased: see :func:`linearize`.

    Raises:
      ValueError: if ``beta`` is not positive.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> f1 = f_beta(metrics.multiclass(temperature=0.0), average=metrics.micro)
      >>> float(metrics.evaluate(f1, jnp.eye(4), jnp.array([0, 1, 2, 0])))
      0.75
    """
    _check.positive("f_beta", "beta", beta)
    return _of_counts(decision, _f_score(beta, zero_division), average)


def _f_score(beta, zero_division):
    square = beta**2

    def score(counts):
        numerator = (1 + square) * counts["both"]
        return ratio(numerator, square * counts["true"] + counts["decided"], zero_division)

    return score


def samplewise(metric: Metric) -> Metric:
    r"""The mean over examples of a metric of each example alone.

    .. math:: \frac{1}{n} \sum_i g(s(\hat y_i, y_i))

    Args:
      metric: of one example's labels together, as a rule an overlap with ``average=micro``.

    Returns:
      A :class:`Metric`; hard, of precision, recall, F-measure or Jaccard index of :func:`multilabel` with
      ``average=micro`` it is scikit-learn's with ``average="samples"``.

    Gradient:
      That of the metric; unbiased on a minibatch, as it is a mean over examples.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> f1 = samplewise(metrics.f_beta(metrics.multilabel(temperature=0.0), average=metrics.micro))
      >>> float(metrics.evaluate(f1, jnp.array([[1.0, 1.0], [1.0, -1.0]]), jnp.array([[1, 1], [0, 1]])))
      0.5
    """

    def stat(prediction: Any, target: Any) -> Array:
        return metric.final(jax.tree.map(widen, dense(metric.stat(prediction, target))))

    of_each = f"{getattr(metric.final, '__qualname__', '')} of each example's {metric.statistic}"
    return Metric(stat, lambda mean: mean, metric.increasing, metric.counts, of_each, metric.check)


def precision(decision: Decision, *, average: Callable = macro, zero_division: float = 0.0) -> Metric:
    r"""The share of what was decided that is true, TP / (TP + FP).

    Args:
      decision: :func:`binary`, :func:`multiclass` or :func:`multilabel`, hard or at a temperature.
      average: over classes, :func:`macro`, :func:`micro` or :func:`weighted`.
      zero_division: the value where nothing was decided.

    Returns:
      A :class:`Metric` in [0, 1]; hard it is ``sklearn.metrics.precision_score``.

    Gradient:
      That of the expected counts; biased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> float(metrics.evaluate(precision(metrics.binary(temperature=0.0)), jnp.ones(4), jnp.array([1, 0, 0, 0])))
      0.25
    """

    def score(counts: dict[str, Array]) -> Array:
        return ratio(counts["both"], counts["decided"], zero_division)

    return _of_counts(decision, score, average)


def recall(decision: Decision, *, average: Callable = macro, zero_division: float = 0.0) -> Metric:
    r"""The share of what is true that was decided, TP / (TP + FN).

    Args:
      decision: :func:`binary`, :func:`multiclass` or :func:`multilabel`, hard or at a temperature.
      average: over classes, :func:`macro`, :func:`micro` or :func:`weighted`.
      zero_division: the value where nothing is true.

    Returns:
      A :class:`Metric` in [0, 1]; hard it is ``sklearn.metrics.recall_score``.

    Gradient:
      That of the expected counts; biased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> float(metrics.evaluate(recall(metrics.binary(temperature=0.0)), jnp.ones(4), jnp.array([1, 0, 0, 0])))
      1.0
    """

    def score(counts: dict[str, Array]) -> Array:
        return ratio(counts["both"], counts["true"], zero_division)

    return _of_counts(decision, score, average)


def tversky(
    decision: Decision,
    *,
    false_positives: float = 0.5,
    false_negatives: float = 0.5,
    average: Callable = macro,
    zero_division: float = 0.0,
) -> Metric:
    r"""The Tversky index: an overlap with a price on each kind of error.

    .. math:: \frac{\mathrm{TP}}{\mathrm{TP} + \alpha\, \mathrm{FP} + \beta\, \mathrm{FN}}

    Args:
      decision: :func:`binary`, :func:`multiclass` or :func:`multilabel`, hard or at a temperature.
      false_positives: the price alpha, at least 0.
      false_negatives: the price beta, at least 0.
      average: over classes, :func:`macro`, :func:`micro` or :func:`weighted`.
      zero_division: the value of 0 / 0.

    Returns:
      A :class:`Metric` in [0, 1]; 1/2 and 1/2 is Dice's, 1 and 1 Jaccard's.

    Gradient:
      That of the expected counts; biased on a minibatch.

    Raises:
      ValueError: if a price is negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> index = tversky(metrics.binary(temperature=0.0), false_positives=1.0)
      >>> float(metrics.evaluate(index, jnp.ones(4), jnp.array([1, 0, 0, 0])))
      0.25

    Reference:
      Tversky, "Features of Similarity", 1977.
    """
    _check.non_negative("tversky", "false_positives", false_positives)
    _check.non_negative("tversky", "false_negatives", false_negatives)

    def score(counts):
        wrong = false_positives * (counts["decided"] - counts["both"])
        missed = false_negatives * (counts["true"] - counts["both"])
        return ratio(counts["both"], counts["both"] + wrong + missed, zero_division)

    return _of_counts(decision, score, average)


def jaccard(decision: Decision, *, average: Callable = macro, zero_division: float = 0.0) -> Metric:
    r"""The Jaccard index, intersection over union: TP / (TP + FP + FN).

    Args:
      decision: :func:`binary`, :func:`multiclass` or :func:`multilabel`, hard or at a temperature.
      average: over classes, :func:`macro`, :func:`micro` or :func:`weighted`.
      zero_division: the value of 0 / 0.

    Returns:
      A :class:`Metric` in [0, 1]; hard it is ``sklearn.metrics.jaccard_score``.

    Gradient:
      That of the expected counts; biased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> float(metrics.evaluate(jaccard(metrics.binary(temperature=0.0)), jnp.ones(4), jnp.array([1, 0, 0, 0])))
      0.25
    """
    return tversky(decision, false_positives=1.0, false_negatives=1.0, average=average, zero_division=zero_division)


def dice(decision: Decision, *, average: Callable = macro, zero_division: float = 0.0) -> Metric:
    r"""Dice's coefficient, 2 TP / (2 TP + FP + FN): the F-measure by another name.

    Args:
      decision: :func:`binary`, :func:`multiclass` or :func:`multilabel`, hard or at a temperature.
      average: over classes, :func:`macro`, :func:`micro` or :func:`weighted`.
      zero_division: the value of 0 / 0.

    Returns:
      A :class:`Metric` in [0, 1].

    Gradient:
      That of the expected counts; biased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> float(metrics.evaluate(dice(metrics.binary(temperature=0.0)), jnp.ones(3), jnp.array([1, 0, 0])))
      0.5
    """
    return f_beta(decision, average=average, zero_division=zero_division)


def set_f1(*, temperature: ScalarLike = 1.0, zero_division: float = 0.0) -> Metric:
    r"""The micro F-measure of predicted sets: spans [t, t] of a text, triples [t, t, r], or any candidates.

    .. math:: \frac{2 \sum p\, y}{\sum p + \sum y}, \qquad p = \sigma(\mathrm{logits} / \lambda)

    Sums over all candidates of all examples come first: it is never a mean of F-measures.

    Args:
      temperature: in the unit of the logits; the number 0 takes the candidates with logits above 0.
      zero_division: the value where nothing is predicted and nothing true.

    Returns:
      A :class:`Metric` in [0, 1], of logits and bits of one shape. Candidates of a logit of ``-inf`` do not count.

    Gradient:
      That of the expected counts; biased on a minibatch.

    Raises:
      ValueError: if ``temperature`` is a negative Python number; when called, if the shapes differ, or outside of
        ``jit`` if a bit is outside 0 ... 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> logits = jnp.array([[[2.0, -1.0], [-jnp.inf, 3.0]]])
      >>> float(metrics.evaluate(set_f1(temperature=0.0), logits, jnp.array([[[1, 0], [0, 1]]])))
      1.0
    """
    decide = multilabel(temperature=temperature)

    def stat(logits: Array, bits: Array) -> dict[str, Array]:
        _check.same_shape("set_f1", logits=logits, bits=bits)
        possible = logits > -jnp.inf
        decided, true = decide(jnp.where(possible, logits, 0).reshape(-1), bits.reshape(-1))
        decided = jnp.where(possible.reshape(-1), decided, 0)
        return {"both": jnp.sum(decided * true), "decided": jnp.sum(decided), "true": jnp.sum(true)}

    return Metric(stat, _f_score(1.0, zero_division), statistic="counts of sets", check=check_of(decide))
