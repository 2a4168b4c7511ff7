r"""REBAR and RELAX: the score function with a relaxation of the same draw as its control variate.

With the continuous variable z behind the draw :math:`b = H(z)`, and :math:`\tilde z` drawn anew given b,

.. math:: \nabla := \big(f(b) - c(\tilde z)\big)\, \nabla\log p(b) + \nabla c(z) - \nabla c(\tilde z)

is unbiased for every c. The derivative of :math:`\tilde z` includes that of its law given b; taken as a constant, the
gradient would be biased by more than its own size. Drawn without regard to b it would stay unbiased, and lose the
correlation that lowers the variance.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from jaxlab._precision import widen
from jaxlab.distributions import Conditionable
from jaxlab.estimators.contract import Estimate, estimate_of, estimator, evaluate_one, fixed_cost, for_each
from jaxlab.estimators.tuning import slopes_of_square, squared_norm, with_tuning
from jaxlab.gradients import with_gradient

__all__ = ["rebar", "relax"]


def gradient_of_one(
    key: PRNGKeyArray,
    dist: Any,
    cost: Callable[[Any], Any],
    control: Callable[[Any, Any], Any],
    tunables: Any,
    tied: bool,
) -> tuple[Any, Float[Array, "*shape"]]:
    """One draw, and the gradient with respect to the logits that belongs to it."""
    key, conditional_key = (key, None) if tied else jax.random.split(key)
    logits = lax.stop_gradient(dist.logits)
    noise = dist._replace(logits=jnp.zeros_like(logits)).perturb(key)
    perturbed = widen(logits) + noise
    draw = dist.harden(perturbed)

    def relaxed_difference(logits: Any) -> tuple[Any, Any]:
        moving = dist._replace(logits=logits)
        # Given the draw, the variable it was made of has the conditional law too.
        conditional = moving.condition(perturbed) if tied else moving.perturb_given(conditional_key, draw)
        control_given = control(conditional, tunables)
        return control(widen(logits) + noise, tunables) - control_given, control_given

    path, control_given = jax.grad(relaxed_difference, has_aux=True)(logits)
    score = jax.grad(lambda logits: dist._replace(logits=logits).log_prob(draw))(logits)
    return draw, (cost(draw) - control_given).astype(score.dtype) * score + path


def with_relaxed_control(
    name: str,
    key: PRNGKeyArray,
    dist: Any,
    f: Callable[[Any], Any],
    control: Callable[[Callable, Any, Any], Any],
    tunables: Any,
    num_samples: int,
    tied: bool,
    has_aux: bool,
) -> Estimate:
    """The mean of f with the gradient above for the logits, and that of its square for what may be tuned."""
    keys = jax.random.split(key, num_samples)
    like = jax.eval_shape(dist.sample, key)
    cost = fixed_cost(name, f, has_aux, like)

    def control_of(perturbed: Any, tunables: Any) -> Any:
        return control(cost, perturbed, tunables)

    def square(tunables: Any) -> tuple[Any, Any]:
        draws, gradients = for_each(lambda key: gradient_of_one(key, dist, cost, control_of, tunables, tied), keys)
        mean_gradient = jnp.mean(gradients, 0)
        return squared_norm(mean_gradient), (draws, mean_gradient)

    arrays, slopes, (draws, mean_gradient) = slopes_of_square(square, tunables)
    values, aux = for_each(lambda draw: evaluate_one(name, f, has_aux, draw), draws)
    value = with_gradient(jnp.mean(values), dist.logits, mean_gradient.astype(dist.logits.dtype), name=name)
    return estimate_of(with_tuning(value, arrays, slopes, name=name), aux, has_aux)


@estimator(
    needs=Conditionable,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: 3 * num_samples,
    derivative_evaluations=lambda num_samples, dist: 2 * num_samples,
    minimal_num_samples=1,
    tunable=("temperature", "scale"),
)
def rebar(
    key: PRNGKeyArray,
    dist: Conditionable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    temperature: ScalarLike = 0.5,
    scale: ScalarLike = 1.0,
    tied: bool = False,
    has_aux: bool = False,
) -> Estimate:
    r"""REBAR: the control variate is f at the relaxed draw, :math:`c(z) = \eta f(\mathrm{softmax}(z / \lambda))`.

    .. math:: \nabla_\phi := \big(f(b) - c(\tilde z)\big)\, \nabla_\phi\log p(b)
              + \nabla_\phi c(z) - \nabla_\phi c(\tilde z)

    Args:
      key: consumed.
      dist: a distribution that is Conditionable (bits or categories).
      f: cost of one draw, differentiable, defined between the discrete values.
      num_samples: n, at least 1.
      temperature: :math:`\lambda`, positive, without unit.
      scale: :math:`\eta`; 0 is REINFORCE.
      tied: whether :math:`\tilde z` takes the noise of z itself, which has the same law given b. Then it is equal to z
        and differs in its derivative alone. The mean is the same, and the variance another one.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased with respect to the logits and to what f closes over, for every temperature and scale. With respect to
      ``temperature`` and ``scale``: that of the squared norm of the gradient with respect to the logits, whose descent
      lowers the variance (an optimizer may step them beside the rest). First order only: a second derivative raises
      TypeError.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits, temperature):
      ...     bits = Bernoulli(logits)
      ...     return estimators.rebar(jax.random.key(0), bits, lambda b: jnp.sum(b) ** 2, temperature=temperature)
      >>> gradient, tuning = jax.grad(loss, argnums=(0, 1))(jnp.zeros(2), 0.5)
      >>> gradient.shape, tuning.shape
      ((2,), ())

    Reference:
      Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein, "REBAR: Low-Variance, Unbiased Gradient Estimates for Discrete
      Latent Variable Models", 2017. https://arxiv.org/abs/1703.07370
    """
    tunables = {"temperature": temperature, "scale": scale}

    def control(cost: Callable[[Any], Any], perturbed: Any, tunables: Any) -> Any:
        soft = dist.soften(perturbed, temperature=tunables["temperature"])
        value = cost(soft)
        return jnp.asarray(tunables["scale"], value.dtype) * value

    return with_relaxed_control("rebar", key, dist, f, control, tunables, num_samples, tied, has_aux)


@estimator(
    needs=Conditionable,
    unbiased_value=True,
    unbiased_gradient=True,
    derivative_order=1,
    evaluations=lambda num_samples, dist: 3 * num_samples,
    derivative_evaluations=lambda num_samples, dist: 2 * num_samples,
    minimal_num_samples=1,
    tunable=("parameters", "temperature", "scale"),
)
def relax(
    key: PRNGKeyArray,
    dist: Conditionable,
    f: Callable[[Any], Any],
    *,
    num_samples: int = 1,
    network: Callable[[Any, Any], Any] = lambda parameters, perturbed: 0.0,
    parameters: Any = None,
    temperature: ScalarLike = 0.5,
    scale: ScalarLike = 1.0,
    tied: bool = False,
    has_aux: bool = False,
) -> Estimate:
    r"""RELAX: REBAR with a learned function added, :math:`c(z) = \eta f(\mathrm{softmax}(z / \lambda)) + r_\psi(z)`.

    .. math:: \nabla_\phi := \big(f(b) - c(\tilde z)\big)\, \nabla_\phi\log p(b)
              + \nabla_\phi c(z) - \nabla_\phi c(\tilde z)

    With ``scale`` 0 it works for an f that is a black box.

    Args:
      key: consumed.
      dist: a distribution that is Conditionable (bits or categories).
      f: cost of one draw, differentiable, defined between the discrete values.
      num_samples: n, at least 1.
      network: r, from its parameters and the perturbed logits (float32) to a scalar; zero by default.
      parameters: :math:`\psi`, a pytree of float arrays.
      temperature: :math:`\lambda`, positive, without unit.
      scale: :math:`\eta`.
      tied: whether :math:`\tilde z` takes the noise of z itself, as for :func:`rebar`.
      has_aux: whether f returns a pair of its value and auxiliary values.

    Returns:
      An unbiased estimate of the expectation of f; with ``has_aux`` also the auxiliary values, with a first axis of n.

    Gradient:
      Unbiased with respect to the logits and to what f closes over, for every c. With respect to ``parameters``,
      ``temperature`` and ``scale``: that of the squared norm of the gradient with respect to the logits, whose descent
      lowers the variance. First order only: a second derivative raises TypeError.

    Raises:
      ValueError: if ``temperature`` is a Python number not above 0.
      TypeError, ValueError: for a key, distribution, f or ``num_samples`` that is not as above.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlab import estimators
      >>> from jaxlab.distributions import Bernoulli
      >>> def loss(logits, parameters):
      ...     return estimators.relax(
      ...         jax.random.key(0),
      ...         Bernoulli(logits),
      ...         lambda b: jnp.sum(b) ** 2,
      ...         network=lambda weights, z: jnp.tanh(z @ weights),
      ...         parameters=parameters,
      ...     )
      >>> gradient, tuning = jax.grad(loss, argnums=(0, 1))(jnp.zeros(2), jnp.ones(2))
      >>> gradient.shape, tuning.shape
      ((2,), (2,))

    Reference:
      Grathwohl, Choi, Wu, Roeder, Duvenaud, "Backpropagation through the Void: Optimizing Control Variates for
      Black-Box Gradient Estimation", 2018, eq. (8). https://arxiv.org/abs/1711.00123
    """
    tunables = {"temperature": temperature, "scale": scale, "parameters": parameters}

    def control(cost: Callable[[Any], Any], perturbed: Any, tunables: Any) -> Any:
        soft = dist.soften(perturbed, temperature=tunables["temperature"])
        value = cost(soft)
        learned = network(tunables["parameters"], perturbed)
        return jnp.asarray(tunables["scale"], value.dtype) * value + jnp.asarray(learned, value.dtype)

    return with_relaxed_control("relax", key, dist, f, control, tunables, num_samples, tied, has_aux)
