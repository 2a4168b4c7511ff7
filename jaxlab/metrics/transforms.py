"""What is made of a metric: a loss, a loss whose minibatches have no bias, a value with less bias and an error bar."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxlab._chunks import by_rows, rows_at_once
from jaxlab.metrics.metric import Metric, State, dense, evaluate, mean_of, means_of, statistics_of, total_of
from jaxlab.moments import Estimate
from jaxlab.moments.curved import delta_around
from jaxlab.moments.statistics import enough, safe_sqrt

__all__ = ["delta_metric", "jackknife_metric", "linearize", "loss"]


def loss(metric: Metric) -> Callable:
    r"""A metric as something to minimise, on the batch at hand: :math:`1 - M`, or M where less is better.

    Args:
      metric: the metric, at a temperature above 0.

    Returns:
      ``loss(predictions, targets, *, weights=None)``, a number.

    Gradient:
      That of the metric on the batch: biased as an estimate of that on all the data, and of the wrong sign if the
      batch holds few positives. See :func:`linearize`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> f1_loss = loss(metrics.f_beta(metrics.binary(temperature=1.0)))
      >>> bool(f1_loss(jnp.array([9.0, -9.0]), jnp.array([1, 0])) < 0.001)
      True
    """

    def of_batch(predictions: Any, targets: Any, *, weights: Array | None = None) -> Array:
        value = evaluate(metric, predictions, targets, weights=weights)
        return 1 - value if metric.increasing else value

    return of_batch


def linearize(metric: Metric, state: State) -> Callable:
    r"""A metric as a loss that is linear in the batch's statistics, around a fixed state: no bias by small batches.

    .. math:: \pm \Big(g(m) + \nabla g(m)^\top \big(\bar s - m\big)\Big), \qquad m \;\text{the means of the state}

    Keep a state over the data (a sum, or one that decays), and take the loss around it: its gradient is that of the
    metric where the state is that of the model and the data at hand.

    Args:
      metric: the metric, at a temperature above 0.
      state: the state to stand on; no gradient goes into it. It must hold some examples of each kind.

    Returns:
      ``loss(predictions, targets, *, weights=None)``, a number.

    Gradient:
      Unbiased, for batches of independent examples without weights, for this state.

    Raises:
      ValueError: if the state is of another statistic.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> f1 = metrics.f_beta(metrics.binary(temperature=1.0))
      >>> logits, targets = jnp.array([2.0, -1.0, 0.5]), jnp.array([1, 0, 1])
      >>> state = metrics.state_of(f1, logits, targets)
      >>> one, other = jax.grad(linearize(f1, state))(logits, targets), jax.grad(loss(f1))(logits, targets)
      >>> bool(jnp.allclose(one, other, atol=1e-6))  # around the batch itself it is the metric's own
      True

    Reference:
      Wang, Fang, Liu, "Stochastic Compositional Gradient Descent", 2017, for the two nested expectations.
    """
    means = lax.stop_gradient(means_of("linearize", metric, state))
    value, gradient = jax.value_and_grad(metric.final)(means)

    def of_batch(predictions: Any, targets: Any, *, weights: Array | None = None) -> Array:
        stats, used = statistics_of("linearize", metric, predictions, targets, weights)
        change = jax.tree.map(
            lambda slope, here, there: jnp.sum(slope * (here - there)), gradient, mean_of(stats, used), means
        )
        linear = value + sum(jax.tree.leaves(change))
        return 1 - linear if metric.increasing else linear

    return of_batch


def _as_function_of_a_mean(metric, stats, weights):
    """The samples ``(w s, w)`` as a function of a statistic and its weight, their sum, and the metric of sum or mean.

    For a ratio these are the same. The samples are made one by one, for together they may be large.
    """

    def sample_of(item):
        stat, weight = item
        return jax.tree.map(lambda leaf: leaf * weight, dense(stat)), weight

    def function(mean):
        stat, weight = mean
        return metric.final(jax.tree.map(lambda leaf: leaf / jnp.where(weight == 0, 1, weight), stat))

    return sample_of, (total_of(stats, weights), jnp.sum(weights)), function


def jackknife_metric(metric: Metric) -> Callable:
    r"""The metric on a batch with the bias of order 1 / n taken off, value and gradient, by leaving one example out.

    .. math:: n\, M - (n - 1)\, \overline{M_{-i}}

    The statistics are computed once, and only g is evaluated n times. It costs variance, and does not help where the
    batch as a rule holds no positive at all: there use :func:`linearize`.

    Args:
      metric: the metric.

    Returns:
      ``estimate(predictions, targets, *, weights=None)``, a :class:`jaxlab.moments.Estimate`.

    Gradient:
      Exact; that of the value has a bias of order 1 / n^2.

    Raises:
      ValueError: when called, if there are fewer than 2 examples.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> f1 = metrics.f_beta(metrics.binary(temperature=1.0))
      >>> estimate = jackknife_metric(f1)(jnp.array([2.0, -1.0, 0.5]), jnp.array([1, 0, 1]))
      >>> bool(estimate.standard_error > 0)
      True

    Reference:
      Quenouille, "Notes on Bias in Estimation", 1956.
    """

    def estimate(predictions: Any, targets: Any, *, weights: Array | None = None) -> Estimate:
        stats, used = statistics_of("jackknife_metric", metric, predictions, targets, weights)
        enough("jackknife_metric", used, 2)
        sample_of, total, function = _as_function_of_a_mean(metric, stats, used)
        size = used.shape[0]

        def without(item):
            return function(jax.tree.map(jnp.subtract, total, sample_of(item)))

        parts = by_rows(without, (stats, used), rows_at_once(sum(leaf.size for leaf in jax.tree.leaves(total))))
        whole = function(total)
        bias = (size - 1) * (jnp.mean(parts) - whole)
        spread = jnp.sum((parts - jnp.mean(parts)) ** 2) * ((size - 1) / size)
        return Estimate(whole - bias, safe_sqrt(spread), bias)

    return estimate


def delta_metric(metric: Metric) -> Callable:
    r"""The metric on a batch with an error bar, by the curvature of g.

    .. math:: M - \frac{\mathrm{tr}(\nabla^2 g\, \hat\Sigma)}{2 n}, \qquad
              \mathrm{se}^2 = \frac{\nabla g^\top \hat\Sigma\, \nabla g}{n}

    Args:
      metric: the metric; its end must be smooth where the batch is.

    Returns:
      ``estimate(predictions, targets, *, weights=None)``, a :class:`jaxlab.moments.Estimate`.

    Gradient:
      Exact.

    Raises:
      ValueError: when called, if there are fewer than 2 examples.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlab import metrics
      >>> accuracy = metrics.accuracy(metrics.binary(temperature=0.0))
      >>> estimate = delta_metric(accuracy)(jnp.array([2.0, -1.0, 3.0, 1.0]), jnp.array([1, 0, 0, 1]))
      >>> float(estimate.value), float(estimate.standard_error), float(estimate.bias)
      (0.75, 0.25, 0.0)

    Reference:
      Oehlert, "A Note on the Delta Method", 1992.
    """

    def estimate(predictions: Any, targets: Any, *, weights: Array | None = None) -> Estimate:
        stats, used = statistics_of("delta_metric", metric, predictions, targets, weights)
        enough("delta_metric", used, 2)
        sample_of, total, function = _as_function_of_a_mean(metric, stats, used)
        center = jax.tree.map(lambda leaf: leaf / used.shape[0], total)
        return delta_around(function, center, (stats, used), sample_of)

    return estimate
