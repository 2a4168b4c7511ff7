"""Metrics of decisions by the confusion matrix, and of probabilities."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ScalarLike

from jaxlab import _check, smooth
from jaxlab._precision import widen
from jaxlab.metrics.decisions import Decision, check_bits, check_of, name_of, ratio
from jaxlab.metrics.metric import Metric, Outer

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "brier",
    "calibration_error",
    "cohen_kappa",
    "matthews",
    "top_k_accuracy",
]


def _confusion(decision: Decision) -> Callable[[Any, Any], Outer]:
    """The confusion matrix, true classes down and decided ones across; of a bit, with its opposite as class 0."""

    def stat(prediction: Any, target: Any) -> Outer:
        decided, true = decision(prediction, target)
        if decided.shape[0] == 1:
            decided, true = (jnp.concatenate([1 - p, p]) for p in (decided, true))
        return Outer(true, decided)

    return stat


def _of_confusion(decision: Decision, final: Callable[[Array], Array]) -> Metric:
    return Metric(
        _confusion(decision), final, statistic=f"confusion matrix of {name_of(decision)}", check=check_of(decision)
    )


def accuracy(decision: Decision) -> Metric:
    r"""The share of right decisions; at a temperature the expected share of the classifier that draws its decisions.

    .. math:: \frac{1}{n} \sum_i \langle y_i, p_i \rangle

    Args:
      decision: :func:`binary` or :func:`multiclass`, or :func:`multilabel` (then of all labels).

    Returns:
      A :class:`Metric` in [0, 1].

    Gradient:
      That of the expected accuracy: unbiased on a minibatch. It vanishes on what is badly wrong, so that it serves for
      fine tuning and not for training from nothing.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> float(metrics.evaluate(accuracy(metrics.multiclass(temperature=0.0)), jnp.eye(4), jnp.array([0, 1, 2, 0])))
      0.75
    """

    def stat(prediction: Any, target: Any) -> Array:
        decided, true = decision(prediction, target)
        if jnp.ndim(target) == 0 and decided.shape[0] > 1:
            return jnp.sum(decided * true)
        return jnp.mean(decided * true + (1 - decided) * (1 - true))

    return Metric(stat, lambda mean: mean, statistic=f"accuracy of {name_of(decision)}", check=check_of(decision))


def top_k_accuracy(*, k: int, temperature: ScalarLike = 1.0) -> Metric:
    r"""The share of examples whose class is among the k with the largest logits.

    .. math:: \frac{1}{n} \sum_i m^k_\lambda(\hat y_i)_{y_i}

    with :math:`m^k` of :func:`jaxlab.smooth.top_k_mask`.

    Args:
      k: how many, at least 1.
      temperature: in the unit of the logits; the number 0 counts hard (of ties the first classes).

    Returns:
      A :class:`Metric` in [0, 1], of logits [c] and an integer label; hard it is
      ``sklearn.metrics.top_k_accuracy_score`` where there are no ties.

    Gradient:
      That of the smooth mask; unbiased on a minibatch.

    Raises:
      ValueError: if ``k`` is below 1, or ``temperature`` negative; when called, if there are fewer than k classes.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> logits = jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
      >>> float(metrics.evaluate(top_k_accuracy(k=2, temperature=0.0), logits, jnp.array([1, 2])))
      0.5
    """
    _check.at_least("top_k_accuracy", "k", k, 1)
    _check.non_negative("top_k_accuracy", "temperature", temperature)

    def stat(logits: Array, label: Array) -> Array:
        _check.within("top_k_accuracy", "k", k, 1, logits.shape[0])
        mask = smooth.top_k_mask(widen(logits), k, temperature=temperature)
        return jnp.sum(mask * jax.nn.one_hot(label, logits.shape[0], dtype=mask.dtype))

    def check(function: str, predictions: Any, targets: Any, weights: Any) -> None:
        _check.values_within(function, "labels", targets, 0, predictions.shape[-1] - 1, weights)

    return Metric(stat, lambda mean: mean, statistic=f"top-{k} accuracy", check=check)


def balanced_accuracy(decision: Decision) -> Metric:
    r"""The mean over the classes that occur of the recall of each.

    .. math:: \frac{1}{|\{c: t_c > 0\}|} \sum_{c:\, t_c > 0} \frac{C_{cc}}{t_c}

    Args:
      decision: :func:`binary` or :func:`multiclass`, hard or at a temperature.

    Returns:
      A :class:`Metric` in [0, 1]; hard it is ``sklearn.metrics.balanced_accuracy_score``.

    Gradient:
      That of the expected counts; biased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> metric = balanced_accuracy(metrics.binary(temperature=0.0))
      >>> float(metrics.evaluate(metric, jnp.ones(4), jnp.array([1, 0, 0, 0])))
      0.5
    """

    def final(confusion: Array) -> Array:
        true = jnp.sum(confusion, 1)
        recalls = ratio(jnp.diagonal(confusion), true, 0.0)
        return ratio(jnp.sum(recalls), jnp.sum(true > 0).astype(true.dtype), 0.0)

    return _of_confusion(decision, final)


def matthews(decision: Decision, *, zero_division: float = 0.0) -> Metric:
    r"""Matthews' correlation of decisions and truth, for any number of classes.

    .. math:: \frac{\mathrm{tr}\, C - \sum_c p_c t_c}{\sqrt{(1 - \sum_c p_c^2)(1 - \sum_c t_c^2)}}

    with the confusion matrix in shares, :math:`t` its row and :math:`p` its column sums.

    Args:
      decision: :func:`binary` or :func:`multiclass`, hard or at a temperature.
      zero_division: the value where all decisions, or all labels, are the same.

    Returns:
      A :class:`Metric` in [-1, 1]; hard it is ``sklearn.metrics.matthews_corrcoef``.

    Gradient:
      That of the expected counts; biased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> metric = matthews(metrics.binary(temperature=0.0))
      >>> float(metrics.evaluate(metric, jnp.array([1.0, 1.0, -1.0, -1.0]), jnp.array([1, 0, 1, 0])))
      0.0

    Reference:
      Gorodkin, "Comparing Two K-Category Assignments by a K-Category Correlation Coefficient", 2004.
    """

    def final(confusion: Array) -> Array:
        true, decided = jnp.sum(confusion, 1), jnp.sum(confusion, 0)
        # Products of different shares, and not 1 - squares, which cancels for rare classes.
        different = 1 - jnp.eye(confusion.shape[0], dtype=confusion.dtype)
        pairs = (jnp.einsum("i,ij,j", x, different, x, precision="highest") for x in (decided, true))
        squares = math.prod(pairs)
        varies = squares > 0
        covariance = jnp.trace(confusion) * jnp.sum(confusion) - jnp.sum(decided * true)
        return jnp.where(varies, covariance / jnp.sqrt(jnp.where(varies, squares, 1)), zero_division)

    return _of_confusion(decision, final)


def cohen_kappa(decision: Decision, *, zero_division: float = 0.0) -> Metric:
    r"""Cohen's kappa: agreement beyond that of independent decisions of the same frequencies.

    .. math:: \frac{\mathrm{tr}\, C - \sum_c p_c t_c}{1 - \sum_c p_c t_c}

    Args:
      decision: :func:`binary` or :func:`multiclass`, hard or at a temperature.
      zero_division: the value where both are always one and the same class.

    Returns:
      A :class:`Metric` of at most 1; hard it is ``sklearn.metrics.cohen_kappa_score``.

    Gradient:
      That of the expected counts; biased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> metric = cohen_kappa(metrics.binary(temperature=0.0))
      >>> float(metrics.evaluate(metric, jnp.array([1.0, 1.0, -1.0, -1.0]), jnp.array([1, 1, 0, 0])))
      1.0
    """

    def final(confusion: Array) -> Array:
        chance = jnp.sum(jnp.sum(confusion, 0) * jnp.sum(confusion, 1))
        total = jnp.sum(confusion)
        return ratio(jnp.trace(confusion) * total - chance, total**2 - chance, zero_division)

    return _of_confusion(decision, final)


def brier(decision: Decision) -> Metric:
    r"""The Brier score: the squared distance of probabilities from what came out, summed over classes.

    .. math:: \frac{1}{n} \sum_i \sum_c (p_{ic} - y_{ic})^2

    Args:
      decision: :func:`binary` (one term, as in scikit-learn), :func:`multiclass` or :func:`multilabel`, as a rule at
        temperature 1.

    Returns:
      A :class:`Metric` of at least 0, where less is better.

    Gradient:
      Exact; unbiased on a minibatch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> float(metrics.evaluate(brier(metrics.binary()), jnp.zeros(2), jnp.array([1, 0])))
      0.25
    """

    def stat(prediction: Any, target: Any) -> Array:
        decided, true = decision(prediction, target)
        return jnp.sum((decided - true) ** 2)

    return Metric(
        stat,
        lambda mean: mean,
        increasing=False,
        statistic=f"squared errors of {name_of(decision)}",
        check=check_of(decision),
    )


def calibration_error(*, num_bins: int = 10, temperature: ScalarLike = 0.02) -> Metric:
    r"""The expected calibration error of probabilities of a bit: how far shares are from what was promised, by bins.

    .. math:: \sum_b \Big|\, \frac{1}{n} \sum_i m_b(p_i) (y_i - p_i) \Big|

    The plug-in is biased upwards, as a mean of absolute values is: :func:`jackknife_metric`.

    Args:
      num_bins: of equal width in [0, 1].
      temperature: of the edges of the bins, in probability; the number 0 bins hard.

    Returns:
      A :class:`Metric` in [0, 1] of probabilities and bits, where less is better.

    Gradient:
      That of the soft bins.

    Raises:
      ValueError: if ``num_bins`` is below 1 or ``temperature`` negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> metric = calibration_error(temperature=0.0)
      >>> float(metrics.evaluate(metric, jnp.array([0.75, 0.75, 0.75, 0.75]), jnp.array([1, 1, 1, 0])))
      0.0

    Reference:
      Guo et al., "On Calibration of Modern Neural Networks", 2017, eq. (3). https://arxiv.org/abs/1706.04599
    """
    _check.at_least("calibration_error", "num_bins", num_bins, 1)
    _check.non_negative("calibration_error", "temperature", temperature)

    def stat(probability: Array, bit: Array) -> Array:
        probability = widen(probability)
        member = soft_bins(probability, num_bins, temperature)
        return member * (bit.astype(probability.dtype) - probability)

    def check(function: str, predictions: Any, targets: Any, weights: Any) -> None:
        _check.values_within(function, "probabilities", predictions, 0, 1, weights)
        check_bits(function, predictions, targets, weights)

    return Metric(
        stat,
        lambda means: jnp.sum(means * jnp.sign(means)),
        increasing=False,
        statistic=f"calibration in {num_bins} bins",
        check=check,
    )


def soft_bins(x: Array, num_bins: int, temperature: ScalarLike) -> Array:
    """The membership of a number of [0, 1] in each of equal bins: differences of steps at the inner edges."""
    edges = jnp.arange(1, num_bins, dtype=x.dtype) / num_bins
    if _check.is_zero(temperature):
        above = (x >= edges).astype(x.dtype)
    else:
        above = smooth.step(x - edges, temperature=temperature)
    ends = jnp.ones((1,), x.dtype), jnp.zeros((1,), x.dtype)
    return jnp.concatenate([ends[0], above]) - jnp.concatenate([above, ends[1]])
