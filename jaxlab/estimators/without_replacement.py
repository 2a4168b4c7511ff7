r"""Estimators that never pay for the same value twice: draws without replacement from a listed support.

All log-probabilities of the support are computed (which is cheap), f only at the values drawn. A draw s of the set S
counts with a weight :math:`w_s` for which :math:`\mathbb E \sum_{s \in S} w_s h(s) = \mathbb E_p h` for every h; so
each of these is a sum of magic boxes with weights, right to every order.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxlab import gumbel
from jaxlab._precision import widen
from jaxlab.distributions import Enumerable
from jaxlab.estimators.contract import Estimate, estimate_of, estimator, evaluate
from jaxlab.gradients import magic_box

__all__ = ["gumbel_top_k_importance", "sum_and_sample", "unordered_set"]

MAXIMAL_SET = 10
# In place of 0: among impossible values the order of drawing still needs a law.
LEAST_PROBABILITY = 1e-30


def log_probs_of_support(name: str, dist: Enumerable, at_most: int, num_samples: int) -> tuple[Any, Float[Array, "k"]]:
    """All values and their log-probabilities; raises if fewer than ``num_samples`` (or it is above ``at_most``)."""
    support = dist.support()
    log_probs = widen(jax.vmap(dist.log_prob)(support))
    largest = min(at_most, len(log_probs) - 1)
    if num_samples > largest:
        raise ValueError(f"{name}: num_samples must be at most {largest} for this distribution; got {num_samples}")
    return support, log_probs


def take(support: Any, codes: Int[Array, "n"]) -> Any:
    """The values of the support at ``codes``."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, codes, 0), support)


def set_probabilities(probabilities: Float[Array, "n"], rest: Float[Array, ""]) -> Float[Array, "subsets"]:
    r"""For each subset of n values, the probability that it is what the first draws without replacement give.

    .. math:: F(\emptyset) = 1, \qquad
              F(B) = \sum_{i \in B} F(B \setminus i)\, \frac{p_i}{1 - \sum_{j \in B \setminus i} p_j}

    Subsets are numbered by their bits. ``rest`` is the probability of all other values, so that what is left after a
    subset is a sum of positive numbers and not a difference. A value of probability 0 may stand for one that is not
    there.
    """
    num_values = len(probabilities)
    full = 2**num_values - 1
    result = [jnp.ones_like(rest)]
    left = [rest + sum((probabilities[i] for i in range(num_values) if not b >> i & 1), 0 * rest) for b in range(full)]
    for subset in range(1, full + 1):
        terms = [
            result[subset ^ (1 << i)] * probabilities[i] / left[subset ^ (1 << i)]
            for i in range(num_values)
            if subset >> i & 1
        ]
        result.append(sum(terms[1:], terms[0]))
    return jnp.stack(result)


def leave_out_ratios(
    probabilities: Float[Array, "n"], rest: Float[Array, ""]
) -> tuple[Float[Array, "n"], Float[Array, "n n"]]:
    r"""The first- and second-order ratios :math:`R(S, s)` and :math:`R^{D \setminus s}(S, s')` of a set that was drawn.

    :math:`R(S, s) = p^{D \setminus s}(S \setminus s) / p(S)`; :math:`R^{D \setminus s}(S, s') = p^{D \setminus \{s,
    s'\}}(S \setminus \{s, s'\}) / p^{D \setminus s}(S \setminus s)`, and 1 for s' = s.
    """
    num_values = len(probabilities)
    full = 2**num_values - 1
    set_probability = set_probabilities(probabilities, rest)[full]

    def without(*left_out: int) -> Float[Array, ""]:
        # In a domain without some values the others are rescaled, and so is the rest.
        kept = [i for i in range(num_values) if i not in left_out]
        if not kept:
            return jnp.ones_like(rest)
        some = jnp.stack([probabilities[i] for i in kept])
        scale = rest + jnp.sum(some)
        return set_probabilities(some / scale, rest / scale)[-1]

    first = [without(s) for s in range(num_values)]
    second = [
        [without(s, t) / first[s] if s != t else jnp.ones_like(rest) for t in range(num_values)]
        for s in range(num_values)
    ]
    return jnp.stack(first) / set_probability, jnp.stack([jnp.stack(row) for row in second])


@estimator(
    needs=Enumerable,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
)
def unordered_set(
    key: PRNGKeyArray,
    dist: Enumerable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    has_aux: bool = False,
) -> Estimate:
    r"""The unordered set estimator: draws without replacement, each weighted over all orders in which it could have
    come.

    .. math:: \sum_{s \in S} p(s) R(S, s) f(s), \qquad
       \nabla := \sum_{s \in S} p(s) R(S, s) \Big(f(s) - \sum_{s' \in S} p(s') R^{D \setminus s}(S, s') f(s')\Big)
       \nabla\log p(s)
                 + \sum_{s \in S} p(s) R(S, s) \nabla f(s)

    It is the Rao-Blackwellisation, over the order of the draws, of leave-one-out without replacement.

    Args:
      key: consumed.
      dist: a distribution that is Enumerable; the whole event is one value, also if it has several sites.
      f: cost of one draw.
      num_samples: the size of S, from 2 to 10 and below the number of values; the work outside f doubles with each.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, to every order.

    Raises:
      ValueError: if ``num_samples`` is out of its range, or there are more than 2 ** 20 values.
      TypeError, ValueError: for a key, distribution or f that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Categorical
      >>> def loss(logits):
      ...     return estimators.unordered_set(jax.random.key(0), Categorical(logits), lambda z: 1e3 + 0 * z.sum())
      >>> bool(jnp.all(jnp.abs(jax.grad(loss)(jnp.zeros(5))) < 0.01))  # next to nothing for a constant f
      True

    Reference:
      Kool, van Hoof, Welling, "Estimating Gradients for Discrete Random Variables by Sampling without Replacement",
      2020. https://arxiv.org/abs/2002.06043
    """
    support, log_probs = log_probs_of_support("unordered_set", dist, MAXIMAL_SET, num_samples)
    fixed = lax.stop_gradient(log_probs)
    codes = gumbel.gumbel_top_k(key, fixed, num_samples=num_samples).codes
    values, aux = evaluate("unordered_set", f, take(support, codes), has_aux)
    chosen = jnp.put_along_axis(jnp.zeros(fixed.shape, bool), codes, True, axis=0, inplace=False)
    possible = jnp.maximum(jnp.exp(fixed), LEAST_PROBABILITY)
    probabilities, rest = possible[codes], jnp.sum(jnp.where(chosen, 0, possible))
    first, second = leave_out_ratios(probabilities, rest)
    weights = (probabilities * first).astype(values.dtype)
    wide = widen(values)
    terms = probabilities.astype(wide.dtype) * wide
    baselines = jnp.matmul(second.astype(wide.dtype), terms, precision="highest")
    baselines = lax.stop_gradient(baselines.astype(values.dtype))
    box = magic_box(log_probs[codes]).astype(values.dtype)
    return estimate_of(jnp.sum(weights * (values * box + (1 - box) * baselines)), aux, has_aux)


@estimator(
    needs=Enumerable,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=1,
)
def gumbel_top_k_importance(
    key: PRNGKeyArray,
    dist: Enumerable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    has_aux: bool = False,
) -> Estimate:
    r"""REINFORCE without replacement, each draw weighted by its chance to be among the top perturbed logits.

    .. math:: \sum_{s \in S} \frac{p(s)}{q_\kappa(s)} f(s), \qquad q_\kappa(s) = 1 - \exp(-e^{\log p(s) - \kappa})

    with :math:`\kappa` the largest perturbed logit outside of S. Cheap for any number of draws; :func:`unordered_set`
    has the lower variance for few.

    Args:
      key: consumed.
      dist: a distribution that is Enumerable; the whole event is one value, also if it has several sites.
      f: cost of one draw. The weights do not sum to one, so a constant in f costs variance.
      num_samples: the size of S, at least 1 and below the number of values.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, to every order.

    Raises:
      ValueError: if ``num_samples`` is out of its range, or there are more than 2 ** 20 values.
      TypeError, ValueError: for a key, distribution or f that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Categorical
      >>> def loss(logits):
      ...     return estimators.gumbel_top_k_importance(jax.random.key(0), Categorical(logits), lambda z: z @ z)
      >>> jax.grad(loss)(jnp.zeros(5)).shape
      (5,)

    Reference:
      Kool, van Hoof, Welling, "Stochastic Beams and Where to Find Them", 2019. https://arxiv.org/abs/1903.06059
    """
    name = "gumbel_top_k_importance"
    support, log_probs = log_probs_of_support(name, dist, 2**20, num_samples)
    fixed = lax.stop_gradient(log_probs)
    drawn = gumbel.gumbel_top_k(key, fixed, num_samples=num_samples + 1)
    codes, threshold = drawn.codes[:-1], drawn.perturbed[-1]
    values, aux = evaluate(name, f, take(support, codes), has_aux)
    inclusion = -jnp.expm1(-jnp.exp(fixed[codes] - threshold))
    weights = (jnp.exp(fixed[codes]) / inclusion).astype(values.dtype)
    box = magic_box(log_probs[codes]).astype(values.dtype)
    return estimate_of(jnp.sum(weights * values * box), aux, has_aux)


@estimator(
    needs=Enumerable,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
)
def sum_and_sample(
    key: PRNGKeyArray,
    dist: Enumerable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    has_aux: bool = False,
) -> Estimate:
    r"""Sums over the likeliest values, and draws one of the others.

    .. math:: \sum_{s \in C} p(s) f(s) + (1 - P_C)\, f(x), \qquad x \sim p(\cdot \mid x \notin C)

    with C the n - 1 likeliest values. Good where a few values carry most of the probability.

    Args:
      key: consumed.
      dist: a distribution that is Enumerable; the whole event is one value, also if it has several sites.
      f: cost of one draw.
      num_samples: n evaluations of f, at least 2 and below the number of values.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, to every order.

    Raises:
      ValueError: if ``num_samples`` is out of its range, or there are more than 2 ** 20 values.
      TypeError, ValueError: for a key, distribution or f that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Categorical
      >>> def loss(logits):
      ...     return estimators.sum_and_sample(jax.random.key(0), Categorical(logits), lambda z: z @ z, num_samples=3)
      >>> jax.grad(loss)(jnp.zeros(5)).shape
      (5,)

    Reference:
      Liu, Regier, Tripuraneni, Jordan, McAuliffe, "Rao-Blackwellized Stochastic Gradients for Discrete Distributions",
      2019. https://arxiv.org/abs/1810.04777
    """
    support, log_probs = log_probs_of_support("sum_and_sample", dist, 2**20, num_samples)
    fixed = lax.stop_gradient(log_probs)
    _, likeliest = lax.top_k(fixed, num_samples - 1)
    summed = jnp.put_along_axis(jnp.zeros(fixed.shape, bool), likeliest, True, axis=0, inplace=False)
    one = gumbel.gumbel_max(key, jnp.where(summed, -jnp.inf, fixed))
    values, aux = evaluate(
        "sum_and_sample", f, take(support, jnp.append(likeliest, one.astype(likeliest.dtype))), has_aux
    )
    log_rest = jax.nn.logsumexp(jnp.where(summed, -jnp.inf, log_probs))
    # The draw's own law is p / (1 - P): its box carries that, its weight the rest's probability, both differentiable.
    box = magic_box(log_probs[one] - log_rest)
    weights = jnp.append(jnp.exp(log_probs[likeliest]), jnp.exp(log_rest) * box).astype(values.dtype)
    return estimate_of(jnp.sum(weights * values), aux, has_aux)
