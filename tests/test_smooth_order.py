"""Isotonic regression, sorts, ranks and alignments beside scipy, enumeration and the textbook.

They were tried against violations planted for them, each of which failed: a ``sort`` drawn to n / 2 and not (n + 1) / 2
(isotonic regressions); an edit distance that walks along a border for nothing (the textbook).
"""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from jaxlab import smooth
from jaxlab.smooth.isotonic import _pool, _split

DISTINCT = np.float32([0.31, -1.2, 2.05, 0.9, -0.4, 1.7])


def test_no_derivative_goes_through_the_search_for_blocks():
    jaxpr = str(
        jax.make_jaxpr(jax.jvp, static_argnums=0)(smooth.isotonic, (jnp.asarray(DISTINCT),), (jnp.asarray(DISTINCT),))
    )
    alone = str(jax.make_jaxpr(smooth.isotonic)(jnp.asarray(DISTINCT)))
    assert jaxpr.count("while[") + jaxpr.count("scan[") == alone.count("while[") + alone.count("scan[") > 0


def test_sort_and_rank_are_the_two_gradients_of_one_function():
    """Of the regularised program over the permutahedron, with the projection computed by scipy."""
    x, temperature = np.sort(DISTINCT.astype(float)), 0.55

    def program(x, places):
        ranks = x / temperature - scipy.optimize.isotonic_regression(x / temperature - places).x
        return x @ ranks - temperature / 2 * np.sum((ranks - places.mean()) ** 2)

    places = np.arange(1.0, 7)
    for function, at in ((smooth.rank, 0), (smooth.sort, 1)):
        slopes = []
        for step in 1e-6 * np.eye(6):
            moved = [program(*(z + sign * step * (i == at) for i, z in enumerate((x, places)))) for sign in (1, -1)]
            slopes.append((moved[0] - moved[1]) / 2e-6)
        np.testing.assert_allclose(function(jnp.asarray(x, jnp.float32), temperature=temperature), slopes, atol=1e-5)


KINDS = {
    "normal": lambda r, n: r.normal(size=n),
    "walk": lambda r, n: np.cumsum(r.normal(size=n)),
    "ranks": lambda r, n: np.sort(r.normal(size=n)) * 30 - np.arange(n),
    "ties": lambda r, n: r.integers(0, 3, n),
    "descending": lambda r, n: -np.arange(n),
    "constant": lambda r, n: np.full(n, 0.1),
    "heavy": lambda r, n: r.standard_cauchy(n),
    "sawtooth": lambda r, n: np.arange(n) % 7,
}


@pytest.mark.parametrize("kind", KINDS)
def test_isotonic_is_scipys(kind):
    random = np.random.default_rng(0)
    for size in (1, 2, 100):
        y = KINDS[kind](random, size).astype(np.float32)
        weights = random.uniform(0.5, 2, size).astype(np.float32)
        tolerance = 3e-6 * max(1, np.abs(y).max())
        for weight in (None, weights):
            expected = scipy.optimize.isotonic_regression(y.astype(float), weights=weight).x
            actual = smooth.isotonic(jnp.asarray(y), weights=None if weight is None else jnp.asarray(weight))
            np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
        ones = jnp.ones(size)
        one, other = (jax.jit(f)(jnp.asarray(y), ones) for f in (_pool, _split))
        fits = [
            jax.ops.segment_sum(jnp.asarray(y), b, size)[b] / jax.ops.segment_sum(ones, b, size)[b]
            for b in (one, other)
        ]
        np.testing.assert_allclose(*fits, rtol=0, atol=tolerance)


def reference_rank(x, temperature):
    """The projection onto the permutahedron, by scipy's regression in float64."""
    order = np.argsort(x, kind="stable")
    scaled, places = x[order] / temperature, np.arange(1, x.size + 1)
    projected = scaled - scipy.optimize.isotonic_regression(scaled - places).x
    return projected[np.argsort(order)]


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    values=st.lists(st.integers(-20, 20), min_size=1, max_size=12), temperature=st.sampled_from([0.1, 0.5, 2.0, 50.0])
)
def test_rank_and_sort_are_isotonic_regressions(values, temperature):
    x = np.asarray(values, np.float64) / 8
    ranks = smooth.rank(jnp.asarray(x, jnp.float32), temperature=temperature)
    np.testing.assert_allclose(ranks, reference_rank(x, temperature), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(ranks.sum(), x.size * (x.size + 1) / 2, rtol=1e-5)
    drawn = np.sort(x) - temperature * (np.arange(1, x.size + 1) - (x.size + 1) / 2)
    expected = scipy.optimize.isotonic_regression(drawn).x
    assert np.abs(expected - np.sort(x)).max() <= temperature * (x.size - 1) / 2 + 1e-9
    actual = smooth.sort(jnp.asarray(x, jnp.float32), temperature=temperature)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(values=st.lists(st.integers(-3, 3), min_size=2, max_size=9), seed=st.integers(0, 99))
def test_hard_ranks_and_spearman_are_scipys(values, seed):
    x = np.asarray(values, np.float32)
    y = np.random.default_rng(seed).integers(0, 4, x.size).astype(np.float32)
    np.testing.assert_array_equal(smooth.rank(jnp.asarray(x), temperature=0), scipy.stats.rankdata(x))
    if np.ptp(x) > 0 and np.ptp(y) > 0:
        expected = scipy.stats.spearmanr(x, y).statistic
        for temperature in (0, 1e-3):
            actual = smooth.spearman(jnp.asarray(x), jnp.asarray(y), temperature=temperature)
            np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("matrix", [smooth.soft_sort, smooth.neural_sort, smooth.sinkhorn_sort])
def test_permutation_matrices_sort(matrix):
    x = jnp.array([0.3, -1.2, 2.0, 0.9])
    hard = matrix(x, temperature=0)
    np.testing.assert_array_equal(hard @ x, jnp.sort(x))
    cold = matrix(x, temperature=0.3 if matrix is smooth.sinkhorn_sort else 0.01)
    np.testing.assert_array_equal(cold.argmax(-1), hard.argmax(-1))
    np.testing.assert_allclose(matrix(x, temperature=0.5).sum(-1), 1, atol=1e-2)


def levenshtein(x, y):
    rows = list(range(len(y) + 1))
    for i, a in enumerate(x, 1):
        rows, before = [i], rows
        for j, b in enumerate(y, 1):
            rows.append(min(before[j - 1] + (a != b), before[j] + 1, rows[-1] + 1))
    return rows[-1]


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
    x=st.lists(st.integers(0, 2), min_size=1, max_size=5), y=st.lists(st.integers(0, 2), min_size=1, max_size=5)
)
def test_alignments_by_the_textbook(x, y):
    # Padded to one shape and masked: one program, and the masks are tested too.
    size = 5
    padded = [np.pad(z, (0, size - len(z)), constant_values=9 + i) for i, z in enumerate((x, y))]
    masks = {"where_rows": np.arange(size) < len(x), "where_columns": np.arange(size) < len(y)}
    equal = jnp.asarray(padded[0][:, None] == padded[1][None, :], jnp.float32)
    distance = smooth.edit_distance(1 - equal, temperature=0.0, **masks)
    assert float(distance) == levenshtein(x, y)
    assert float(smooth.edit_distance(1 - equal, temperature=1e-3, **masks)) <= float(distance) + 1e-5
    longest = max(k for k in range(6) for s in itertools.combinations(x, k) if s in set(itertools.combinations(y, k)))
    assert float(smooth.longest_common_subsequence(equal, temperature=0.0, **masks)) == longest


def test_dtw_by_enumeration_of_its_paths():
    cost = np.random.default_rng(0).uniform(size=(3, 4)).astype(np.float32)

    def paths(i, j):
        if (i, j) == (0, 0):
            return [[(0, 0)]]
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        return [[*path, (i, j)] for a, b in steps if a >= 0 and b >= 0 for path in paths(a, b)]

    lengths = np.array([sum(float(cost[cell]) for cell in path) for path in paths(2, 3)])
    np.testing.assert_allclose(smooth.dtw(jnp.asarray(cost), temperature=0.0), lengths.min(), rtol=1e-6)
    for temperature in (0.1, 1.0):
        expected = -temperature * np.log(np.exp(-lengths / temperature).sum())
        np.testing.assert_allclose(smooth.dtw(jnp.asarray(cost), temperature=temperature), expected, rtol=1e-5)


def test_dtw_divergence_is_zero_at_equality_alone():
    x = jax.random.normal(jax.random.key(0), (5, 2))
    np.testing.assert_allclose(smooth.dtw_divergence(x, x), 0, atol=1e-6)
    assert smooth.dtw_divergence(x, x[::-1]) > 0.1
    assert smooth.dtw((x[:, None, 0] - x[None, :, 0]) ** 2) < 0  # soft-DTW itself is not a divergence


def test_dtw_divergence_keeps_no_differences_of_all_features():
    """Of 64 vectors of 4,096 features each they would take 64 MiB. Planted and found: all of them at once."""
    x = jnp.zeros((64, 4096))
    program = jax.jit(jax.value_and_grad(smooth.dtw_divergence)).lower(x, x).compile()
    assert program.memory_analysis().temp_size_in_bytes < 32 * 2**20
