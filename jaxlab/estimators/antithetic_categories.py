r"""An estimator for categories whose draws are mutually antithetic, row by row.

Two draws of a row tell something about its logits only where they differ. Uniforms that keep apart make them differ
more often than independent ones do, and each pair is weighted by how much more often.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from jaxlab import _check
from jaxlab.distributions import Categorical
from jaxlab.estimators.contract import Estimate, estimate_of, estimator, evaluate
from jaxlab.estimators.coupled import antithetic_log_uniforms
from jaxlab.estimators.coupled_categories import finite_logits
from jaxlab.gradients import with_gradient

__all__ = ["carms"]


def at(values: Shaped[Array, "*shape k"], places: Int[Array, "n *shape"]) -> Shaped[Array, "n *shape"]:
    """For each draw, the value at its place along the last axis."""
    every = jnp.broadcast_to(values, (*places.shape, values.shape[-1]))
    return jnp.take_along_axis(every, places[..., None], -1)[..., 0]


def both_below(
    first: Float[Array, "*shape"], second: Float[Array, "*shape"], num_samples: int
) -> Float[Array, "*shape"]:
    r"""Of two antithetic uniforms :math:`\mathrm P(u < x, u' < y) = \max(x^{1/(n-1)} + y^{1/(n-1)} - 1, 0)^{n-1}`."""
    root = 1 / (num_samples - 1)
    return jnp.maximum(first**root + second**root - 1, 0) ** (num_samples - 1)


def weights_of_pairs(
    probabilities: Float[Array, "*shape k"],
    places: Int[Array, "n *shape"],
    independent: Float[Array, ""],
) -> Float[Array, "n n *shape"]:
    """The probability of two independent draws of a row, over that of the coupled ones; 0 where they are alike."""
    num_samples = len(places)
    above = jnp.clip(jnp.cumsum(probabilities, -1), 0, 1).at[..., -1].set(1)
    below = jnp.concatenate([jnp.zeros_like(above[..., :1]), above[..., :-1]], -1)
    chance, upper, lower = (at(values, places) for values in (probabilities, above, below))

    def corner(first: Array, second: Array) -> Array:
        one, other = jnp.broadcast_arrays(first[:, None], second[None])
        return both_below(one, other, num_samples)

    # The four corners of the pair's cell; what rounding leaves of an impossible one must not become negative.
    cell = corner(upper, upper) - corner(lower, upper) - corner(upper, lower) + corner(lower, lower)
    product = chance[:, None] * chance[None]
    mixture = (1 - independent) * jnp.maximum(cell, 0) + independent * product
    differ = (places[:, None] != places[None]) & (product > 0)
    return jnp.where(differ, product / jnp.where(differ, mixture, 1), 0)


@estimator(
    needs=Categorical,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
    tunable=("independent",),
)
def carms(
    key: PRNGKeyArray,
    dist: Categorical,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 4,
    independent: Float[Array, ""] | float = 0.25,
    has_aux: bool = False,
) -> Estimate:
    r"""CARMS with a defensive mixture: n antithetic draws, each pair weighted for its coupling, row by row.

    .. math:: \nabla_{\phi_d} := \frac{1}{n (n - 1)} \sum_{k \ne l} r_{kl}\, \big(f(z_k) - f(z_l)\big)\,
              (z_{kd} - \pi_d) + \nabla_{\phi_d} f, \qquad
              r_{kl} = \frac{\pi_a \pi_b}{(1 - \epsilon)\, \mathrm P(a, b) + \epsilon\, \pi_a \pi_b}

    with :math:`\pi` the row's probabilities, a and b its categories in the two draws, and :math:`r_{kl} = 0` where they
    are alike. A row's n draws come from uniforms that keep apart as in :func:`arms`, by the inverse of its distribution
    function with the likeliest category first, and :math:`\mathrm P(a, b)` is the probability of the pair under these;
    with probability :math:`\epsilon` they are independent instead.

    Why it is unbiased: given the pair (a, b) of row d, the other rows have their own law in either draw, however these
    two are coupled, so that the mean of the pair's term is the exact difference of a from b; the weights make pairs
    occur as often as independent ones. For that every pair must be possible. Under antithetic uniforms alone some are
    not, and their weights, if clipped, are biased; the mixture bounds the weights by :math:`1 / \epsilon`.

    Args:
      key: consumed.
      dist: Categorical.
      f: cost of one draw.
      num_samples: n, at least 2. With 2 draws the coupling excludes so many pairs that leave-one-out is often better;
        from 3 on this has less variance.
      independent: :math:`\epsilon`, above 0 and at most 1; at 1 the draws are independent, and this is leave-one-out
        without the noise of rows that agree.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased, first order only: a second derivative raises TypeError. ``independent`` has none.

    Raises:
      TypeError, ValueError: for a key, distribution, f, ``num_samples`` or ``independent`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Categorical
      >>> def loss(logits):
      ...     return estimators.carms(jax.random.key(0), Categorical(logits), lambda z: 1e3 + 0 * z.sum())
      >>> jax.grad(loss)(jnp.zeros(3)).tolist()  # a constant f has no gradient
      [0.0, 0.0, 0.0]

    Reference:
      Dimitriev, Zhou, "CARMS: Categorical-Antithetic-REINFORCE Multi-Sample Gradient Estimator", 2021 (the weights of
      pairs; there without the mixture); Hesterberg, "Weighted Average Importance Sampling and Defensive Mixture
      Distributions", 1995. https://arxiv.org/abs/2110.14002
    """
    _check.positive("carms", "independent", independent)
    _check.within("carms", "independent", independent, 0, 1)
    logits = finite_logits(dist)
    share = jax.lax.stop_gradient(jnp.asarray(independent, logits.dtype))
    order = jnp.argsort(-logits, -1)
    probabilities = jax.nn.softmax(logits, -1)
    sorted_probabilities = jnp.take_along_axis(probabilities, order, -1)
    places = coupled_places(key, sorted_probabilities, num_samples, share)
    codes = at(order, places)
    draws = jax.nn.one_hot(codes, logits.shape[-1], dtype=logits.dtype)
    values, aux = evaluate("carms", f, draws.astype(dist.logits.dtype), has_aux)
    differences = (values[:, None] - values[None]).astype(logits.dtype)
    weights = weights_of_pairs(sorted_probabilities, places, share)
    signals = jnp.einsum("kl,kl...->k...", differences, weights, precision="highest")
    signals = signals / (num_samples * (num_samples - 1))
    gradient = jnp.sum(signals[..., None] * (draws - probabilities[None]), 0).astype(dist.logits.dtype)
    return estimate_of(with_gradient(jnp.mean(values), dist.logits, gradient, name="carms"), aux, has_aux)


def coupled_places(
    key: PRNGKeyArray, probabilities: Float[Array, "*shape k"], num_samples: int, independent: Float[Array, ""]
) -> Int[Array, "n *shape"]:
    """For each row n places by the inverse of its distribution function, at uniforms that keep apart or do not."""
    antithetic_key, independent_key, choice_key = jax.random.split(key, 3)
    shape, dtype = probabilities.shape[:-1], probabilities.dtype
    together: Bool[Array, "*shape"] = jax.random.uniform(choice_key, shape, dtype) >= independent
    apart = jnp.exp(antithetic_log_uniforms(antithetic_key, num_samples, shape, dtype))
    uniforms = jnp.where(together[None], apart, jax.random.uniform(independent_key, (num_samples, *shape), dtype))
    passed = jnp.sum(uniforms[..., None] >= jnp.cumsum(probabilities, -1)[None], -1)
    # Where the sum of the probabilities is rounded to below 1, the last one that there is.
    return jnp.minimum(passed, jnp.sum(probabilities > 0, -1)[None] - 1)
