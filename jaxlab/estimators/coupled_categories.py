r"""Estimators for categories that draw them in coupled groups.

A category is drawn by a tree of binary decisions, whose bits are drawn in antithetic pairs as for
:func:`~jaxlab.estimators.disarm`; or by one Dirichlet variable, whose components are swapped.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxlab._precision import widen
from jaxlab.distributions import Categorical
from jaxlab.estimators.contract import Estimate, draw_each, estimate_of, estimator
from jaxlab.estimators.coupled import evaluate_groups, weigh
from jaxlab.gradients import with_gradient

__all__ = ["arsm", "disarm_stick_breaking", "disarm_tree"]


def finite_logits(dist: Categorical) -> Float[Array, "*shape k"]:
    """The logits as constants, with large numbers in place of infinite ones, so that no difference is NaN."""
    logits = widen(lax.stop_gradient(dist.logits))
    largest = jnp.finfo(logits.dtype).max / 4
    return jnp.clip(logits, -largest, largest)


def with_decisions(
    name: str,
    key: PRNGKeyArray,
    dist: Categorical,
    f: Callable[[Any], Any],
    num_samples: int,
    has_aux: bool,
    decision_logits: Callable[[Array], Array],
    follow: Callable[[Array], tuple[Array, Array]],
) -> Estimate:
    """The estimate from antithetic pairs of decisions.

    Args:
      name: of the estimator.
      key: consumed.
      dist: what to draw from.
      f: cost of one draw.
      num_samples: an even number.
      has_aux: whether f has auxiliary values.
      decision_logits: from the logits [..., k] to those of all decisions [..., m].
      follow: from the decisions [..., m] to the codes that they lead to, and which decisions were met on the way.
    """
    logits, pull_back = jax.vjp(decision_logits, finite_logits(dist))
    noise = draw_each(lambda key: jax.random.logistic(key, logits.shape, logits.dtype), key, num_samples // 2)
    decisions = jnp.stack([logits[None] + noise, logits[None] - noise], 1) > 0
    codes, met = follow(decisions)
    draws = jax.nn.one_hot(codes, dist.logits.shape[-1], dtype=dist.logits.dtype)
    values, aux = evaluate_groups(name, f, draws, has_aux)
    probabilities = jax.nn.sigmoid(logits)[None]
    first, second = decisions[:, 0].astype(logits.dtype), decisions[:, 1].astype(logits.dtype)
    # Met by both, a decision is one bit of DisARM; met by one, it has the other's cost for its baseline.
    by_both = (first - second) * jax.nn.sigmoid(jnp.abs(logits))[None]
    by_one = jnp.where(met[:, 0], first, -second) - jnp.where(met[:, 0], probabilities, -probabilities)
    directions = jnp.where(met[:, 0] & met[:, 1], by_both, jnp.where(met[:, 0] | met[:, 1], by_one, 0))
    (gradient,) = pull_back(0.5 * weigh(values[:, 0] - values[:, 1], directions))
    value = with_gradient(jnp.mean(values), dist.logits, gradient.astype(dist.logits.dtype), name=name)
    return estimate_of(value, aux, has_aux)


def places(decisions: Array) -> Int[Array, "..."]:
    """The number of each decision along the last axis."""
    return lax.broadcasted_iota(jnp.int32, decisions.shape, decisions.ndim - 1)


def stick_logits(logits: Float[Array, "*shape k"]) -> Float[Array, "*shape m"]:
    r"""Log-odds of stopping at each category once it is reached: :math:`\phi_i - \log\sum_{j > i} e^{\phi_j}`."""
    later = lax.cumlogsumexp(logits[..., 1:], axis=logits.ndim - 1, reverse=True)
    return logits[..., :-1] - later


@estimator(
    needs=Categorical,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
    samples_in_groups_of=2,
)
def disarm_stick_breaking(
    key: PRNGKeyArray,
    dist: Categorical,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    has_aux: bool = False,
) -> Estimate:
    r"""DisARM for categories, each drawn by a walk along them that stops at one.

    .. math:: \nabla_{s_i} := \tfrac12 \big(f(z) - f(z')\big) \cdot \begin{cases}
              (b_i - b'_i)\, \sigma(|s_i|) & \text{reached in both walks} \\
              b_i - \sigma(s_i) & \text{in the first alone} \\
              \sigma(s_i) - b'_i & \text{in the second alone} \end{cases}
              \qquad s_i = \phi_i - \log\sum_{j > i} e^{\phi_j}

    with b and b' an antithetic pair of bits at each category, of log-odds s, and z and z' the first ones in them; the
    chain rule gives the gradient for :math:`\phi`. For two categories it is :func:`disarm`. The walk begins at the
    likeliest category, so that it is short and both walks meet the same decisions.

    Args:
      key: consumed.
      dist: Categorical.
      f: cost of one draw.
      num_samples: n, even: n / 2 pairs, averaged.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, first order only: a second derivative raises TypeError.

    Raises:
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Categorical
      >>> def loss(logits):
      ...     category = Categorical(logits)
      ...     return estimators.disarm_stick_breaking(jax.random.key(0), category, lambda z: 1e3 + 0 * z.sum())
      >>> jax.grad(loss)(jnp.zeros(3)).tolist()  # a constant f has no gradient
      [0.0, 0.0, 0.0]

    Reference:
      Dong, Mnih, Tucker, "Coupled Gradient Estimators for Discrete Latent Variables", 2021.
      https://arxiv.org/abs/2106.08056
    """
    order = jnp.argsort(-finite_logits(dist), -1)

    def decision_logits(logits: Array) -> Array:
        return stick_logits(jnp.take_along_axis(logits, order, -1))

    def follow(stops: Array) -> tuple[Array, Array]:
        place = jnp.argmax(jnp.concatenate([stops, jnp.ones((*stops.shape[:-1], 1), bool)], -1), -1).astype(jnp.int32)
        met = places(stops) <= place[..., None]
        all_orders = jnp.broadcast_to(order, (*stops.shape[:-1], order.shape[-1]))
        return jnp.sum(jnp.where(places(all_orders) == place[..., None], all_orders, 0), -1), met

    return with_decisions("disarm_stick_breaking", key, dist, f, num_samples, has_aux, decision_logits, follow)


def branch_logits(logits: Float[Array, "*shape k"]) -> Float[Array, "*shape m"]:
    """Log-odds of the left half of the leaves at each node of the balanced tree, the root first, level by level."""
    num_categories = logits.shape[-1]
    depth = (num_categories - 1).bit_length()
    missing = [(0, 0)] * (logits.ndim - 1) + [(0, 2**depth - num_categories)]
    sums = jnp.pad(logits, missing, constant_values=-jnp.finfo(logits.dtype).max / 4)
    levels = []
    for _ in range(depth):
        left, right = sums[..., 0::2], sums[..., 1::2]
        levels.append(left - right)
        sums = jnp.logaddexp(left, right)
    return jnp.concatenate([*levels[::-1], sums[..., :0]], -1)


def descend(left: Array, depth: int) -> tuple[Int[Array, "..."], Array]:
    """The leaf that the decisions lead to from the root, and which of them were met."""
    node = jnp.zeros(left.shape[:-1], jnp.int32)
    met = []
    for level in range(depth):
        here = left[..., 2**level - 1 : 2 ** (level + 1) - 1]
        met.append(places(here) == node[..., None])
        # By comparison and not by index: single numbers, gathered, cost a TPU far more memory.
        node = 2 * node + 1 - jnp.any(met[-1] & here, -1).astype(jnp.int32)
    return node, jnp.concatenate([*met, left[..., :0]], -1)


@estimator(
    needs=Categorical,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
    samples_in_groups_of=2,
)
def disarm_tree(
    key: PRNGKeyArray,
    dist: Categorical,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    has_aux: bool = False,
) -> Estimate:
    r"""DisARM for categories, each drawn by a walk down a balanced binary tree.

    .. math:: \nabla_{s_i} := \tfrac12 \big(f(z) - f(z')\big) \cdot \begin{cases}
              (b_i - b'_i)\, \sigma(|s_i|) & \text{met in both walks} \\
              b_i - \sigma(s_i) & \text{in the first alone} \\
              \sigma(s_i) - b'_i & \text{in the second alone} \end{cases}

    with b and b' an antithetic pair of bits at each node, of log-odds
    :math:`s_i = \log\sum_{\mathrm{left}} e^\phi - \log\sum_{\mathrm{right}} e^\phi`. A walk meets :math:`\log_2 k`
    decisions, where one by :func:`disarm_stick_breaking` may meet k - 1. Neighbouring categories share most of their
    way.

    Args:
      key: consumed.
      dist: Categorical.
      f: cost of one draw.
      num_samples: n, even: n / 2 pairs, averaged.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, first order only: a second derivative raises TypeError.

    Raises:
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Categorical
      >>> def loss(logits):
      ...     return estimators.disarm_tree(jax.random.key(0), Categorical(logits), lambda z: 1e3 + 0 * z.sum())
      >>> jax.grad(loss)(jnp.zeros(3)).tolist()  # a constant f has no gradient
      [0.0, 0.0, 0.0]

    Reference:
      Dong, Mnih, Tucker, "Coupled Gradient Estimators for Discrete Latent Variables", 2021.
      https://arxiv.org/abs/2106.08056
    """
    depth = (dist.logits.shape[-1] - 1).bit_length()
    return with_decisions(
        "disarm_tree", key, dist, f, num_samples, has_aux, branch_logits, lambda left: descend(left, depth)
    )


def num_swaps(dist: Categorical) -> int:
    """How many ways there are to swap two categories, or none."""
    num_categories = dist.logits.shape[-1]
    return num_categories * (num_categories - 1) // 2 + 1


def swaps(num_categories: int) -> tuple[Int[Array, "m"], Int[Array, "m"], Int[Array, "k k"]]:
    """Both categories of each swap (the first one swaps nothing), and at [c, j] the number of that of c and j."""
    pairs = [(0, 0), *itertools.combinations(range(num_categories), 2)]
    numbers = [[0] * num_categories for _ in range(num_categories)]
    for number, (one, other) in enumerate(pairs):
        numbers[one][other] = numbers[other][one] = number
    return *jnp.array(pairs, jnp.int32).T, jnp.array(numbers, jnp.int32)


def swapped_codes(
    logits: Float[Array, "k"], noise: Float[Array, "k"], one: Int[Array, "m"], other: Int[Array, "m"]
) -> Int[Array, "m"]:
    """The argmax of logits less noise after each swap of the noise of two categories, the first on ties.

    It is one of these two, or the best of the others: the best or second best of all, for if these two are swapped,
    their sum stays, and one of them is no worse than the second was. So k^2 numbers a row are made, not k^3.
    """
    num_categories = logits.shape[0]
    candidates = [(logits[one] - noise[other], one), (logits[other] - noise[one], other)]
    for value, code in zip(*lax.top_k(logits - noise, min(2, num_categories)), strict=True):
        candidates.append((jnp.where((code == one) | (code == other), -jnp.inf, value), code))
    best = functools.reduce(jnp.maximum, [value for value, _ in candidates])
    firsts = [jnp.where(value == best, code, num_categories - 1) for value, code in candidates]
    return functools.reduce(jnp.minimum, firsts)


@estimator(
    needs=Categorical,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples * num_swaps(dist),
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=1,
)
def arsm(
    key: PRNGKeyArray,
    dist: Categorical,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    has_aux: bool = False,
) -> Estimate:
    r"""ARSM (augment-REINFORCE-swap-merge): one Dirichlet variable for each row, and all swaps of two categories in it.

    .. math:: \nabla_{\phi_{dc}} := \sum_j \Big(f(z^{c \leftrightarrow j})
              - \frac1k \sum_m f(z^{m \leftrightarrow j})\Big) \Big(\frac1k - \pi_{dj}\Big) + \nabla_{\phi_{dc}} f,
              \qquad z^{c \leftrightarrow j}_d = \arg\min_i \big(\log \pi^{c \leftrightarrow j}_{di} - \phi_{di}\big)

    with :math:`\pi_d` flat Dirichlet; the same two categories are swapped in all rows. For two categories it is
    :func:`arm`. Low variance, for k (k - 1) / 2 + 1 evaluations of f.

    Args:
      key: consumed.
      dist: Categorical.
      f: cost of one draw.
      num_samples: n, at least 1: how many Dirichlet variables.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f, the mean over all swaps; with ``has_aux`` also the auxiliary values,
      with a first axis of n (k (k - 1) / 2 + 1).

    Gradient:
      Unbiased, first order only: a second derivative raises TypeError.

    Raises:
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Categorical
      >>> def loss(logits):
      ...     return estimators.arsm(jax.random.key(0), Categorical(logits), lambda z: 1e3 + 0 * z.sum())
      >>> jax.grad(loss)(jnp.zeros(3)).tolist()  # a constant f has no gradient
      [0.0, 0.0, 0.0]

    Reference:
      Yin, Yue, Zhou, "ARSM: Augment-REINFORCE-Swap-Merge Estimator for Gradient Backpropagation Through Categorical
      Variables", 2019. https://arxiv.org/abs/1905.01413
    """
    logits = finite_logits(dist)
    num_categories = logits.shape[-1]
    one, other, numbers = swaps(num_categories)
    exponentials = draw_each(
        lambda key: jax.random.exponential(key, logits.shape, logits.dtype), key, num_samples
    )  # the least of them over e^phi is the draw, the shares of their sum are Dirichlet
    of_row = functools.partial(swapped_codes, one=one, other=other)
    codes = jnp.vectorize(of_row, signature="(k),(k)->(m)")(logits[None], jnp.log(exponentials))
    draws = jax.nn.one_hot(jnp.moveaxis(codes, -1, 1), num_categories, dtype=dist.logits.dtype)  # [n, swaps, *shape, k]
    values, aux = evaluate_groups("arsm", f, draws, has_aux)
    of_swap = widen(values)[:, numbers]  # [n, c, j]
    signals = of_swap - jnp.mean(of_swap, 1, keepdims=True)
    shares = exponentials / jnp.sum(exponentials, -1, keepdims=True)
    gradient = jnp.einsum("ncj,n...j->...c", signals, 1 / num_categories - shares, precision="highest")
    gradient = gradient / num_samples
    # What is certain or impossible stays so: its noise has mean zero, and is none.
    probabilities = jax.nn.softmax(logits, -1)
    gradient = jnp.where((probabilities > 0) & (probabilities < 1), gradient, 0).astype(dist.logits.dtype)
    return estimate_of(with_gradient(jnp.mean(values), dist.logits, gradient, name="arsm"), aux, has_aux)
