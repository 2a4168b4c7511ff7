r"""Estimators for bits that draw them in antithetic groups: far apart, each with the right law, none of them
independent.

With :math:`\theta = \sigma(\phi)` and u uniform, the two draws of a pair are :math:`1[u > 1 - \theta]` and
:math:`1[u < \theta]`. Where they differ, the difference of their costs tells the sign of the slope; where they agree, a
coordinate learns nothing from this pair and gets nothing. All formulas are gradients with respect to the logits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab._precision import widen
from jaxlab.distributions import Bernoulli
from jaxlab.estimators.contract import Estimate, draw_each, estimate_of, estimator, evaluate
from jaxlab.gradients import with_gradient

__all__ = ["arm", "arms", "disarm"]


def evaluate_groups(
    name: str, f: Callable[[Any], Any], draws: Float[Array, "groups n *shape"], has_aux: bool
) -> tuple[Float[Array, "groups n"], Any]:
    """The values of f at draws that come in groups; auxiliary values have one first axis over all draws."""
    groups, size, *shape = draws.shape
    values, aux = evaluate(name, f, draws.reshape(groups * size, *shape), has_aux)
    return values.reshape(groups, size), aux


def weigh(weights: Float[Array, "n"], directions: Float[Array, "n *shape"]) -> Float[Array, "*shape"]:
    """The mean over the first axis of ``weights * directions``, in at least float32."""
    return jnp.tensordot(widen(weights), widen(directions), 1, precision="highest") / weights.size


def antithetic_pairs(
    key: PRNGKeyArray, dist: Bernoulli, num_pairs: int
) -> tuple[Float[Array, "pairs 2 *shape"], Float[Array, "pairs *shape"]]:
    """Pairs of bits, and the logistic noise (the log-odds of u) they were made of."""
    logits = widen(jax.lax.stop_gradient(dist.logits))
    noise = draw_each(lambda key: jax.random.logistic(key, logits.shape, logits.dtype), key, num_pairs)
    perturbed = jnp.stack([logits[None] + noise, logits[None] - noise], 1)
    return (perturbed > 0).astype(dist.logits.dtype), noise


@estimator(
    needs=Bernoulli,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
    samples_in_groups_of=2,
)
def arm(
    key: PRNGKeyArray,
    dist: Bernoulli,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    has_aux: bool = False,
) -> Estimate:
    r"""Augment-REINFORCE-merge: the noise itself is the direction.

    .. math:: \nabla_\phi := \big(f(b) - f(b')\big)\, (u - \tfrac12) + \nabla f, \qquad
              b = 1[u > 1 - \theta], \quad b' = 1[u < \theta]

    :func:`disarm` is its expectation over u given the bits, with less variance at the same cost.

    Args:
      key: consumed.
      dist: Bernoulli.
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
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     return estimators.arm(jax.random.key(0), Bernoulli(logits), lambda b: 1e3 + 0 * b.sum())
      >>> jax.grad(loss)(jnp.zeros(2)).tolist()  # a constant f has no gradient
      [0.0, 0.0]

    Reference:
      Yin, Zhou, "ARM: Augment-REINFORCE-Merge Gradient for Stochastic Binary Networks", 2019.
      https://arxiv.org/abs/1807.11143
    """
    draws, noise = antithetic_pairs(key, dist, num_samples // 2)
    values, aux = evaluate_groups("arm", f, draws, has_aux)
    gradient = weigh(values[:, 0] - values[:, 1], jax.nn.sigmoid(noise) - 0.5)
    gradient = gradient.astype(dist.logits.dtype)
    return estimate_of(with_gradient(jnp.mean(values), dist.logits, gradient, name="arm"), aux, has_aux)


@estimator(
    needs=Bernoulli,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
    samples_in_groups_of=2,
)
def disarm(
    key: PRNGKeyArray,
    dist: Bernoulli,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 2,
    has_aux: bool = False,
) -> Estimate:
    r"""DisARM (U2G): the difference of an antithetic pair, where the bits differ.

    .. math:: \nabla_{\phi_i} := \tfrac12 \big(f(b) - f(b')\big)\, (b_i - b'_i)\, \sigma(|\phi_i|) + \nabla_{\phi_i} f

    (the factor is :math:`\sigma(|\phi|)`; with :math:`\sigma(\phi)` in its place the gradient is biased by half its
    size).

    Args:
      key: consumed.
      dist: Bernoulli.
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
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logit):
      ...     return estimators.disarm(jax.random.key(0), Bernoulli(logit), lambda b: (b - 0.45) ** 2)
      >>> round(float(jax.grad(loss)(jnp.array(0.0))), 6)  # one bit at logit 0: no variance at all
      0.025

    Reference:
      Dong, Mnih, Tucker, "DisARM: An Antithetic Gradient Estimator for Binary Latent Variables", 2020; Yin, Ho, Yan,
      Qian, Zhou, "Probabilistic Best Subset Selection via Gradient-Based Optimization" (U2G), 2020.
      https://arxiv.org/abs/2006.10680
    """
    draws, _ = antithetic_pairs(key, dist, num_samples // 2)
    values, aux = evaluate_groups("disarm", f, draws, has_aux)
    direction = weigh(values[:, 0] - values[:, 1], draws[:, 0] - draws[:, 1])
    gradient = (0.5 * direction * jax.nn.sigmoid(jnp.abs(widen(dist.logits)))).astype(dist.logits.dtype)
    return estimate_of(with_gradient(jnp.mean(values), dist.logits, gradient, name="disarm"), aux, has_aux)


def antithetic_log_uniforms(
    key: PRNGKeyArray, num_samples: int, shape: tuple[int, ...], dtype: Any
) -> Float[Array, "n *shape"]:
    r"""Logarithms of n uniforms :math:`(1 - d_k)^{n - 1}` that one d of the flat Dirichlet law keeps apart."""
    exponentials = jax.random.exponential(key, (num_samples, *shape), dtype)
    # Sums of the others, not the total minus one's own: near 0 a difference would lose the small ones.
    others = jnp.tensordot(1 - jnp.eye(num_samples, dtype=dtype), exponentials, 1, precision="highest")
    return (num_samples - 1) * (jnp.log(others) - jnp.log(jnp.sum(exponentials, 0))[None])


@estimator(
    needs=Bernoulli,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: 0,
    minimal_num_samples=2,
)
def arms(
    key: PRNGKeyArray,
    dist: Bernoulli,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 4,
    has_aux: bool = False,
) -> Estimate:
    r"""ARMS: n mutually antithetic draws, and the leave-one-out gradient corrected for their correlation.

    .. math:: \nabla_\phi := \frac{1}{n - 1} \sum_k \big(f(b_k) - \bar f\big)\, (b_k - \theta)\,
              \frac{\theta (1 - \theta)}{\theta - \mathrm P(b_1 = b_2 = 1)} + \nabla f

    The uniforms :math:`u_k = (1 - d_k)^{n - 1}` come from one d of the flat Dirichlet law, which keeps them apart. With
    the probability q of the rarer value of a bit the last factor is
    :math:`\sigma(|\phi|) / (1 - \max(2 - q^{-1/(n-1)}, 0)^{n-1})`, which is finite everywhere and for two draws that of
    :func:`disarm`.

    Args:
      key: consumed.
      dist: Bernoulli.
      f: cost of one draw.
      num_samples: n, at least 2.
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
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     return estimators.arms(jax.random.key(0), Bernoulli(logits), lambda b: jnp.sum(b) ** 2, num_samples=3)
      >>> jax.grad(loss)(jnp.zeros(2)).shape
      (2,)

    Reference:
      Dimitriev, Zhou, "ARMS: Antithetic-REINFORCE-Multi-Sample Gradient for Binary Variables", 2021.
      https://arxiv.org/abs/2105.14141
    """
    logits = widen(dist.logits)
    log_rarer = jax.nn.log_sigmoid(-jnp.abs(jax.lax.stop_gradient(logits)))
    log_uniforms = antithetic_log_uniforms(key, num_samples, logits.shape, logits.dtype)
    rare = log_uniforms < log_rarer[None]
    draws = jnp.where(logits[None] < 0, rare, ~rare).astype(dist.logits.dtype)
    values, aux = evaluate("arms", f, draws, has_aux)
    both_rare = jnp.maximum(2 - jnp.exp(-log_rarer / (num_samples - 1)), 0) ** (num_samples - 1)  # over q
    factor = jax.nn.sigmoid(jnp.abs(logits)) / (1 - both_rare)
    covariance = weigh(values - jnp.mean(values), widen(draws) - jax.nn.sigmoid(logits)[None])
    gradient = (covariance * factor * num_samples / (num_samples - 1)).astype(dist.logits.dtype)
    return estimate_of(with_gradient(jnp.mean(values), dist.logits, gradient, name="arms"), aux, has_aux)
