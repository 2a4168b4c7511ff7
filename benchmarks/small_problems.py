"""Small expectations with exact values, on which 200,000 draws of an estimator take a second or so.

The values are found without jaxlab: by listing all draws, by quadrature, or in closed form.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlab.distributions import Bernoulli, Categorical, Gamma, Normal, Poisson

WEIGHTS = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
THETA = jnp.array([0.1, -0.2, 0.3, 0.0])
COEFFICIENTS = jnp.array([0.5, -1.5])


class SmallProblem(NamedTuple):
    """A distribution, a cost of one draw with parameters theta, and the exact expectation by distribution and theta."""

    dist: Any
    cost: Callable[[Any, Any], Array]
    expectation: Callable[[Any, Any], Array]
    theta: Float[Array, "m"]


class BoundProblem(NamedTuple):
    """A posterior, the log of a joint density with parameters theta, and the exact bound of so many samples.

    ``bound(dist, theta, num_samples, power)`` is the expectation of the log of the mean of the importance weights to a
    power, divided by the power: 1 for the evidence lower bounds, 1 - order for Rényi's.
    """

    dist: Any
    log_joint: Callable[[Any, Any], Array]
    bound: Callable[[Any, Any, int, float], Array]
    theta: Float[Array, "m"]


def smooth(x: Float[Array, "..."], theta: Float[Array, "4"]) -> Float[Array, ""]:
    """A smooth nonlinear function of up to six numbers, with parameters of its own."""
    x = jnp.ravel(x)
    return jnp.sum(jnp.tanh(jnp.asarray(WEIGHTS[:, : x.size], x.dtype) @ x + theta) * jnp.arange(1, 5).astype(x.dtype))


def square_and(other: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """theta_0 sum x^2 + theta_1 sum other(x): its expectation needs those of two functions of one variable."""
    return lambda x, theta: jnp.sum(theta[0] * x**2 + theta[1] * other(x))


def bits_and_probabilities(dist: Bernoulli) -> tuple[Float[Array, "states d"], Float[Array, "states"]]:
    """All values of a vector of bits, and their probabilities."""
    bits = jnp.array(list(itertools.product([0, 1], repeat=dist.logits.size)), dist.logits.dtype)
    chance = jax.nn.sigmoid(dist.logits)[None]
    return bits, jnp.prod(bits * chance + (1 - bits) * (1 - chance), -1)


def expected_over_bits(dist: Bernoulli, f: Callable[[Array], Array]) -> Float[Array, ""]:
    """The expectation of ``f`` over all bits."""
    bits, probabilities = bits_and_probabilities(dist)
    return jnp.sum(probabilities * jax.vmap(f)(bits))


def expected_over_categories(dist: Categorical, f: Callable[[Array], Array]) -> Float[Array, ""]:
    """The expectation of ``f`` over all one-hot rows."""
    num_rows, num_categories = dist.logits.shape
    codes = jnp.array(list(itertools.product(range(num_categories), repeat=num_rows)))
    one_hot = jnp.eye(num_categories, dtype=dist.logits.dtype)[codes]
    probabilities = jnp.prod(jnp.sum(one_hot * jax.nn.softmax(dist.logits)[None], -1), -1)
    return jnp.sum(probabilities * jax.vmap(f)(one_hot))


#: By name. The Gamma variables are slow to draw.
SMALL_PROBLEMS = {
    "bits": SmallProblem(
        Bernoulli(jnp.array([-1.2, 0.3, 0.9])),
        smooth,
        lambda d, theta: expected_over_bits(d, lambda b: smooth(b, theta)),
        THETA,
    ),
    "categories": SmallProblem(
        Categorical(jnp.array([[0.0, 1.0, -0.5], [0.3, 0.2, 2.0]])),
        smooth,
        lambda d, theta: expected_over_categories(d, lambda z: smooth(z, theta)),
        THETA,
    ),
    "normal": SmallProblem(
        Normal(jnp.array([0.5, -1.0]), jnp.array([0.7, 1.2])),
        square_and(jnp.cos),
        lambda d, theta: jnp.sum(
            theta[0] * (d.loc**2 + d.scale**2) + theta[1] * jnp.cos(d.loc) * jnp.exp(-(d.scale**2) / 2)
        ),
        COEFFICIENTS,
    ),
    "gamma": SmallProblem(
        Gamma(jnp.array([0.8, 3.0]), jnp.array([1.5, 2.0])),
        square_and(lambda x: jnp.exp(-x)),
        lambda d, theta: jnp.sum(
            theta[0] * d.concentration * (d.concentration + 1) / d.rate**2
            + theta[1] * (d.rate / (d.rate + 1)) ** d.concentration
        ),
        COEFFICIENTS,
    ),
    "poisson": SmallProblem(
        Poisson(jnp.array([0.7, 2.5])),
        square_and(lambda x: jnp.exp(-x / 2)),
        lambda d, theta: jnp.sum(theta[0] * (d.rate**2 + d.rate) + theta[1] * jnp.exp(d.rate * (math.exp(-0.5) - 1))),
        COEFFICIENTS,
    ),
}


def expected_bound(
    log_weights: Float[Array, "states"], probabilities: Float[Array, "states"], num_samples: int, power: float
) -> Float[Array, ""]:
    """The bound of independent draws from a list of states: the sum over all tuples of states."""
    log_mean, weight = power * log_weights, probabilities
    for _ in range(num_samples - 1):
        log_mean = jnp.logaddexp(log_mean[..., None], (power * log_weights).reshape((1,) * log_mean.ndim + (-1,)))
        weight = weight[..., None] * probabilities.reshape((1,) * weight.ndim + (-1,))
    return jnp.sum(weight * (log_mean - math.log(num_samples))) / power


def bits_joint(b: Float[Array, "3"], theta: Float[Array, "4"]) -> Float[Array, ""]:
    """The log of an unnormalised joint density of three bits."""
    return 0.5 * smooth(b, theta)


def bits_bound(dist: Bernoulli, theta: Float[Array, "4"], num_samples: int, power: float) -> Float[Array, ""]:
    """The bound over three bits, exactly."""
    bits, probabilities = bits_and_probabilities(dist)
    log_weights = jax.vmap(lambda b: bits_joint(b, theta))(bits) - jnp.log(probabilities)
    return expected_bound(log_weights, probabilities, num_samples, power)


def normal_joint(x: Float[Array, "1"], theta: Float[Array, "2"]) -> Float[Array, ""]:
    """The log of an unnormalised joint density of one number, not normal."""
    return jnp.sum(theta[0] * jnp.cos(2 * x) - (x - theta[1]) ** 2 / 2)


def normal_bound(dist: Normal, theta: Float[Array, "2"], num_samples: int, power: float) -> Float[Array, ""]:
    """The bound of a normal posterior, by Gauss-Hermite quadrature in each draw."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(48)
    noise = jnp.asarray(nodes, dist.loc.dtype)
    x = dist.loc + dist.scale * noise
    log_density = -(noise**2) / 2 - jnp.log(dist.scale) - 0.5 * math.log(2 * math.pi)
    log_weights = jax.vmap(lambda one: normal_joint(one[None], theta))(x) - log_density
    return expected_bound(log_weights, jnp.asarray(weights / weights.sum(), x.dtype), num_samples, power)


BOUND_PROBLEMS = {
    "bits_bound": BoundProblem(Bernoulli(jnp.array([-0.7, 0.3, 0.6])), bits_joint, bits_bound, THETA),
    "normal_bound": BoundProblem(
        Normal(jnp.array([0.4]), jnp.array([0.8])), normal_joint, normal_bound, jnp.array([0.8, -0.3])
    ),
}
