"""Distributions against scipy, closed forms, and the enumeration of their values."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from replicates import FAR, largest_z, replicate

from jaxlab import distributions
from jaxlab.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Exponential,
    Gamma,
    Gumbel,
    Laplace,
    Logistic,
    MultivariateNormal,
    Normal,
    Poisson,
)

LOC, SCALE = jnp.array([0.5, -1.0]), jnp.array([0.7, 2.0])
RATE, SHAPE = jnp.array([0.5, 3.0]), jnp.array([0.6, 4.0])
LOGITS = jnp.array([-1.2, 0.3, 0.9])
ROWS = jnp.array([[0.0, 1.0, -0.5], [0.3, 0.2, 2.0]])
CHOLESKY = jnp.array([[1.5, 0.0], [-0.8, 0.6]])
EULER = 0.5772156649015329


class Case(NamedTuple):
    """A distribution, and its law from elsewhere: log-density in scipy, mean and variance of each component."""

    dist: Any
    log_prob: Callable
    mean: Callable
    variance: Callable


def variance_of_share(mean, total):
    return mean * (1 - mean) / (total + 1)


CASES = {
    "Normal": Case(
        Normal(LOC, SCALE), lambda x: scipy.stats.norm.logpdf(x, LOC, SCALE), lambda d: d.loc, lambda d: d.scale**2
    ),
    "MultivariateNormal": Case(
        MultivariateNormal(LOC, CHOLESKY),
        lambda x: scipy.stats.multivariate_normal.logpdf(x, np.float64(LOC), np.float64(CHOLESKY @ CHOLESKY.T)),
        lambda d: d.loc,
        lambda d: jnp.sum(jnp.tril(d.scale) ** 2, -1),
    ),
    "diagonal MultivariateNormal": Case(
        MultivariateNormal(LOC, SCALE),
        lambda x: scipy.stats.multivariate_normal.logpdf(x, np.float64(LOC), np.diag(np.float64(SCALE) ** 2)),
        lambda d: d.loc,
        lambda d: d.scale**2,
    ),
    "Logistic": Case(
        Logistic(LOC, SCALE),
        lambda x: scipy.stats.logistic.logpdf(x, LOC, SCALE),
        lambda d: d.loc,
        lambda d: d.scale**2 * np.pi**2 / 3,
    ),
    "Gumbel": Case(
        Gumbel(LOC, SCALE),
        lambda x: scipy.stats.gumbel_r.logpdf(x, LOC, SCALE),
        lambda d: d.loc + EULER * d.scale,
        lambda d: d.scale**2 * np.pi**2 / 6,
    ),
    "Laplace": Case(
        Laplace(LOC, SCALE),
        lambda x: scipy.stats.laplace.logpdf(x, LOC, SCALE),
        lambda d: d.loc,
        lambda d: 2 * d.scale**2,
    ),
    "Exponential": Case(
        Exponential(RATE),
        lambda x: scipy.stats.expon.logpdf(x, scale=1 / np.float64(RATE)),
        lambda d: 1 / d.rate,
        lambda d: 1 / d.rate**2,
    ),
    "Gamma": Case(
        Gamma(SHAPE, RATE),
        lambda x: scipy.stats.gamma.logpdf(x, np.float64(SHAPE), scale=1 / np.float64(RATE)),
        lambda d: d.concentration / d.rate,
        lambda d: d.concentration / d.rate**2,
    ),
    "Beta": Case(
        Beta(SHAPE, RATE),
        lambda x: scipy.stats.beta.logpdf(x, np.float64(SHAPE), np.float64(RATE)),
        lambda d: d.concentration1 / (d.concentration1 + d.concentration0),
        lambda d: variance_of_share(
            d.concentration1 / (d.concentration1 + d.concentration0), d.concentration1 + d.concentration0
        ),
    ),
    "Dirichlet": Case(
        Dirichlet(jnp.exp(ROWS)),
        lambda x: [
            scipy.stats.dirichlet.logpdf(r / r.sum(), np.exp(np.float64(a))) for r, a in zip(x, ROWS, strict=True)
        ],
        lambda d: d.concentration / jnp.sum(d.concentration, -1, keepdims=True),
        lambda d: variance_of_share(
            d.concentration / jnp.sum(d.concentration, -1, keepdims=True), jnp.sum(d.concentration, -1, keepdims=True)
        ),
    ),
    "Bernoulli": Case(
        Bernoulli(LOGITS),
        lambda x: scipy.stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-np.float64(LOGITS)))),
        lambda d: 1 / (1 + jnp.exp(-d.logits)),
        lambda d: 1 / (2 + jnp.exp(-d.logits) + jnp.exp(d.logits)),
    ),
    "Categorical": Case(
        Categorical(ROWS),
        lambda x: [
            scipy.stats.multinomial.logpmf(r, 1, p) for r, p in zip(x, scipy.special.softmax(ROWS, -1), strict=True)
        ],
        lambda d: jax.nn.softmax(d.logits),
        lambda d: jax.nn.softmax(d.logits) * (1 - jax.nn.softmax(d.logits)),
    ),
    "Poisson": Case(Poisson(RATE), lambda x: scipy.stats.poisson.logpmf(x, RATE), lambda d: d.rate, lambda d: d.rate),
}
CONTINUOUS = [name for name in CASES if name not in ("Bernoulli", "Categorical", "Poisson")]
GAMMA_FAMILY = ("Gamma", "Beta", "Dirichlet")


@functools.cache
def draws_of(name):
    return replicate(CASES[name].dist.sample, num_replicates=20_000 if name in GAMMA_FAMILY else 200_000)


@pytest.mark.parametrize("name", CASES)
def test_log_prob_is_that_of_scipy_summed_over_the_event(name):
    case = CASES[name]
    draws = draws_of(name)[:30]
    if name in CONTINUOUS and name not in ("Beta", "Dirichlet"):  # far out too, where the density is tiny
        draws = jnp.concatenate([draws, draws[:5] + 30])
    log_probs = jax.vmap(case.dist.log_prob)(draws)
    assert log_probs.shape == draws.shape[:1]
    expected = [np.sum(case.log_prob(np.float64(draw))) for draw in draws]
    np.testing.assert_allclose(log_probs, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_mean_and_variance_of_the_closed_form(name):
    case, draws = CASES[name], draws_of(name)
    mean, variance = case.mean(case.dist), case.variance(case.dist)
    np.testing.assert_allclose(case.dist.mean(), mean, rtol=1e-6)
    assert largest_z(draws, mean) < FAR
    assert largest_z((draws - mean[None]) ** 2, variance) < FAR
    # The test would see a tenth of a standard deviation.
    assert largest_z(draws, mean + 0.1 * jnp.sqrt(variance)) > FAR


@pytest.mark.parametrize("name", ["Normal", "Logistic", "Gumbel", "Laplace", "Exponential", "Gamma", "Beta"])
def test_densities_integrate_to_one(name):
    dist = jax.tree.map(lambda leaf: leaf[1], CASES[name].dist)
    if name == "Beta":
        grid = np.linspace(1e-6, 1 - 1e-6, 100_001)
    else:
        grid = np.linspace(1e-6 if name in ("Exponential", "Gamma") else -60, 60, 100_001)
    density = np.exp(jax.vmap(dist.log_prob)(jnp.asarray(grid, jnp.float32)))
    np.testing.assert_allclose(np.trapezoid(density, grid), 1.0, atol=1e-3)


@pytest.mark.parametrize("dist", [Bernoulli(LOGITS), Categorical(ROWS), Bernoulli(jnp.array(0.7))])
def test_supports_list_every_value_once_and_probabilities_sum_to_one(dist):
    support = dist.support()
    flat = np.asarray(support).reshape(len(support), -1)
    assert len(np.unique(flat, axis=0)) == len(support)
    if isinstance(dist, Bernoulli):
        assert flat.tolist() == [list(bits) for bits in itertools.product([0.0, 1.0], repeat=dist.logits.size)]
    else:
        codes = np.asarray(support).argmax(-1)
        assert codes.tolist() == [list(codes) for codes in itertools.product(range(3), repeat=2)]
        assert set(np.asarray(support).sum(-1).ravel()) == {1.0}
    np.testing.assert_allclose(np.exp(jax.vmap(dist.log_prob)(support)).sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.exp(jax.vmap(Poisson(RATE[0]).log_prob)(jnp.arange(40.0))).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_gradient_along_the_path_is_that_of_the_moments(name):
    case = CASES[name]
    weights = jnp.arange(1.0, case.dist.mean().size + 1).reshape(case.dist.mean().shape)

    def path(dist, key):
        draw = dist.reparameterize(key)
        return jnp.stack([jnp.sum(weights * draw), jnp.sum(weights * draw**2)])

    def closed_form(dist):
        mean = case.mean(dist)
        return jnp.stack([jnp.sum(weights * mean), jnp.sum(weights * (case.variance(dist) + mean**2))])

    gradients = replicate(lambda key: jax.jacrev(path)(case.dist, key))
    # Each component varies, or is the same number in every draw (as the gradient of the mean by a location is).
    for gradient, expected in zip(
        jax.tree.leaves(gradients), jax.tree.leaves(jax.jacrev(closed_form)(case.dist)), strict=True
    ):
        varies = np.ptp(gradient, axis=0) > 1e-5
        np.testing.assert_allclose(gradient[0][~varies], expected[~varies], rtol=1e-5, atol=1e-6)
        assert largest_z(gradient[:, varies], expected[varies]) < FAR


@pytest.mark.parametrize("name", CASES)
def test_no_gradient_goes_through_a_sample(name):
    gradient = jax.jit(jax.grad(lambda dist: jnp.sum(dist.sample(jax.random.key(0)) ** 2)))(CASES[name].dist)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ["Normal", "Exponential"])
def test_the_same_key_gives_the_sample_and_the_reparameterised_draw(name):
    dist = CASES[name].dist
    assert np.array_equal(dist.sample(jax.random.key(0)), dist.reparameterize(jax.random.key(0)))


CAPABILITIES = {
    Bernoulli: {"Scored", "Relaxable", "Enumerable", "MeanValued"},
    Categorical: {"Scored", "Relaxable", "Enumerable", "MeanValued"},
    Poisson: {"Scored", "MeanValued"},
    **{type(CASES[name].dist): {"Scored", "Reparameterizable", "MeanValued"} for name in CONTINUOUS},
}


@pytest.mark.parametrize("name", CASES)
def test_capabilities_are_the_documented_ones(name):
    dist = CASES[name].dist
    protocols = ["Scored", "Reparameterizable", "Relaxable", "Enumerable", "MeanValued"]
    assert {p for p in protocols if isinstance(dist, getattr(distributions, p))} == CAPABILITIES[type(dist)]
    # The docstring of the class names the same ones.
    text = " ".join(type(dist).__doc__.split())
    assert all(
        (p in text) == (p in CAPABILITIES[type(dist)]) for p in ("Scored", "Relaxable", "Enumerable", "MeanValued")
    )


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_logits_spread_evenly_have_the_same_mean_and_vary_less(temperature):
    """Of the relaxed bits, given the bits."""
    dist, bits = Bernoulli(jnp.array([-1.5, 0.3, 2.0])), jnp.array([0.0, 1.0, 1.0])

    def soft(perturbed):
        return jnp.mean(jax.vmap(lambda z: dist.soften(z, temperature=temperature))(perturbed), 0)

    def evenly(key):
        return soft(dist.perturb_given_evenly(key, bits, num=10))

    def independent(key):
        return soft(jax.vmap(lambda key: dist.perturb_given(key, bits))(jax.random.split(key, 10)))

    even, apart = replicate(evenly), replicate(independent)
    # The exact mean: the midpoint rule over the uniform number behind the noise.
    exact = soft(dist.perturb_given_evenly(jax.random.key(0), bits, num=100_000))
    assert largest_z(even, exact) < FAR
    assert largest_z(apart, exact) < FAR
    assert jnp.all(5 * jnp.var(even, 0) < jnp.var(apart, 0))
    # One of two alone has another law.
    pairs = replicate(lambda key: dist.perturb_given_evenly(key, bits, num=2))
    np.testing.assert_array_equal(pairs > 0, jnp.broadcast_to(bits == 1, pairs.shape))
    assert largest_z(jax.vmap(soft)(pairs[:, :1]), exact) > FAR


@pytest.mark.parametrize("name", ["Normal", "MultivariateNormal", "Dirichlet", "Bernoulli", "Categorical"])
def test_a_batch_is_a_vmap(name):
    dists = [jax.tree.map(lambda leaf, scale=scale: scale * leaf, CASES[name].dist) for scale in (1.0, 1.5)]

    def draw(dist, key):
        value = dist.sample(key)
        return value, dist.log_prob(value)

    @jax.jit
    def both_ways(keys):
        batch = jax.vmap(draw)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *dists), keys)
        one_by_one = [draw(dist, key) for dist, key in zip(dists, jax.random.clone(keys), strict=True)]
        return batch, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)

    batch, one_by_one = both_ways(jax.random.split(jax.random.key(0), 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), batch, one_by_one)


def test_multivariate_normal_diagonal_and_full_agree_and_what_is_above_the_diagonal_is_ignored():
    x = jnp.array([0.2, 1.4])
    diagonal, full = MultivariateNormal(LOC, SCALE), MultivariateNormal(LOC, jnp.diag(SCALE))
    np.testing.assert_allclose(diagonal.log_prob(x), full.log_prob(x), rtol=1e-6)
    np.testing.assert_allclose(diagonal.log_prob(x), Normal(LOC, SCALE).log_prob(x), rtol=1e-6)
    np.testing.assert_allclose(diagonal.sample(jax.random.key(0)), full.sample(jax.random.key(0)), rtol=1e-6)
    spoiled = MultivariateNormal(LOC, CHOLESKY.at[0, 1].set(7.0))
    clean = MultivariateNormal(LOC, CHOLESKY)
    assert float(spoiled.log_prob(x)) == float(clean.log_prob(x))
    assert np.array_equal(spoiled.sample(jax.random.key(0)), clean.sample(jax.random.key(0)))
    assert float(jax.grad(lambda d: d.log_prob(x))(spoiled).scale[0, 1]) == 0.0
    draws = replicate(clean.sample) - LOC[None]
    assert largest_z(draws[:, :, None] * draws[:, None, :], CHOLESKY @ CHOLESKY.T) < FAR


@pytest.mark.parametrize(
    ("dist", "value", "others"),
    [
        (Bernoulli(jnp.array([jnp.inf, -jnp.inf])), [1.0, 0.0], [[0.0, 0.0], [1.0, 1.0]]),
        (Categorical(jnp.array([0.0, jnp.inf, -jnp.inf])), [0.0, 1.0, 0.0], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
        (Categorical(jnp.array([-jnp.inf, 3.0])), [0.0, 1.0], [[1.0, 0.0]]),
    ],
)
def test_infinite_logits_are_limits_with_finite_gradients(dist, value, others):
    both = replicate(
        lambda key: (dist.sample(key), dist.harden(dist.perturb(jax.random.clone(key)))), num_replicates=500
    )
    for draws in both:
        assert np.all(np.asarray(draws) == np.array(value))

    @jax.jit
    def log_prob_and_gradient(value):
        return jax.value_and_grad(lambda d: d.log_prob(value))(dist)

    for some in [value, *others]:
        log_prob, gradient = log_prob_and_gradient(jnp.array(some))
        assert float(log_prob) == 0.0 if some == value else log_prob < -1e38
        assert np.isfinite(gradient.logits).all()
    mean, pull_back = jax.vjp(lambda d: d.mean(), dist)
    assert mean.tolist() == value
    assert pull_back(jnp.ones_like(mean))[0].logits.tolist() == [0.0] * len(value)


def test_log_prob_of_bits_between_the_bits_is_linear_and_its_gradient_the_residual():
    logits, value = jnp.array([-100.0, -0.5, 0.0, 3.0, 100.0]), jnp.array([0.0, 0.25, 1.0, 0.5, 1.0])
    log_prob, gradient = jax.value_and_grad(lambda d: d.log_prob(value))(Bernoulli(logits))
    wide = np.float64(logits)
    np.testing.assert_allclose(log_prob, np.sum(value * wide - np.logaddexp(0, wide)), rtol=1e-6)
    np.testing.assert_allclose(gradient.logits, value - 1 / (1 + np.exp(-wide)), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rare_bits_are_drawn_at_their_rate_in_few_bits(dtype):
    logits = jnp.full((100,), np.log(1e-3 / (1 - 1e-3)), dtype)
    probability = 1 / (1 + np.exp(-np.float64(logits[0])))
    draws = replicate(Bernoulli(logits).sample, num_replicates=20_000)
    assert draws.dtype == dtype
    assert largest_z(draws.astype(jnp.float32).mean(-1), probability) < FAR

    def by_uniform_of_few_bits(key):
        return jax.random.uniform(key, logits.shape, logits.dtype) < jax.nn.sigmoid(logits)

    naive = replicate(by_uniform_of_few_bits, num_replicates=20_000).astype(jnp.float32).mean(-1)
    # float16 has a uniform of 1 / 1024 steps, bfloat16 one of 1 / 128.
    factor = {"float16": 1.5, "bfloat16": 5.0, "float32": 0.0}[dtype]
    assert float(naive.mean()) > factor * probability
    assert (largest_z(naive, probability) > FAR) == (dtype != "float32")


def test_the_resolution_of_bits_is_a_half_step_of_a_uniform():
    def count(fires, logit):
        logits = jnp.full((1_000_000,), logit)
        return float(replicate(lambda key: fires(key, logits).sum(), num_replicates=40, chunk_size=1).sum())

    def draw(key, logits):
        return Bernoulli(logits).sample(key)

    def naive(key, logits):
        return (jax.random.uniform(key, logits.shape) < jax.nn.sigmoid(logits)).astype(jnp.float32)

    # One in a million of forty million: 40 are expected, Poisson distributed.
    assert abs(count(draw, np.log(1e-6)) - 40) < FAR * np.sqrt(40)
    # Below 2 ** -24 nothing is drawn; a uniform that can be 0 would draw it with probability 2 ** -23.
    assert count(draw, -20.0) == 0
    assert count(naive, -20.0) > 0


def test_a_rate_of_zero_counts_nothing_and_has_a_gradient():
    dist = Poisson(jnp.array([0.0, 2.0]))
    assert np.all(np.asarray(replicate(dist.sample, num_replicates=100))[:, 0] == 0)
    log_prob, gradient = jax.value_and_grad(lambda d: d.log_prob(jnp.array([0.0, 3.0])))(dist)
    np.testing.assert_allclose(log_prob, scipy.stats.poisson.logpmf(3, 2), rtol=1e-5)
    assert gradient.rate.tolist() == [-1.0, 0.5]  # n / rate - 1


def test_small_concentrations_do_not_underflow():
    # Draws are about exp(-1 / concentration): almost all of them below the least number of float32.
    def value_and_gradient(key):
        dist = Gamma(jnp.array(1e-3), jnp.array(1.0))
        return jax.value_and_grad(lambda d: d.log_prob(d.reparameterize(key)))(dist)

    values, gradients = replicate(value_and_gradient, num_replicates=500)
    assert np.isfinite(values).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
