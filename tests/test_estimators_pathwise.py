"""Pathwise and measure-valued estimators against expectations in closed form, or by quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from problems import total_variance
from replicates import FAR, agrees, largest_z, replicate

from jaxlab import estimators
from jaxlab.distributions import (
    Beta,
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
from jaxlab.estimators import pathwise_control

NUM_REPLICATES = 200_000
NORMAL = Normal(jnp.array([0.5, -1.0]), jnp.array([0.7, 1.2]))
COUNTS = Poisson(jnp.array([0.7, 2.5]))
COEFFICIENTS = jnp.array([0.5, -1.5, 2.0])


def of_normal(x, theta):
    """Couples its components: the derivative for one of them depends on the other."""
    return jnp.sum(theta[0] * x**2 + theta[1] * jnp.cos(x)) + theta[2] * x[0] * x[1]


def expected_of_normal(d, theta):
    cosines = jnp.cos(d.loc) * jnp.exp(-(d.scale**2) / 2)
    return jnp.sum(theta[0] * (d.loc**2 + d.scale**2) + theta[1] * cosines) + theta[2] * jnp.prod(d.loc)


def of_counts(x, theta):
    return jnp.sum(theta[0] * x**2 + theta[1] * jnp.exp(-x / 2)) + theta[2] * x[0] * x[1]


def expected_of_counts(d, theta):
    decays = jnp.exp(d.rate * (jnp.exp(-0.5) - 1))
    return jnp.sum(theta[0] * (d.rate**2 + d.rate) + theta[1] * decays) + theta[2] * jnp.prod(d.rate)


PROBLEMS = {"normal": (NORMAL, of_normal, expected_of_normal), "counts": (COUNTS, of_counts, expected_of_counts)}


def replicates(estimate, name):
    dist, f, _ = PROBLEMS[name]

    def value_and_gradients(key):
        def loss(dist, theta):
            return estimate(key, dist, lambda x: f(x, theta))

        return jax.value_and_grad(loss, argnums=(0, 1))(dist, COEFFICIENTS)

    return replicate(value_and_gradients, num_replicates=NUM_REPLICATES)


def exact(name):
    dist, _, expectation = PROBLEMS[name]
    return jax.jit(jax.value_and_grad(expectation, argnums=(0, 1)))(dist, COEFFICIENTS)


@pytest.mark.parametrize(
    ("name", "estimate"),
    [
        ("normal", estimators.measure_valued),
        ("counts", estimators.measure_valued),
        ("counts", functools.partial(estimators.measure_valued, num_samples=3)),
        ("normal", estimators.reparameterized_antithetic),
        ("normal", functools.partial(estimators.reparameterized_antithetic, num_samples=6)),
        ("normal", estimators.reparameterized_delta),
        ("normal", functools.partial(estimators.reparameterized_delta, num_samples=3, scale=-0.4)),
    ],
)
def test_value_and_gradient_are_unbiased(name, estimate):
    assert agrees(replicates(estimate, name), exact(name))


# Measure-valued derivatives.


@pytest.mark.parametrize("mistake", ["", "normal in place of Maxwell", "one-sided Maxwell", "no Weibull constant"])
def test_a_wrong_decomposition_of_the_normal_is_biased(mistake):
    def gradient(key):
        loc, scale = NORMAL
        x, ((to_loc, above, below), (to_scale, far, near)) = NORMAL.weak_derivatives(key)
        if mistake == "normal in place of Maxwell":
            far = loc + scale * jax.random.normal(jax.random.fold_in(key, 1), loc.shape)
        if mistake == "one-sided Maxwell":
            far, near = loc + abs(far - loc), loc + abs(near - loc)
        if mistake == "no Weibull constant":
            to_loc = 1 / scale

        def difference(i, positive, negative):
            f = functools.partial(of_normal, theta=COEFFICIENTS)
            return f(x.at[i].set(positive[i])) - f(x.at[i].set(negative[i]))

        return Normal(
            to_loc * jnp.stack([difference(i, above, below) for i in range(2)]),
            to_scale * jnp.stack([difference(i, far, near) for i in range(2)]),
        )

    with jax.debug_key_reuse(False):
        gradients = replicate(gradient, num_replicates=NUM_REPLICATES)
    assert agrees(gradients, exact("normal")[1][0]) == (mistake == "")


def test_the_measure_valued_gradient_of_a_square_has_its_known_variance():
    """f = x^2, for the mean m: (2 s W / s sqrt(2 pi)) 2 m, and so (2 m)^2 (E W^2 4 / 2 pi - 1) with E W^2 = 2."""
    m, s = 1.5, 0.7

    def gradient(key):
        return jax.grad(lambda d: estimators.measure_valued(key, d, lambda x: x**2))(Normal(jnp.array(m), jnp.array(s)))

    gradients = replicate(gradient, num_replicates=NUM_REPLICATES)
    assert largest_z((gradients.loc - 2 * m) ** 2, (2 * m) ** 2 * (4 / np.pi - 1)) < FAR
    # For s: ((m + s M)^2 - (m + s U M)^2) / s = 2 m M (1 - U) + s M^2 (1 - U^2), E M^2 = 3, E M^4 = 15.
    square = (2 * m) ** 2 * 3 / 3 + s**2 * 15 * (1 - 2 / 3 + 1 / 5)
    assert largest_z((gradients.scale - 2 * s) ** 2, square - (2 * s) ** 2) < FAR


def test_the_measure_valued_gradient_is_right_at_a_jump_where_the_pathwise_one_is_not():
    def gradients(estimate):
        def gradient(key):
            return jax.grad(lambda d: estimate(key, d, lambda x: jnp.where(x > 0.2, 1.0, 0.0) + x))(
                Normal(jnp.array(0.5), jnp.array(0.8))
            )

        return replicate(gradient, num_replicates=NUM_REPLICATES)

    density = scipy.stats.norm.pdf(0.2, 0.5, 0.8)
    expected = Normal(1 + density, density * (0.2 - 0.5) / 0.8)
    assert agrees(gradients(estimators.measure_valued), expected)
    assert not agrees(gradients(estimators.reparameterized), expected)


@pytest.mark.parametrize(("name", "other"), [("normal", "leave_one_out"), ("counts", "leave_one_out")])
def test_measure_valued_gradients_vary_less_than_the_score_function(name, other):
    variances = [
        sum(jnp.var(leaf, 0).sum() for leaf in jax.tree.leaves(replicates(estimate, name)[1][0]))
        for estimate in (estimators.measure_valued, estimators.ESTIMATORS[other].estimate)
    ]
    assert variances[0] < 0.5 * variances[1]


def test_draws_that_come_with_weak_derivatives_have_the_laws_they_should():
    def draws(key):
        x, ((_, above, below), (_, far, near)) = Normal(jnp.array(1.0), jnp.array(2.0)).weak_derivatives(key)
        return [(z - 1) / 2 for z in (x, above, below, far, near)]

    x, above, below, far, near = (np.asarray(z) for z in replicate(draws, num_replicates=20_000))
    double_maxwell = 0.5 * (1 + np.sign(far) * scipy.stats.maxwell.cdf(abs(far)))
    for uniform in (
        scipy.stats.norm.cdf(x),
        scipy.stats.rayleigh.cdf(above),
        scipy.stats.rayleigh.cdf(-below),
        double_maxwell,
        scipy.stats.norm.cdf(near),
    ):
        assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-4


# Antithetic pairs.

SYMMETRIC = {
    "Normal": NORMAL,
    "MultivariateNormal": MultivariateNormal(jnp.array([0.5, -1.0]), jnp.array([[1.0, 0.0], [0.5, 2.0]])),
    "Logistic": Logistic(*NORMAL),
    "Laplace": Laplace(*NORMAL),
}
ANTITHETIC = {**SYMMETRIC, "Gumbel": Gumbel(*NORMAL), "Exponential": Exponential(jnp.array([0.5, 2.0]))}


@pytest.mark.parametrize("name", ANTITHETIC)
def test_the_antithetic_value_is_that_at_the_opposite_quantile(name):
    with jax.enable_x64(True):
        dist = jax.tree.map(jnp.float64, ANTITHETIC[name])
        x = dist.sample(jax.random.key(0))
        partner = dist.antithetic(x)
        if name == "MultivariateNormal":
            np.testing.assert_allclose(partner - dist.loc, dist.loc - x)
        else:
            family = {"Normal": "norm", "Gumbel": "gumbel_r", "Exponential": "expon"}.get(name, name.lower())
            loc, scale = (0, 1 / dist.rate) if name == "Exponential" else dist
            cdf = functools.partial(getattr(scipy.stats, family).cdf, loc=loc, scale=scale)
            np.testing.assert_allclose(cdf(x) + cdf(partner), 1, rtol=1e-9)
        np.testing.assert_allclose(dist.antithetic(partner), x, rtol=1e-9)


@pytest.mark.parametrize("name", ANTITHETIC)
def test_antithetic_pairs_have_the_gradient_of_independent_ones_and_a_monotone_f_varies_less(name):
    def estimates(estimate):
        def f(x):
            return jnp.sum(jnp.arctan(x) - jnp.exp(-x / 4)) + x[0] / 8

        def value_and_gradient(key):
            return jax.value_and_grad(lambda d: estimate(key, d, f, num_samples=2))(ANTITHETIC[name])

        return replicate(value_and_gradient, num_replicates=NUM_REPLICATES)

    pairs, independent = estimates(estimators.reparameterized_antithetic), estimates(estimators.reparameterized)
    # The mean of one against the mean of the other: the variances add.
    for leaf, other in zip(jax.tree.leaves(pairs), jax.tree.leaves(independent), strict=True):
        assert largest_z(leaf - other, jnp.zeros(leaf.shape[1:])) < FAR
    assert pairs[0].var() < 0.6 * independent[0].var()


def test_a_partner_of_another_law_is_biased():
    def wrong(key):
        def loss(d):
            x = d.reparameterize(key)
            return (of_normal(x, COEFFICIENTS) + of_normal(d.loc - x, COEFFICIENTS)) / 2  # of mean 0

        return jax.grad(loss)(NORMAL)

    assert largest_z(replicate(wrong, num_replicates=NUM_REPLICATES), exact("normal")[1][0]) > FAR


@pytest.mark.parametrize("name", SYMMETRIC)
def test_an_odd_function_has_no_variance_in_antithetic_pairs(name):
    dist = SYMMETRIC[name]

    def loss(key):
        return estimators.reparameterized_antithetic(key, dist, lambda x: jnp.sum((x - dist.loc) ** 3))

    np.testing.assert_allclose(replicate(loss, num_replicates=50), 0, atol=1e-3)


# The delta method.


def test_a_quadratic_function_has_no_variance_left_by_the_delta_method():
    matrix = jnp.array([[1.0, -2.0], [0.5, 3.0]])

    def loss(d, key):
        return estimators.reparameterized_delta(key, d, lambda x: x @ matrix @ x + x[0])

    gradients = replicate(lambda key: jax.grad(loss)(NORMAL, key), num_replicates=100)
    expected = Normal((matrix + matrix.T) @ NORMAL.loc + jnp.array([1.0, 0.0]), 2 * jnp.diag(matrix) * NORMAL.scale)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, np.tile(e, (100, 1)), rtol=1e-4), gradients, expected)


def test_a_hessian_that_is_not_kept_gives_the_same_by_the_delta_method(monkeypatch):
    """Value, gradient, slope of the scale and Hessian; planted and found: half the diagonal."""

    def loss(parameters, scale):
        return delta_loss(jax.random.key(0), parameters, scale)

    def found():
        return [
            jax.value_and_grad(loss, argnums=(0, 1))(jnp.stack(NORMAL), jnp.array(0.7)),
            jax.hessian(loss)(jnp.stack(NORMAL), 0.7),
        ]

    expected = found()
    monkeypatch.setattr(pathwise_control, "is_small", lambda size: False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found(), expected)


def test_the_hessian_of_many_components_is_not_kept():
    """That of 4,096 components takes 64 MiB. Planted and found: kept."""

    def gradient(loc):
        def loss(loc):
            dist = Normal(loc, jnp.ones_like(loc))
            return estimators.reparameterized_delta(jax.random.key(0), dist, lambda x: jnp.sum(jnp.sin(x)) ** 2)

        return jax.grad(loss)(loc)

    program = jax.jit(gradient).lower(jax.ShapeDtypeStruct((4096,), jnp.float32)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 32 * 2**20


@pytest.mark.parametrize("term", ["", "the mean's", "the scale's"])
def test_the_delta_method_without_the_mean_of_its_expansion_is_biased(term):
    def gradient(key):
        center = jax.lax.stop_gradient(NORMAL.loc)
        f = functools.partial(of_normal, theta=COEFFICIENTS)
        slope, hessian = jax.grad(f)(center), jax.hessian(f)(center)

        def loss(d):
            x = d.reparameterize(key)
            h = slope @ (x - center) + (x - center) @ hessian @ (x - center) / 2
            mean = 0 if term == "the mean's" else slope @ (d.loc - center)
            spread = 0 if term == "the scale's" else jnp.diag(hessian) @ d.scale**2 / 2
            return f(x) - h + mean + spread

        return jax.grad(loss)(NORMAL)

    gradients = replicate(gradient, num_replicates=NUM_REPLICATES)
    assert agrees(gradients, exact("normal")[1][0]) == (term == "")


def delta_loss(key, parameters, scale):
    dist = Normal(*parameters)
    return estimators.reparameterized_delta(key, dist, lambda x: of_normal(x, COEFFICIENTS), scale=scale)


def test_the_delta_method_lowers_the_variance_and_its_scale_is_tuned_by_it():
    parameters = jnp.stack(NORMAL)
    variances = [
        total_variance(lambda key, p, s=scale: delta_loss(key, p, s), parameters)
        for scale in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert variances[4] < 0.5 * variances[0]
    slopes = replicate(
        lambda key: jax.grad(delta_loss, argnums=2)(key, parameters, jnp.array(0.5)), num_replicates=NUM_REPLICATES
    )
    # The variance is quadratic in the scale: its derivative at the middle is the central difference.
    np.testing.assert_allclose(slopes.mean(), (variances[3] - variances[1]) / 0.5, rtol=0.05)


def test_the_hessian_by_the_delta_method_and_by_antithetic_pairs_is_unbiased():
    def expectation(parameters):
        return expected_of_normal(Normal(*parameters), COEFFICIENTS)

    expected = jax.hessian(expectation)(jnp.stack(NORMAL))
    for estimate in (estimators.reparameterized_delta, estimators.reparameterized_antithetic):

        def loss(parameters, key, estimate=estimate):
            return estimate(key, Normal(*parameters), lambda x: of_normal(x, COEFFICIENTS))

        hessians = replicate(lambda key, loss=loss: jax.hessian(loss)(jnp.stack(NORMAL), key), num_replicates=50_000)
        assert agrees(hessians, expected)


# Implicit reparameterisation of the Gamma family: second moments, whose derivatives are those of rational functions.


def second_moment(dist):
    if isinstance(dist, Gamma):
        return jnp.sum(dist.concentration * (dist.concentration + 1) / dist.rate**2)
    if isinstance(dist, Beta):
        total = dist.concentration1 + dist.concentration0
        return jnp.sum(dist.concentration1 * (dist.concentration1 + 1) / (total * (total + 1)))
    total = dist.concentration.sum(-1, keepdims=True)
    weights = jnp.arange(1.0, 4.0)[None]
    return jnp.sum(weights * dist.concentration * (dist.concentration + 1) / (total * (total + 1)))


def square(x, dist):
    return jnp.sum((jnp.arange(1.0, 4.0)[None] if isinstance(dist, Dirichlet) else 1) * x**2)


@pytest.mark.parametrize(
    "dist",
    [
        Gamma(jnp.array([0.3, 3.0]), jnp.array([1.5, 2.0])),
        Beta(jnp.array([0.5, 3.0]), jnp.array([2.0, 0.8])),
        Dirichlet(jnp.array([[0.4, 1.0, 3.0], [2.0, 0.7, 1.1]])),
    ],
    ids=lambda dist: type(dist).__name__,
)
def test_implicit_paths_of_the_gamma_family_are_unbiased_and_sampled_constants_are_not(dist):
    def gradients(draw):
        return replicate(lambda key: jax.grad(draw)(dist, key), num_replicates=50_000, chunk_size=10_000)

    expected = jax.grad(second_moment)(dist)
    assert agrees(gradients(lambda d, key: estimators.reparameterized(key, d, lambda x: square(x, d))), expected)
    wrong = gradients(lambda d, key: square(d.sample(key), d))
    assert not agrees(wrong, expected)
