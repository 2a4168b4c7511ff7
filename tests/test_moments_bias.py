"""Biased and unbiased statistics: by Monte Carlo the U version passes and the V version fails; and against libraries.

The wrong variant of each z-test (n in place of n - 1; the diagonal left in) is one of its cases, and must fail.
Planted in the library, these failed: a variance over n; k3 with the factor n / (n - 1); a standard deviation
without c4; MMD, HSIC and the U-statistic of three with their diagonals; a jackknife with n for n - 1; a delta
method with the whole curvature for half of it; a merge of third moments with one sign exchanged.
"""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.covariance
from replicates import FAR, largest_z, replicate

from jaxlab import _chunks, moments

SKEWED = lambda key, n: jax.random.exponential(key, (n,))  # noqa: E731
NORMAL = lambda key, n: jax.random.normal(key, (n,))  # noqa: E731
# Exponential: cumulants (k - 1)!; normal: 1 and 0.
STATISTICS = {
    "variance": (moments.variance, SKEWED, 5, 1.0),
    "third_cumulant": (moments.third_cumulant, SKEWED, 8, 2.0),
    "fourth_cumulant": (moments.fourth_cumulant, SKEWED, 12, 6.0),
    "standard_deviation": (moments.standard_deviation, NORMAL, 4, 1.0),
    "kurtosis": (moments.kurtosis, NORMAL, 6, 0.0),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_the_unbiased_statistic_is_and_the_biased_one_is_not(name):
    function, draw, size, truth = STATISTICS[name]

    def both(key):
        samples = draw(key, size)
        return function(samples, unbiased=True), function(samples, unbiased=False)

    unbiased, biased = replicate(both, num_replicates=40_000)
    assert largest_z(unbiased, truth) < FAR
    assert largest_z(biased, truth) > FAR


def pair_of(key, size=8):
    return jax.random.normal(key, (2, size, 2))


PAIRS = {
    "mmd": (moments.mmd, 0.0),
    "hsic": (moments.hsic, 0.0),
    "energy_distance": (moments.energy_distance, 0.0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_independent_pairs_are_at_distance_zero_without_the_diagonal_only(name):
    function, truth = PAIRS[name]

    def both(key):
        x, y = pair_of(key)
        return function(x, y, unbiased=True), function(x, y, unbiased=False)

    unbiased, biased = replicate(both)
    assert largest_z(unbiased, truth) < FAR
    assert largest_z(biased, truth) > FAR


def test_pairs_of_many_samples_are_more_than_an_integer_counts():
    """Of 65,536 there are 2 ** 32 pairs. Found: averages that divided by an array's integer."""
    x = jax.ShapeDtypeStruct((2**16, 2), jnp.float32)
    for function in (moments.mmd, moments.hsic, moments.centered_kernel_alignment, moments.energy_distance):
        for unbiased in (True, False):
            assert jax.eval_shape(functools.partial(function, unbiased=unbiased), x, x).shape == ()
    line = jax.ShapeDtypeStruct((2**16,), jnp.float32)
    for unbiased in (True, False):
        assert jax.eval_shape(functools.partial(moments.kendall, unbiased=unbiased), line, line).shape == ()
        assert jax.eval_shape(functools.partial(moments.gini, unbiased=unbiased), line).shape == ()


def test_kendall_and_mean_difference():
    def both(key):
        x, noise = jax.random.normal(key, (2, 6))
        y = x + noise  # correlation 1 / sqrt(2): tau is 2 / pi * arcsin of it, 1/2
        return [moments.kendall(x, y, unbiased=unbiased) for unbiased in (True, False)]

    unbiased, biased = replicate(both)
    assert largest_z(unbiased, 0.5) < FAR
    assert largest_z(biased, 0.5) > FAR
    sample = jnp.array([1.0, 2.0, 4.0, 9.0])
    differences = np.abs(np.subtract.outer(sample, sample)).sum()
    np.testing.assert_allclose(moments.gini(sample), differences / 12 / 2 / 4, rtol=1e-6)
    np.testing.assert_allclose(moments.gini(sample, unbiased=False), differences / 16 / 2 / 4, rtol=1e-6)


def test_u_and_v_statistics_of_three():
    kernel = lambda x, y, z: x * y * z  # noqa: E731

    def both(key):
        samples = 0.5 + jax.random.normal(key, (5,))
        return moments.u_statistic(kernel, order=3)(samples), moments.v_statistic(kernel, order=3)(samples)

    unbiased, biased = replicate(both)
    assert largest_z(unbiased, 0.125) < FAR
    assert largest_z(biased, 0.125) > FAR


def product_of_differences(x, y, z):
    return (x - y) * (y - z) ** 2


OVER_ALL_SAMPLES = {
    "u_statistic": lambda x: moments.u_statistic(product_of_differences, order=3)(x),
    "v_statistic": lambda x: moments.v_statistic(product_of_differences, order=3)(x),
    "of single samples": lambda x: moments.u_statistic(jnp.sin, order=1)(x),
    "jackknife": lambda x: moments.jackknife(jnp.var)(x).value,
    "bootstrap": lambda x: jnp.sum(moments.bootstrap(jnp.var, num_resamples=7)(jax.random.key(0), x).percentile),
}


@pytest.mark.parametrize("name", OVER_ALL_SAMPLES)
def test_some_samples_at_a_time_give_what_all_at_once_give(name, monkeypatch):
    x = jnp.array([0.3, -1.0, 2.0, 0.7, 1.1])

    def value_and_gradient():
        return jax.jit(jax.value_and_grad(lambda x: OVER_ALL_SAMPLES[name](x)))(x)

    expected = value_and_gradient()
    monkeypatch.setattr(_chunks, "NUMBERS", 10)  # two samples at a time, and of three places one
    for one, other in zip(value_and_gradient(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


OVER_PAIRS = {
    "u_statistic": moments.u_statistic(lambda x, y: jnp.abs(x - y)),
    "v_statistic": moments.v_statistic(lambda x, y: jnp.abs(x - y)),
    "jackknife": lambda x: moments.jackknife(jnp.var)(x).value,
    "bootstrap": lambda x: moments.bootstrap(jnp.var)(jax.random.key(0), x).standard_error,
}


@pytest.mark.parametrize("name", OVER_PAIRS)
def test_no_matrix_of_all_pairs_is_kept(name):
    """Planted and found: all samples at once, and rows that are not made again for the derivative."""
    size = 4096
    program = jax.jit(jax.grad(OVER_PAIRS[name])).lower(jax.ShapeDtypeStruct((size,), jnp.float32)).compile()
    assert program.memory_analysis().temp_size_in_bytes < size**2 * 4 / 2


OF_VECTORS = {
    "hsic": lambda x, y: moments.hsic(x, y),
    "energy_distance": lambda x, y: moments.energy_distance(x, y),
    "u_statistic": lambda x, y: moments.u_statistic(lambda a, b: jnp.sum(jnp.abs(a - b)))(x + y),
}


@pytest.mark.parametrize("name", OF_VECTORS)
def test_not_all_features_of_all_pairs_are_kept(name):
    """Planted and found: as many rows for vectors as for numbers."""
    size, dim = 256, 512
    shape = jax.ShapeDtypeStruct((size, dim), jnp.float32)
    program = jax.jit(jax.grad(OF_VECTORS[name])).lower(shape, shape).compile()
    assert program.memory_analysis().temp_size_in_bytes < size**2 * dim * 4 / 8


def test_the_gradient_of_a_u_statistic_is_unbiased():
    def gradients(key):
        noise = jax.random.normal(key, (4,))

        def of(make):
            return jax.grad(lambda scale: make(lambda x, y: (x - y) ** 2 / 2)(scale * noise))(2.0)

        return of(moments.u_statistic), of(moments.v_statistic)

    unbiased, biased = replicate(gradients)
    assert largest_z(unbiased, 4.0) < FAR
    assert largest_z(biased, 4.0) > FAR


def test_a_function_of_a_mean_by_jackknife_delta_and_multilevel():
    # E x = 1/2, variance 1: the plug-in of the square is too large by 1 / n, and both corrections take it all off.
    def estimates(key):
        samples = 0.5 + jax.random.normal(key, (6,))
        square = lambda m: m**2  # noqa: E731
        plug_in = lambda x: square(jnp.mean(x))  # noqa: E731
        return plug_in(samples), moments.jackknife(plug_in)(samples).value, moments.delta(square)(samples).value

    plug_in, jackknifed, corrected = replicate(estimates)
    assert largest_z(plug_in, 0.25) > FAR
    assert largest_z(jackknifed, 0.25) < FAR
    assert largest_z(corrected, 0.25) < FAR
    levels = moments.multilevel(jnp.square, max_level=6)
    unbiased = replicate(lambda key: levels(key, lambda key: 0.5 + jax.random.normal(key)))
    # What is left is the bias of 128 samples, 0.008; its standard error is more.
    assert largest_z(unbiased, 0.25 + 1 / 128) < FAR


def test_log_mean_exp_of_lognormal_weights():
    """The log of the mean of eight lognormal weights: the plug-in is 0.09 too low, the jackknife nearly right."""

    def estimates(key):
        result = moments.log_mean_exp(jax.random.normal(key, (8,)))
        return result.value + result.bias, result.value

    plug_in, jackknifed = replicate(estimates)
    assert largest_z(plug_in, 0.5) > 20
    assert abs(float(jackknifed.mean()) - 0.5) < 0.02 < 0.08 < abs(float(plug_in.mean()) - 0.5)
    weights = jax.random.normal(jax.random.key(0), (8,))
    general = moments.jackknife(lambda x: jax.nn.logsumexp(x) - jnp.log(float(x.shape[0])))(weights)
    for one, other in zip(moments.log_mean_exp(weights), general, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_standard_errors_are_the_spread_of_the_estimates():
    def estimates(key):
        samples = 2 + jax.random.normal(key, (40,))
        jackknifed = moments.jackknife(lambda x: jnp.log(jnp.mean(x)))(samples)
        corrected = moments.delta(jnp.log)(samples)
        return jackknifed.value, jackknifed.standard_error, corrected.standard_error

    values, first, second = replicate(estimates, num_replicates=5000)
    for errors in (first, second):
        np.testing.assert_allclose(jnp.sqrt(jnp.mean(errors**2)), values.std(), rtol=0.05)


def test_bootstrap_intervals_cover():
    interval = moments.bootstrap(jnp.mean, num_resamples=200, level=0.9)

    def covered(key):
        data_key, key = jax.random.split(key)
        result = interval(key, jax.random.exponential(data_key, (60,)))
        return [(low < 1) & (high > 1) for low, high in (result.percentile, result.accelerated)]

    for share in replicate(covered, num_replicates=1000):
        assert 0.84 < share.mean() < 0.94  # known to be a little short of 0.9 for 60 skewed samples


def test_against_scipy_and_scikit_learn():
    x = np.random.default_rng(0).gamma(2.0, size=(30, 4)).astype(np.float32)
    column = x[:, 0].astype(np.float64)
    for bias in (True, False):
        options = {"unbiased": not bias}
        np.testing.assert_allclose(
            moments.skewness(jnp.asarray(x), **options)[0], scipy.stats.skew(column, bias=bias), rtol=1e-4
        )
        np.testing.assert_allclose(
            moments.kurtosis(jnp.asarray(x), **options)[0], scipy.stats.kurtosis(column, bias=bias), rtol=1e-4
        )
        np.testing.assert_allclose(moments.covariance(jnp.asarray(x), **options), np.cov(x.T, ddof=1 - bias), rtol=1e-4)
    for order, function in ((2, moments.variance), (3, moments.third_cumulant), (4, moments.fourth_cumulant)):
        np.testing.assert_allclose(function(jnp.asarray(x))[0], scipy.stats.kstat(column, order), rtol=1e-4)
    for ours, theirs in (
        (moments.ledoit_wolf, sklearn.covariance.ledoit_wolf),
        (moments.oracle_approximating, sklearn.covariance.oas),
    ):
        covariance, shrinkage = theirs(x.astype(np.float64))
        np.testing.assert_allclose(ours(jnp.asarray(x)).covariance, covariance, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(ours(jnp.asarray(x)).shrinkage, shrinkage, rtol=1e-3)
    y = np.random.default_rng(1).normal(size=30).astype(np.float32)
    np.testing.assert_allclose(
        moments.kendall(jnp.asarray(x[:, 0]), jnp.asarray(y)), scipy.stats.kendalltau(column, y).statistic, atol=1e-6
    )


def test_weights_as_repetitions_and_without_scale():
    x, counts = jnp.array([1.0, 4.0, 2.0]), jnp.array([2.0, 1.0, 3.0])
    repeated = jnp.array([1.0, 1, 4, 2, 2, 2])
    np.testing.assert_allclose(moments.mean(x, weights=counts), repeated.mean(), rtol=1e-6)
    for unbiased in (True, False):
        actual = moments.variance(x, frequencies=counts, unbiased=unbiased)
        np.testing.assert_allclose(actual, np.var(repeated, ddof=int(unbiased)), rtol=1e-6)
    np.testing.assert_allclose(
        moments.variance(x, reliabilities=counts), moments.variance(x, reliabilities=10 * counts), rtol=1e-6
    )
    np.testing.assert_allclose(moments.variance(x, reliabilities=jnp.ones(3)), moments.variance(x), rtol=1e-6)

    def estimate(key):  # samples of one mean and of variance 1 / weight: reliability weights, times their harmonic mean
        weights = jnp.array([1.0, 2.0, 4.0])
        return moments.variance(jax.random.normal(key, (3,)), reliabilities=weights)

    assert largest_z(replicate(estimate), 1.0) < FAR


def test_standard_deviations_of_the_reference_table():
    """The mean of each estimate for n = 5 normal samples: 0.841 for n, 0.940 for n - 1 (c4), 1 corrected."""

    def estimates(key):
        samples = jax.random.normal(key, (5,))
        return (
            moments.standard_deviation(samples, unbiased=False),
            jnp.sqrt(moments.variance(samples)),
            moments.standard_deviation(samples),
        )

    biased, root, corrected = replicate(estimates, num_replicates=40_000)
    c4 = np.sqrt(2 / 4) * scipy.special.gamma(2.5) / scipy.special.gamma(2)
    assert largest_z(biased, c4 * np.sqrt(4 / 5)) < FAR
    assert largest_z(root, c4) < FAR
    assert largest_z(root, 1.0) > FAR
    assert largest_z(corrected, 1.0) < FAR


def test_alignment_of_independent_representations():
    """Linear CKA of 50 independent examples in 1,000 dimensions: 0.95 with the diagonal, 0 without."""
    x, y = jax.random.normal(jax.random.key(0), (2, 50, 1000))
    biased = moments.centered_kernel_alignment(x, y, unbiased=False)
    np.testing.assert_allclose(biased, 0.953, atol=0.003)
    assert abs(moments.centered_kernel_alignment(x, y)) < 0.1
    np.testing.assert_allclose(moments.centered_kernel_alignment(x, 2 * x), 1, rtol=1e-5)


def test_hsic_by_its_definition_over_four_different_samples():
    x, y = (np.asarray(z, np.float64) for z in pair_of(jax.random.key(0), 6))
    k, h = x @ x.T, y @ y.T
    total, count = 0.0, 0
    for i in range(6):
        for j in range(6):
            for q in range(6):
                for r in range(6):
                    if len({i, j, q, r}) == 4:
                        total += k[i, j] * (h[i, j] + h[q, r] - 2 * h[i, q])
                        count += 1
    actual = moments.hsic(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), kernel=moments.linear_kernel)
    np.testing.assert_allclose(actual, total / count, rtol=1e-4)


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4), order=st.randoms(use_true_random=False))
def test_higher_moments_merge_in_any_split_and_order(sizes, order):
    values = np.random.default_rng(len(sizes)).gamma(2, size=(sum(sizes), 2)).astype(np.float32) + np.float32(100)
    parts = [jnp.asarray(part) for part in np.split(values, np.cumsum(sizes)[:-1])]
    order.shuffle(parts)
    higher = functools.reduce(moments.CentralMoments.merge, map(moments.central_moments_of, parts))
    products = functools.reduce(moments.CoMoments.merge, map(moments.co_moments_of, parts))
    assert int(higher.num_samples) == int(products.num_samples) == len(values)
    if len(values) > 1:
        deviations = values.astype(np.float64) - values.astype(np.float64).mean(0)
        for power, sums in zip((2, 3, 4), higher[2:], strict=True):
            np.testing.assert_allclose(sums, (deviations**power).sum(0), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(products.covariance(), np.cov(values.astype(np.float64).T), rtol=1e-3, atol=1e-4)


def test_too_few_samples_are_refused():
    one, three = jnp.ones((1, 2)), jnp.ones((3, 2))
    for function, samples, needed in (
        (moments.variance, one, 2),
        (moments.standard_deviation, one, 2),
        (moments.third_cumulant, one, 3),
        (moments.fourth_cumulant, three, 4),
        (moments.kurtosis, three, 4),
        (functools.partial(moments.hsic, three), three, 4),
        (functools.partial(moments.centered_kernel_alignment, three), three, 4),
        (moments.jackknife(jnp.mean), one, 2),
        (moments.u_statistic(lambda x, y: x @ y), one, 2),
    ):
        with pytest.raises(ValueError, match=f"at least {needed} samples are needed; got {samples.shape[0]}"):
            function(samples)
    with pytest.raises(ValueError, match=r"rate must lie in \(1/2, 3/4\)"):
        moments.multilevel(jnp.log, rate=0.8)
    with pytest.raises(ValueError, match="frequencies or reliabilities; got both"):
        moments.variance(three, frequencies=jnp.ones(3), reliabilities=jnp.ones(3))
