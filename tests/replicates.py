"""Replicates of a random result: how far their mean is from what it should be, and the exact mean over all draws.

(Not called ``statistics``: pytest puts this folder on the path, where it would hide the standard library's module.)

A claim that something is unbiased must come out below ``FAR`` standard errors, a claim that it is biased above. With
fixed keys both are deterministic, and what they were seen to be leaves a wide gap: about 3 against 20 and more.
"""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.small_problems import expected_over_bits, smooth
from jaxlab.distributions import Bernoulli
from jaxlab.moments import moments_of

__all__ = [
    "FAR",
    "FairBits",
    "agrees",
    "default_num_samples",
    "derivative_and_draws",
    "estimate",
    "expected_over_bits",
    "largest_z",
    "mean_and_variance",
    "over_all_draws",
    "replicate",
    "smooth",
]

FAR = 5.0


def replicate(function, *, num_replicates=20_000, chunk_size=None, seed=0):
    """``function(key)`` for many independent keys, along a new first axis of every leaf."""

    @jax.jit
    def for_all(keys):
        return jax.vmap(function)(keys) if chunk_size is None else lax.map(function, keys, batch_size=chunk_size)

    return for_all(jax.random.split(jax.random.key(seed), num_replicates))


def largest_z(samples, expected):
    """The largest z-score, by absolute value, of all components of all leaves of ``samples`` against ``expected``."""

    def of_leaf(leaf, value):
        return np.max(np.abs(moments_of(leaf).z_score(jnp.asarray(value, leaf.dtype))), initial=0)

    return float(max(jax.tree.leaves(jax.tree.map(of_leaf, samples, expected))))


def agrees(samples, expected):
    """Whether the mean of the samples is the expected one: to rounding if they do not vary, else by z-score."""
    flat = np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(samples)], 1)
    expected = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(expected)])
    varies = np.ptp(flat, axis=0) > 1e-5
    constant = np.allclose(flat[0, ~varies], expected[~varies], rtol=1e-4, atol=1e-5)
    return constant and largest_z(jnp.asarray(flat[:, varies]), expected[varies]) < FAR


def estimate(row, key, dist, f, **options):
    """The estimate of an estimator, whether or not it has a state too."""
    if row.initial_state is None:
        return row.estimate(key, dist, f, **options)
    return row.estimate(key, dist, f, row.initial_state(), **options)[0]


def default_num_samples(row):
    """How many draws an estimator makes unless it is told; None if it makes none."""
    parameter = inspect.signature(row.estimate).parameters.get("num_samples")
    return parameter and parameter.default


# A score-function estimate is a function of its draws, whoever draws them. If fair coins do, every combination turns
# up, and weighted with its probability under the logits each mean and variance is exact.


class FairBits(NamedTuple):
    """Draws fair bits whatever its logits, and scores them by its logits."""

    logits: Any

    def sample(self, key):
        return Bernoulli(jnp.zeros_like(self.logits)).sample(key)

    def log_prob(self, value):
        return Bernoulli(self.logits).log_prob(value)


def over_all_draws(function, num_bits):
    """``function(key) -> (result, draws)`` at each combination of draws: the results, and the combinations."""
    results, draws = replicate(function, num_replicates=40 * 2**num_bits)
    draws = np.asarray(draws).reshape(len(draws), num_bits)
    combinations, first = np.unique(draws, axis=0, return_index=True)
    assert len(combinations) == 2**num_bits
    return np.asarray(results)[first], combinations


def mean_and_variance(results, combinations, logits):
    """Exactly, of results at all combinations of independent bits with these logits (repeated for each sample)."""
    chance = 1 / (1 + np.exp(-np.resize(np.float64(logits), combinations.shape[1])))
    probabilities = np.prod(np.where(combinations == 1, chance, 1 - chance), -1)
    mean = np.tensordot(probabilities, results, 1)
    return mean, np.tensordot(probabilities, (results - mean) ** 2, 1)


def derivative_and_draws(row, f, logits, key, *, derivative=jax.grad, **options):
    """A derivative of the estimate with respect to the logits, and the fair bits that it is a function of."""

    def loss(logits):
        return estimate(row, key, FairBits(logits), lambda b: (f(b), b), has_aux=True, **options)

    return derivative(loss, has_aux=True)(logits)
