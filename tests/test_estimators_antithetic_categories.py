"""Antithetic draws of categories: unbiased, each known mistake is not, and less variance than with independent ones."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import CATEGORIES, THETA, exact, replicates, total_variance
from replicates import FAR, agrees, largest_z, replicate, smooth

from jaxlab import estimators
from jaxlab.distributions import Bernoulli, Categorical
from jaxlab.estimators import antithetic_categories


@pytest.mark.parametrize(("num_samples", "independent"), [(2, 0.5), (3, 0.25), (4, 0.1), (3, 1.0)])
def test_value_and_gradient_are_unbiased(num_samples, independent):
    estimate = functools.partial(estimators.carms, num_samples=num_samples, independent=independent)
    assert agrees(replicates(estimate, "categories"), exact("categories"))


@pytest.mark.parametrize("mistake", ["no weights", "no mixture, clipped", "mixture only in the draws"])
def test_a_known_mistake_is_biased(mistake, monkeypatch):
    """With other weights; those of the text itself pass in ``test_value_and_gradient_are_unbiased``."""
    right = antithetic_categories.weights_of_pairs

    def wrong(probabilities, places, independent):
        if mistake == "no weights":
            return jnp.where(places[:, None] != places[None], 1.0, 0.0)
        if mistake == "no mixture, clipped":  # as in published code
            return jnp.clip(right(probabilities, places, jnp.zeros_like(independent)), 0, 10)
        return right(probabilities, places, jnp.full_like(independent, 1e-3))

    monkeypatch.setattr(antithetic_categories, "weights_of_pairs", wrong)
    independent = 1e-6 if mistake == "no mixture, clipped" else 0.25
    estimate = functools.partial(estimators.carms, num_samples=2, independent=independent)
    (_, (gradients, _)), (_, (expected, _)) = replicates(estimate, "categories"), exact("categories")
    assert largest_z(gradients, expected) > FAR


@pytest.mark.parametrize("num_samples", [2, 4])
def test_probabilities_of_pairs_are_those_of_the_draws(num_samples):
    """From the weights of all pairs (a, b) of different categories: the shares with which the pairs turn up."""
    probabilities = jnp.array([0.45, 0.3, 0.2, 0.05])
    independent = jnp.array(0.125)

    def first_two(key):
        return antithetic_categories.coupled_places(key, probabilities[None], num_samples, independent)[:2, 0]

    places = np.asarray(replicate(first_two, num_replicates=100_000))
    for pair in itertools.permutations(range(4), 2):
        # The weights do not look at the other draws but for their number.
        together = jnp.array([*pair, *[0] * (num_samples - 2)])[:, None]
        weight = antithetic_categories.weights_of_pairs(probabilities[None], together, independent)[0, 1, 0]
        expected = probabilities[pair[0]] * probabilities[pair[1]] / weight
        share = np.all(places == pair, -1)
        assert agrees(jnp.asarray(share, jnp.float32), np.float32(expected)), pair


def test_draws_have_the_law_of_the_distribution():
    logits = jnp.stack([jnp.linspace(-1.0, 1.5, 5), jnp.cos(jnp.arange(5.0))])

    def draws(key):
        _, z = estimators.carms(key, Categorical(logits), lambda z: (z.sum(), z), num_samples=3, has_aux=True)
        return z.mean(0)

    assert agrees(replicate(draws, num_replicates=20_000), jax.nn.softmax(logits, -1))


def test_a_pair_of_two_categories_is_a_pair_of_bits():
    """Two draws of two categories without a mixture are ``disarm``, which has a closed form for the weight."""

    def f(bit):
        return jnp.exp(bit) + bit**2

    def by_categories(key, logit):
        category = Categorical(jnp.stack([logit, 0 * logit]))
        return estimators.carms(key, category, lambda z: f(z[0]), num_samples=2, independent=1e-6)

    def by_bits(key, logit):
        return estimators.disarm(key, Bernoulli(logit), f)

    variances = [total_variance(e, jnp.array(0.8), num_replicates=100_000) for e in (by_categories, by_bits)]
    np.testing.assert_allclose(*variances, rtol=0.02)


@pytest.mark.parametrize("num_samples", [3])
def test_less_variance_than_leave_one_out(num_samples):
    def variance(estimator):
        def estimate(key, logits):
            return estimator(key, Categorical(logits), lambda z: smooth(z, THETA), num_samples=num_samples)

        return total_variance(estimate, CATEGORIES.logits, num_replicates=100_000)

    assert variance(estimators.carms) < 0.95 * variance(estimators.leave_one_out)


def test_what_is_certain_or_impossible_has_no_gradient():
    logits = jnp.array([[jnp.inf, 0.0, 1.0], [0.5, -jnp.inf, 0.0], [1.0, -0.5, 0.0]])

    def loss(logits, key):
        return estimators.carms(key, Categorical(logits), lambda z: jnp.sum(jnp.sin(z * jnp.arange(1.0, 4.0)[None])))

    gradients = np.asarray(replicate(lambda key: jax.grad(loss)(logits, key), num_replicates=1000))
    assert np.isfinite(gradients).all()
    assert (gradients[:, 0] == 0).all()
    assert (gradients[:, 1, 1] == 0).all()
    assert (np.abs(gradients[:, [1, 1, 2], [0, 2, 1]]).max(0) > 0.01).all()


@pytest.mark.parametrize("independent", [0.0, -0.5, 1.5])
def test_a_share_that_is_none_is_refused(independent):
    with pytest.raises(ValueError, match="carms: independent must"):
        estimators.carms(jax.random.key(0), CATEGORIES, jnp.sum, independent=independent)
