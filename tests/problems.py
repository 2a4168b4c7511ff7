"""Two problems with expectations by enumeration, a row of bits and two rows of categories, for tests of estimators."""

import jax
import jax.numpy as jnp
from replicates import replicate

from benchmarks.small_problems import SMALL_PROBLEMS, THETA, expected_over_bits, expected_over_categories, smooth

NUM_REPLICATES = 200_000
BITS, CATEGORIES = SMALL_PROBLEMS["bits"].dist, SMALL_PROBLEMS["categories"].dist
EXPECTATIONS = {"bits": (BITS, expected_over_bits), "categories": (CATEGORIES, expected_over_categories)}


def exact(name):
    """The expectation of ``smooth``, and its gradients with respect to the distribution and to theta."""
    dist, expected = EXPECTATIONS[name]

    def expectation(dist, theta):
        return expected(dist, lambda x: smooth(x, theta))

    return jax.jit(jax.value_and_grad(expectation, argnums=(0, 1)))(dist, THETA)


def value_and_gradients(estimate, dist, key):
    """One estimate, with its gradients, by ``estimate(key, dist, f)``."""

    def loss(dist, theta):
        return estimate(key, dist, lambda x: smooth(x, theta))

    return jax.value_and_grad(loss, argnums=(0, 1))(dist, THETA)


def replicates(estimate, name, num_replicates=NUM_REPLICATES):
    """Many of them, on the named problem."""
    dist, _ = EXPECTATIONS[name]
    return replicate(lambda key: value_and_gradients(estimate, dist, key), num_replicates=num_replicates)


def total_variance(estimate, logits, num_replicates=20_000):
    """The sum of the variances of the components of the gradient of ``estimate(key, logits)``."""
    gradients = replicate(lambda key: jax.grad(lambda phi: estimate(key, phi))(logits), num_replicates=num_replicates)
    return float(jnp.sum(jnp.var(gradients, 0)))


def tuned(loss, tunables, logits, *, rate, num_steps=2000):
    """What is left of ``tunables`` after descending the gradient that ``loss(key, logits, tunables)`` gives them."""

    def step(tunables, key):
        keys = jax.random.split(key, 20)
        slopes = jax.vmap(lambda key: jax.grad(loss, argnums=2)(key, logits, tunables))(keys)
        return jax.tree.map(lambda x, slope: x - rate * jnp.mean(slope, 0), tunables, slopes), None

    keys = jax.random.split(jax.random.key(7), num_steps)
    return jax.jit(lambda keys: jax.lax.scan(step, tunables, keys)[0])(keys)
