"""Estimators for discrete draws that differentiate f between its values: low variance, and biased.

f must be defined between the discrete values too, and what it is there is part of the estimator: another extension of
the same discrete f gives another gradient.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, ScalarLike

from jaxlab.distributions import MeanValued, Relaxable
from jaxlab.estimators.contract import Estimate, draw_each, draw_samples, estimate_of, estimator, evaluate, for_each
from jaxlab.gradients import first_order_only, straight_through

__all__ = ["gumbel_softmax", "straight_through_gumbel", "straight_through_mean"]


@estimator(
    needs=Relaxable,
    unbiased_value=False,
    unbiased_gradient=False,
    derivative_order=math.inf,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
    relaxed_draws=True,
    tunable=("temperature",),
)
def gumbel_softmax(
    key: PRNGKeyArray,
    dist: Relaxable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    temperature: ScalarLike = 1.0,
    has_aux: bool = False,
) -> Estimate:
    r"""The mean of f over relaxed draws (Gumbel-softmax, Concrete).

    .. math:: \frac1n \sum_k f(y_k), \qquad y_k = \mathrm{softmax}\big((\phi + G_k) / \lambda\big)

    (for bits, the binary Concrete :math:`\sigma((\phi + L) / \lambda)` with logistic noise L).

    Args:
      key: consumed.
      dist: a distribution that is Relaxable (bits or categories).
      f: cost of one draw, differentiable, defined between the discrete values.
      num_samples: n, at least 1.
      temperature: positive, without unit. Lower: less bias, more variance, which grows like 1 / temperature.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      The mean of the relaxed f: a biased estimate of the expectation of f, exact in the limit of temperature 0.

    Gradient:
      That of the relaxed expectation, without bias and to every order; as an estimate of the gradient of the discrete
      expectation it is biased. Differentiable in ``temperature``.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Categorical
      >>> cost = jnp.array([1.0, 2.0, 4.0])
      >>> def loss(logits):
      ...     return estimators.gumbel_softmax(
      ...         jax.random.key(0), Categorical(logits), lambda z: z @ cost, temperature=0.5
      ...     )
      >>> jax.grad(loss)(jnp.zeros(3)).shape
      (3,)

    Reference:
      Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, eq. (2) and section 2.1,
      https://arxiv.org/abs/1611.01144; Maddison, Mnih, Teh, "The Concrete Distribution", 2017, for bits appendix B.
      https://arxiv.org/abs/1611.00712
    """

    def draw(key: PRNGKeyArray) -> Any:
        return dist.soften(dist.perturb(key), temperature=temperature)

    values, aux = evaluate("gumbel_softmax", f, draw_each(draw, key, num_samples), has_aux)
    return estimate_of(jnp.mean(values), aux, has_aux)


@estimator(
    needs=Relaxable,
    unbiased_value=True,
    unbiased_gradient=False,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
    tunable=("temperature",),
)
def straight_through_gumbel(
    key: PRNGKeyArray,
    dist: Relaxable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    temperature: ScalarLike = 1.0,
    has_aux: bool = False,
) -> Estimate:
    r"""The mean of f over discrete draws, differentiated as if they were the relaxed ones (ST Gumbel-softmax).

    .. math:: \frac1n \sum_k f(z_k), \qquad \nabla_\phi := \frac1n \sum_k f'(z_k)\, \partial_\phi y_k

    with :math:`z_k` the discrete and :math:`y_k` the relaxed draw of the same noise.

    Args:
      key: consumed.
      dist: a distribution that is Relaxable (bits or categories).
      f: cost of one draw, differentiable; it is evaluated at discrete draws only.
      num_samples: n, at least 1.
      temperature: positive, without unit, of the relaxed draw.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Biased with respect to the parameters of ``dist``; unbiased for what f closes over. First order only: a second
      derivative through the draw raises TypeError.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     return estimators.straight_through_gumbel(
      ...         jax.random.key(0), Bernoulli(logits), lambda b: b.sum(), temperature=0.5
      ...     )
      >>> float(loss(jnp.zeros(4))) in (0.0, 1.0, 2.0, 3.0, 4.0)
      True

    Reference:
      Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, section 2.2.
      https://arxiv.org/abs/1611.01144
    """

    def draw(key: PRNGKeyArray) -> Any:
        perturbed = dist.perturb(key)
        discrete = straight_through(dist.harden(perturbed), dist.soften(perturbed, temperature=temperature))
        return first_order_only(discrete, name="straight_through_gumbel")

    values, aux = evaluate("straight_through_gumbel", f, draw_each(draw, key, num_samples), has_aux)
    return estimate_of(jnp.mean(values), aux, has_aux)


@estimator(
    needs=MeanValued,
    unbiased_value=True,
    unbiased_gradient=False,
    derivative_order=1,
    evaluations=lambda num_samples, dist: num_samples,
    derivative_evaluations=lambda num_samples, dist: num_samples,
    minimal_num_samples=1,
)
def straight_through_mean(
    key: PRNGKeyArray,
    dist: MeanValued,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    has_aux: bool = False,
) -> Estimate:
    r"""The mean of f over draws, differentiated as if each were the distribution's mean (straight-through).

    .. math:: \frac1n \sum_k f(x_k), \qquad \nabla_\phi := \frac1n \sum_k f'(x_k)\, \partial_\phi \mathbb E_\phi x

    For bits :math:`\partial_\phi\mathbb E b = \sigma(\phi) (1 - \sigma(\phi))`, for categories the Jacobian of the
    softmax. There is nothing to tune.

    Args:
      key: consumed.
      dist: a distribution that is MeanValued.
      f: cost of one draw, differentiable; it is evaluated at draws only.
      num_samples: n, at least 1.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Biased with respect to the parameters of ``dist`` (unless f is linear); unbiased for what f closes over. First
      order only: a second derivative through the draw raises TypeError.

    Raises:
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits):
      ...     return estimators.straight_through_mean(jax.random.key(0), Bernoulli(logits), lambda b: b.sum())
      >>> jax.grad(loss)(jnp.zeros(2)).tolist()  # exact, for f is linear
      [0.25, 0.25]

    Reference:
      Bengio, Léonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
      Computation", 2013, https://arxiv.org/abs/1308.3432; in this form, with the mean as the stand-in for the draw,
      Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, section 3.1.
      https://arxiv.org/abs/1611.01144
    """
    mean = dist.mean()

    def through_the_mean(draw: Any) -> Any:
        return first_order_only(straight_through(draw, mean), name="straight_through_mean")

    draws = for_each(through_the_mean, draw_samples(key, dist, num_samples))
    values, aux = evaluate("straight_through_mean", f, draws, has_aux)
    return estimate_of(jnp.mean(values), aux, has_aux)
