r"""Score-function estimators: they ask nothing of f but its value, and work for whatever has a log-probability.

.. math:: \nabla \mathbb E_{p_\phi} f = \mathbb E\big[(f(x) - B)\, \nabla\log p_\phi(x) + \nabla f(x)\big]

for every baseline B that is independent of x. Each value here is made of magic boxes, so derivatives of every order
are unbiased, also where f itself contains estimators.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab import _check
from jaxlab.distributions import Scored
from jaxlab.estimators.contract import Estimate, draw_samples, estimate_of, estimator, evaluate, for_each
from jaxlab.gradients import magic_box
from jaxlab.moments import MovingAverage, moving_average

__all__ = ["leave_one_out", "reinforce", "reinforce_moving_average"]


def with_score(dist: Scored, draws: Any, values: Float[Array, "n"], baselines: Float[Array, "n"]) -> Float[Array, "n"]:
    r"""The same values, whose derivatives are those of their expectation: :math:`f \square + (1 - \square) B`."""
    box = magic_box(for_each(dist.log_prob, draws)).astype(values.dtype)
    return values * box + (1 - box) * lax.stop_gradient(baselines)


def with_baseline(
    name: str,
    key: PRNGKeyArray,
    dist: Scored,
    f: Callable[[Any], Any],
    baseline: ScalarLike,
    num_samples: int,
    has_aux: bool,
) -> tuple[Float[Array, ""], Any]:
    """The mean of f over draws, with its score-function derivatives, and the auxiliary values."""
    draws = draw_samples(key, dist, num_samples)
    values, aux = evaluate(name, f, draws, has_aux)
    baselines = jnp.broadcast_to(jnp.asarray(baseline, values.dtype), values.shape)
    return jnp.mean(with_score(dist, draws, values, baselines)), aux


def evaluate_spread(
    name: str, f: Callable[[Any], Any], draws: Any, num_samples: int, axis_name: str, has_aux: bool
) -> tuple[Float[Array, "n"], Any]:
    """The values of f at all draws, each computed by one member of the axis; and this member's auxiliary values."""
    num_members = lax.axis_size(axis_name)
    _check.multiple_of(name, "num_samples", num_samples, num_members)
    share = num_samples // num_members
    start = lax.axis_index(axis_name) * share
    own = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, share), draws)
    values, aux = evaluate(name, f, own, has_aux)
    # The numbers of all, in the order of the draws: every member adds them up in the same order.
    return lax.all_gather(values, axis_name, tiled=True), aux


@estimator(
    needs=Scored,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=1,
    tunable=("baseline",),
)
def reinforce(
    key: PRNGKeyArray,
    dist: Scored,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    baseline: ScalarLike = 0.0,
    has_aux: bool = False,
) -> Estimate:
    r"""The mean of f over draws, whose gradient is the score-function estimator (REINFORCE).

    .. math:: \frac1n \sum_k f(x_k), \qquad
       \nabla := \frac1n \sum_k (f(x_k) - B)\, \nabla\log p(x_k) + \nabla f(x_k), \qquad x_k \sim p

    Args:
      key: consumed.
      dist: any distribution that is Scored.
      f: cost of one draw; may close over parameters and may contain other estimators.
      num_samples: n, at least 1.
      baseline: B, in the unit of f: a constant, or anything that does not depend on these draws (the mean of earlier
        values, the output of a network). It is a constant to ``jax.grad``. Near the mean of f it lowers the variance.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, to every order, with respect to the parameters of ``dist`` and to all that f closes over. Its variance
      is large when f is far from ``baseline``.

    Raises:
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     return estimators.reinforce(
      ...         jax.random.key(0), Bernoulli(logits), lambda b: (b - 0.45) ** 2, num_samples=100_000
      ...     )
      >>> round(float(jax.grad(loss)(0.0)), 2)  # exactly 0.025
      0.03

    Reference:
      Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", 1992,
      theorem 1, https://doi.org/10.1007/BF00992696; for the form with the magic box, Foerster et al., "DiCE", 2018.
      https://arxiv.org/abs/1802.05098
    """
    if jnp.shape(baseline) != ():
        raise ValueError(
            f"reinforce: baseline must be one scalar, of shape (); got shape {jnp.shape(baseline)}"
            " (one for each example is a jax.vmap over this estimator)"
        )
    value, aux = with_baseline("reinforce", key, dist, f, baseline, num_samples, has_aux)
    return estimate_of(value, aux, has_aux)


@estimator(
    needs=Scored,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=1,
    tunable=("decay",),
    initial_state=moving_average,
)
def reinforce_moving_average(
    key: PRNGKeyArray,
    dist: Scored,
    f: Callable[[Any], Any],
    state: MovingAverage,
    *,
    num_samples: int = 1,
    decay: ScalarLike = 0.99,
    has_aux: bool = False,
) -> tuple[Estimate, MovingAverage]:
    r"""REINFORCE with the moving average of *earlier* values as its baseline.

    .. math:: B_t = \bar f_{t-1}, \qquad \bar f_t = \text{average of } f \text{ up to step } t

    The average is used before it is updated. Were this step's value in it, the gradient would shrink by
    :math:`1 - (1 - d) / n`, and with one draw at the first step it would be exactly zero.

    Args:
      key: consumed.
      dist: any distribution that is Scored.
      f: cost of one draw.
      state: ``moments.moving_average()`` at the start, then what the last call returned.
      num_samples: n, at least 1.
      decay: share of the old average that stays, in [0, 1).
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      The estimate as :func:`reinforce` gives it, and the state for the next step (so ``jax.grad`` of a function that
      returns both takes ``has_aux=True``). For a minibatch, ``jax.vmap`` :func:`reinforce` with
      ``baseline=state.mean()`` and ``state.update`` the batch's mean value once: the average is then one for all.

    Gradient:
      Unbiased, to every order.

    Raises:
      TypeError, ValueError: as :func:`reinforce`; ValueError also for a Python ``decay`` outside [0, 1).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators, moments
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits, state):
      ...     return estimators.reinforce_moving_average(
      ...         jax.random.key(0), Bernoulli(logits), lambda b: b.sum() + 10, state
      ...     )
      >>> gradient, state = jax.grad(loss, has_aux=True)(jnp.zeros(2), moments.moving_average())
      >>> bool(jnp.all(gradient != 0)), float(state.mean()) >= 10
      (True, True)

    Reference:
      Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", 1992,
      section 4, eq. (9) and (10) (reinforcement comparison). https://doi.org/10.1007/BF00992696
    """
    value, aux = with_baseline("reinforce_moving_average", key, dist, f, state.mean(), num_samples, has_aux)
    return estimate_of(value, aux, has_aux), state.update(lax.stop_gradient(value), decay=decay)


@estimator(
    needs=Scored,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
)
def leave_one_out(
    key: PRNGKeyArray,
    dist: Scored,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    axis_name: str | None = None,
    has_aux: bool = False,
) -> Estimate:
    r"""REINFORCE in which the baseline of each draw is the mean of f over the other draws (RLOO, VarGrad).

    .. math:: \nabla := \frac1n \sum_k \Big(f(x_k) - \frac1{n-1} \sum_{j \ne k} f(x_j)\Big)\, \nabla\log p(x_k)
                        + \nabla f(x_k)

    The first term is the sample covariance of f and the score. There is nothing to tune.

    Args:
      key: consumed.
      dist: any distribution that is Scored.
      f: cost of one draw.
      num_samples: n, at least 2.
      axis_name: a mapped axis (of ``jax.shard_map`` or ``jax.vmap``) over whose m members the draws are spread, n / m
        to each, so that f is evaluated where its draw is. The key and the parameters of ``dist`` are the same for all
        members, and so is the result. It does not depend on m: value and gradient for ``dist`` are the same bits (if m
        is a power of 2, and f is, whatever its batch), the gradient for what f closes over is the same up to rounding.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n
      (or of n / m, this member's).

    Gradient:
      Unbiased, to every order, and unchanged by adding a constant to f.

    Raises:
      ValueError: if ``num_samples`` is no multiple of the size of ``axis_name``.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     return estimators.leave_one_out(jax.random.key(0), Bernoulli(logits), lambda b: 1e3 + 0 * b.sum())
      >>> jax.grad(loss)(jnp.zeros(2)).tolist()  # a constant f has no gradient
      [0.0, 0.0]

    Reference:
      Salimans, Knowles, "On Using Control Variates with Stochastic Approximation for Variational Bayes and its
      Connection to Stochastic Linear Regression", 2014, https://arxiv.org/abs/1401.1022; Kool, van Hoof, Welling,
      "Buy 4 REINFORCE Samples, Get a Baseline for Free!", 2019. https://openreview.net/forum?id=r1lgTGL5DE
    """
    draws = draw_samples(key, dist, num_samples)
    if axis_name is None:
        values, aux = evaluate("leave_one_out", f, draws, has_aux)
    else:
        values, aux = evaluate_spread("leave_one_out", f, draws, num_samples, axis_name, has_aux)
    mean_of_others = (jnp.sum(values) - values) / (num_samples - 1)
    value = jnp.mean(with_score(dist, draws, values, mean_of_others))
    # Each member has the same value already. Their mean tells JAX so, and shares out the gradient.
    return estimate_of(value if axis_name is None else lax.pmean(value, axis_name), aux, has_aux)
