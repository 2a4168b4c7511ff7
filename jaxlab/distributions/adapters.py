"""Distributions of distrax and of numpyro, with the capabilities they really have.

Neither library is imported here. A distribution that comes in is a pytree of its own parameters, so gradients reach
them; its draws keep that library's conventions (a distrax ``Categorical`` draws integers).
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlab import _check
from jaxlab.distributions.discrete import product_states

__all__ = [
    "Adapted",
    "AdaptedEnumerable",
    "AdaptedReparameterizable",
    "from_distrax",
    "from_numpyro",
]

# Those of distrax whose sampler is differentiable with respect to every parameter. (numpyro's tell by themselves.)
DISTRAX_WITH_A_PATH = frozenset(
    {"Beta", "Dirichlet", "Gamma", "Gumbel", "Laplace", "LogStddevNormal", "Logistic", "Normal", "Uniform"}
)


def class_names(distribution: Any, library: str) -> list[str]:
    """Names of the classes of ``library`` that ``distribution`` is an instance of, the most special one first."""
    return [c.__name__ for c in type(distribution).__mro__ if c.__module__.split(".")[0] == library]


def draw(distribution: Any, key: PRNGKeyArray) -> Array:
    """One event: a value for every member of the distribution's batch."""
    if class_names(distribution, "distrax"):
        return distribution.sample(seed=key)
    return distribution.sample(key)


def values_of_one_variable(distribution: Any) -> Array | None:
    """All values of one scalar variable of the batch, [k], where the library can list them."""
    if distribution.event_shape != ():
        return None
    names = class_names(distribution, "distrax")
    if "Bernoulli" in names:
        return jnp.arange(2, dtype=distribution.dtype)
    if "Categorical" in names:
        return jnp.arange(distribution.num_categories, dtype=distribution.dtype)
    if not names and distribution.has_enumerate_support:
        return distribution.enumerate_support(expand=False).reshape(-1)
    return None


def distrax_has_path(distribution: Any) -> bool:
    """Whether the draw is a differentiable function of all parameters; wrappers ask what they wrap."""
    names = class_names(distribution, "distrax")
    if "Independent" in names or "Transformed" in names:
        return distrax_has_path(distribution.distribution)
    return names[0] in DISTRAX_WITH_A_PATH


class Adapted(NamedTuple):
    """A distribution of another library that is :class:`~jaxlab.distributions.Scored` and no more."""

    distribution: Any

    def sample(self, key: PRNGKeyArray) -> Array:
        """One event. Gradient: none, a constant."""
        _check.key("Adapted.sample", key)
        return lax.stop_gradient(draw(self.distribution, key))

    def log_prob(self, value: Any) -> Float[Array, ""]:
        """Log-probability in nats of the event: the sum over the batch. Gradient: the other library's."""
        shape = self.distribution.batch_shape + self.distribution.event_shape
        if jnp.shape(value) != shape:
            raise ValueError(f"Adapted.log_prob: value must have shape {list(shape)}; got {list(jnp.shape(value))}")
        return jnp.sum(self.distribution.log_prob(value))


class AdaptedReparameterizable(NamedTuple):
    """A continuous distribution of another library: Scored and :class:`~jaxlab.distributions.Reparameterizable`."""

    distribution: Any

    def sample(self, key: PRNGKeyArray) -> Array:
        """One event. Gradient: none, a constant; ``reparameterize`` is the draw with a path."""
        return Adapted(self.distribution).sample(key)

    def log_prob(self, value: Any) -> Float[Array, ""]:
        """Log-density in nats of the event: the sum over the batch. Gradient: the other library's."""
        return Adapted(self.distribution).log_prob(value)

    def reparameterize(self, key: PRNGKeyArray) -> Array:
        """One event. Gradient: exact along the path of the other library's sampler."""
        _check.key("AdaptedReparameterizable.reparameterize", key)
        return draw(self.distribution, key)


class AdaptedEnumerable(NamedTuple):
    """A distribution of another library with few values: Scored and :class:`~jaxlab.distributions.Enumerable`."""

    distribution: Any

    def sample(self, key: PRNGKeyArray) -> Array:
        """One event. Gradient: none, a constant."""
        return Adapted(self.distribution).sample(key)

    def log_prob(self, value: Any) -> Float[Array, ""]:
        """Log-probability in nats of the event: the sum over the batch. Gradient: the other library's."""
        return Adapted(self.distribution).log_prob(value)

    def support(self) -> Array:
        """All events, along a new first axis. Gradient: none, constants. Raises: ValueError above 2 ** 20."""
        values = values_of_one_variable(self.distribution)
        assert values is not None  # else the adapter would have been another class
        shape = self.distribution.batch_shape
        states = product_states("AdaptedEnumerable.support", len(values), math.prod(shape))
        return jnp.take(values, states.reshape(len(states), *shape))


def _adapted(distribution: Any, has_path: bool) -> Adapted | AdaptedReparameterizable | AdaptedEnumerable:
    if has_path:
        return AdaptedReparameterizable(distribution)
    if values_of_one_variable(distribution) is not None:
        return AdaptedEnumerable(distribution)
    return Adapted(distribution)


def from_distrax(distribution: Any) -> Adapted | AdaptedReparameterizable | AdaptedEnumerable:
    """Lets a distrax distribution into the estimators.

    Args:
      distribution: any distrax distribution. Its whole batch is one event; for a batch of events, ``jax.vmap`` a
        function that makes the distribution from one example's parameters.

    Returns:
      The adapted distribution: Scored, and Reparameterizable if its sampler is differentiable in all parameters
      (Normal, Gamma, ..., and Independent and Transformed ones of them), or Enumerable for bits and integer categories.

    Gradient:
      With respect to what the distribution was made from, as distrax defines it.

    Raises:
      TypeError: if ``distribution`` is not a distrax distribution.

    Reference:
      https://github.com/google-deepmind/distrax
    """
    names = class_names(distribution, "distrax")
    if "Distribution" not in names:
        raise TypeError(f"from_distrax: distribution must be a distrax one; got {type(distribution).__name__}")
    return _adapted(distribution, distrax_has_path(distribution))


def from_numpyro(distribution: Any) -> Adapted | AdaptedReparameterizable | AdaptedEnumerable:
    """Lets a numpyro distribution into the estimators.

    Args:
      distribution: any numpyro distribution. Its whole batch is one event; for a batch of events, ``jax.vmap`` a
        function that makes the distribution from one example's parameters.

    Returns:
      The adapted distribution: Scored, and Reparameterizable if numpyro says ``has_rsample``, or Enumerable if it says
      ``has_enumerate_support`` and one variable is a scalar.

    Gradient:
      With respect to what the distribution was made from, as numpyro defines it.

    Raises:
      TypeError: if ``distribution`` is not a numpyro distribution.

    Reference:
      https://github.com/pyro-ppl/numpyro
    """
    names = class_names(distribution, "numpyro")
    if "Distribution" not in names:
        raise TypeError(f"from_numpyro: distribution must be a numpyro one; got {type(distribution).__name__}")
    return _adapted(distribution, bool(distribution.has_rsample))
