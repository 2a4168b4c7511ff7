r"""NVIL: a baseline that is learned from the data, on top of a moving average of what it leaves over."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import PRNGKeyArray, ScalarLike

from jaxlab.distributions import Scored
from jaxlab.estimators.contract import Estimate, draw_samples, estimate_of, estimator, evaluate
from jaxlab.estimators.score import with_score
from jaxlab.gradients import with_gradient
from jaxlab.moments import MovingAverage, moving_average

__all__ = ["LearningSignal", "learning_signal", "nvil"]


class LearningSignal(NamedTuple):
    """Moving averages of what a learned baseline leaves over, the signal f - B: the state of :func:`nvil`."""

    mean: MovingAverage
    variance: MovingAverage  # of the squared deviations from the mean before


def learning_signal() -> LearningSignal:
    """The state of :func:`nvil` before the first step: nothing has been seen.

    Returns:
      The state to hand in.

    Gradient:
      None: it is a constant.

    Examples:
      >>> float(learning_signal().mean.mean())
      0.0
    """
    return LearningSignal(moving_average(), moving_average())


@estimator(
    needs=Scored,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=1,
    tunable=("baseline", "decay", "normalise"),
    initial_state=learning_signal,
)
def nvil(
    key: PRNGKeyArray,
    dist: Scored,
    f: Callable[[Any], Any],
    state: LearningSignal,
    *,
    num_samples: int = 1,
    baseline: ScalarLike = 0.0,
    decay: ScalarLike = 0.99,
    normalise: bool = False,
    has_aux: bool = False,
) -> tuple[Estimate, LearningSignal]:
    r"""REINFORCE with a learned baseline, centred by the signal's moving average and, if asked, scaled by its spread.

    .. math:: \nabla := \frac1n \sum_k \frac{f(x_k) - B_\psi - c_{t-1}}{s_{t-1}}\, \nabla\log p(x_k) + \nabla f(x_k),
       \qquad s_{t-1} = \max(1, \sqrt{v_{t-1}})

    with c and v the moving averages of :math:`f - B_\psi` and of its squared deviations, both of earlier steps only
    (were this step's values in them, the gradient would be biased), and s = 1 unless ``normalise``.

    Args:
      key: consumed.
      dist: any distribution that is Scored.
      f: cost of one draw.
      state: ``learning_signal()`` at the start, then what the last call returned.
      num_samples: n, at least 1.
      baseline: :math:`B_\psi`, one number computed from anything but the draws, as a rule by a network from the example
        at hand.
      decay: share of the old averages that stays, in [0, 1).
      normalise: whether to divide the signal by s.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f (with ``has_aux`` also the auxiliary values, with a first axis of n),
      and the state for the next step, so ``jax.grad`` of a function that returns both takes ``has_aux=True``. For a
      minibatch, ``jax.vmap`` over the examples with one state for all of them, and take the mean of the states that
      come back: it is the state after the batch's mean.

    Gradient:
      Unbiased, to every order. With ``normalise`` its score term is scaled by 1 / s, a number between 0 and 1 that is
      known before the draw: the direction is unbiased if f does not see the parameters of ``dist`` (or through a term
      whose mean gradient is 0, as :math:`\log p`). With respect to ``baseline``: that of the mean of
      :math:`(f - B_\psi - c_{t-1})^2`, whose descent trains the network (first order only).

    Raises:
      ValueError: if ``baseline`` is not one scalar, or ``decay`` a Python number outside [0, 1).
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits, weights, x, state):
      ...     return estimators.nvil(
      ...         jax.random.key(0), Bernoulli(logits), lambda b: b.sum() + 10, state, baseline=weights @ x
      ...     )
      >>> x, weights = jnp.array([1.0, 2.0]), jnp.array([4.0, 3.0])  # baseline 10
      >>> gradients = jax.grad(loss, argnums=(0, 1), has_aux=True)
      >>> (to_logits, to_weights), state = gradients(jnp.zeros(2), weights, x, estimators.learning_signal())
      >>> float(state.mean.mean()) in (0.0, 1.0, 2.0)  # what the baseline left over
      True

    Reference:
      Mnih, Gregor, "Neural Variational Inference and Learning in Belief Networks", 2014, algorithm 1 (which updates
      before it uses). https://arxiv.org/abs/1402.0030
    """
    if jnp.shape(baseline) != ():
        raise ValueError(
            f"nvil: baseline must be one scalar, of shape (); got shape {jnp.shape(baseline)}"
            " (one for each example is a jax.vmap over this estimator)"
        )
    draws = draw_samples(key, dist, num_samples)
    values, aux = evaluate("nvil", f, draws, has_aux)
    baseline = jnp.asarray(baseline, float)
    center = state.mean.mean()
    signal = lax.stop_gradient(values).astype(center.dtype) - lax.stop_gradient(baseline).astype(center.dtype)
    share = 1 / jnp.maximum(jnp.sqrt(state.variance.mean()), 1) if normalise else jnp.ones_like(center)
    share = lax.stop_gradient(share).astype(values.dtype)
    whole = jnp.broadcast_to((lax.stop_gradient(baseline) + center).astype(values.dtype), values.shape)
    scored = with_score(dist, draws, values, whole)
    value = jnp.mean(share * scored + (1 - share) * values)
    slope = jnp.mean(2 * (center - signal)).astype(baseline.dtype)
    value = with_gradient(value, baseline, slope, name="nvil")
    return estimate_of(value, aux, has_aux), updated(state, signal, decay)


def updated(state: LearningSignal, signal: Any, decay: ScalarLike) -> LearningSignal:
    """The state after this step's signals."""
    # The first of them have no mean before them but their own.
    center = jnp.where(state.mean.weight > 0, state.mean.mean(), jnp.mean(signal))
    return LearningSignal(
        state.mean.update(jnp.mean(signal), decay=decay),
        state.variance.update(jnp.mean((signal - center) ** 2), decay=decay),
    )
