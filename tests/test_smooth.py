"""Smooth functions against the hard ones: limits, stated bounds, masks, ties; and independent implementations.

The laws were tried against violations planted for them, each of which failed: a ``step`` at temperature 0 that is 1
at 0 (bit for bit); a ``relu`` at twice the temperature (the bound); a median that counts masked elements (a mask is
deletion); the search for a threshold without its second part, of tails in logarithms (the median, and the plain
bisection); the rule of ``isotonic`` without the tangents of the weights (derivatives); a ``sort`` drawn to n / 2
and not (n + 1) / 2 (isotonic regressions); an edit distance that walks along a border for nothing (the textbook).
"""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from jax.test_util import check_grads

from jaxlab import smooth
from jaxlab.smooth import SMOOTH
from jaxlab.smooth.isotonic import _pool, _split

ROWS = [pytest.param(row, id=name) for name, row in SMOOTH.items()]
DISTINCT = np.float32([0.31, -1.2, 2.05, 0.9, -0.4, 1.7])
# Sizes 1, 2, odd, even; ties; a constant; large numbers.
DATA = [[0.7], [0.3, -0.2], [1.0, 1.0, -2.0], DISTINCT, [0.25] * 5, [0.0, 3.0, 3.0, 3.0, 1.0], [1e3, -1e3, 0.3]]


@pytest.mark.parametrize("row", ROWS)
def test_the_static_temperature_0_is_the_hard_function_bit_for_bit(row):
    for x in DATA:
        x = jnp.asarray(x, jnp.float32)
        np.testing.assert_array_equal(row.soft(x, temperature=0), row.hard(x))
        np.testing.assert_array_equal(jax.jit(lambda x: row.soft(x, temperature=0.0))(x), row.hard(x))


@pytest.mark.parametrize("row", ROWS)
def test_the_error_stays_within_its_bound(row):
    rounding = 4e-6
    for x, temperature in itertools.product(DATA, (1e-4, 0.03, 0.5, 4.0)):
        x = jnp.asarray(x, jnp.float32)
        error = jnp.abs(row.soft(x, temperature=temperature) - row.hard(x))
        bound = jnp.broadcast_to(row.bound(x, temperature), error.shape)
        squares = row in (SMOOTH["dtw"], SMOOTH["dtw_divergence"])
        scale = 1 + float(jnp.max(jnp.abs(x))) ** (2 if squares else 1) + x.size
        assert np.all(error <= bound + rounding * scale), (x, temperature, error, bound)


@pytest.mark.parametrize("name", ["relu", "square_plus", "absolute", "step", "sign", "maximum", "minimum", "mellowmax"])
def test_the_bound_is_reached(name):
    """At the kink, or where all are tied: a bound that is only half as large is violated."""
    row, temperature = SMOOTH[name], 0.5
    x = jnp.zeros(4)
    error = jnp.abs(row.soft(x, temperature=temperature) - row.hard(x)).max()
    if name == "minimum":
        error = jnp.abs(row.soft(x, temperature=temperature))
    assert name in ("step", "sign", "mellowmax") or error > 0.99 * jnp.max(row.bound(x, temperature))
    assert jnp.max(row.bound(x, temperature)) >= error


def test_the_bound_of_boltzmann_is_lamberts():
    for size in (2, 10, 1000):
        supremum = float(scipy.special.lambertw((size - 1) / np.e).real)
        # One element above n - 1 ties, by the gap 1 + W that attains it.
        x = jnp.zeros(size).at[0].set(1 + supremum)
        np.testing.assert_allclose(x[0] - smooth.boltzmann(x), supremum, rtol=1e-5)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_few_bits_in_and_float32_inside(row, dtype):
    x = jnp.asarray([0.5, -1.0, 2.0, 0.25], dtype)
    low, wide = row.soft(x, temperature=0.5), row.soft(x.astype(jnp.float32), temperature=0.5)
    assert low.dtype in (x.dtype, jnp.float32)
    np.testing.assert_array_equal(low, wide.astype(low.dtype))


def check_derivatives(function, *arguments):
    """Jacobian-vector and vector-Jacobian products, and Hessian-vector products, against finite differences."""
    with jax.enable_x64(True):
        arguments = [jnp.asarray(x, jnp.float64) for x in arguments]
        compiled = jax.jit(function)
        check_grads(compiled, arguments, order=1, modes=("fwd", "rev"), rtol=1e-4)
        result = jax.eval_shape(compiled, *arguments)
        direction = jnp.cos(jnp.arange(result.size, dtype=result.dtype)).reshape(result.shape)
        along = jax.grad(lambda *x: jnp.sum(direction * compiled(*x)), range(len(arguments)))
        check_grads(along, arguments, order=1, modes=("fwd",), rtol=1e-4)


@pytest.mark.parametrize("row", ROWS)
def test_derivatives_forward_reverse_and_second(row):
    temperature = {"rank": 1.3, "sort": 0.55}.get(next(n for n, r in SMOOTH.items() if r is row), 0.7)
    check_derivatives(functools.partial(row.soft, temperature=temperature), DISTINCT)


def test_derivatives_of_isotonic_for_values_and_weights():
    """The mean of a block is curved in its weights: the Hessian tests the rule's own derivative."""
    weights = np.array([1.0, 0.5, 2.0, 1.0, 0.25, 1.5])
    fit = jnp.asarray(smooth.isotonic(jnp.asarray(DISTINCT), weights=jnp.asarray(weights, jnp.float32)))
    assert 1 < len(np.unique(fit)) < 6  # blocks of one, and of more
    valid = jnp.array([True, False, True, True, False, True])
    check_derivatives(lambda y, w: smooth.isotonic(y, weights=w, where=valid), DISTINCT, weights)
    # Forward, reverse and the rule on paper: the projection onto what is constant on the blocks.
    same = np.equal.outer(np.asarray(fit), np.asarray(fit))
    expected = same * weights / (same @ weights)[:, None]
    for jacobian in (jax.jacfwd, jax.jacrev):
        actual = jacobian(lambda y: smooth.isotonic(y, weights=jnp.asarray(weights, jnp.float32)))(
            jnp.asarray(DISTINCT)
        )
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


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


@pytest.mark.parametrize("name", ["rank", "sort", "maximum", "median", "threshold", "trimmed_mean", "absolute", "relu"])
def test_the_temperature_is_in_the_unit_of_the_data(name):
    """Metres or millimetres: data and temperature times 1,000 give the same ranks, and 1,000 times the values."""
    row, x = SMOOTH[name], jnp.asarray(DISTINCT)
    scale = 1.0 if name == "rank" else 1000.0
    np.testing.assert_allclose(
        row.soft(1000 * x, temperature=550.0), scale * row.soft(x, temperature=0.55), rtol=1e-5, atol=1e-5 * scale
    )


ALONG = ("maximum", "minimum", "mellowmax", "boltzmann", "one_hot_argmax", "argmax", "sparsemax", "entmax", "median")
MASKABLE = (*ALONG, "rank", "sort", "pairwise_rank", "trimmed_mean", "isotonic")


@pytest.mark.parametrize("name", MASKABLE)
@pytest.mark.parametrize("temperature", [0.0, 1e-3, 0.5])
def test_a_mask_is_deletion(name, temperature):
    function = getattr(smooth, name)
    options = {} if name == "isotonic" else {"temperature": temperature}
    x = jnp.asarray(DISTINCT)
    valid = np.array([True, False, True, True, False, True])
    padded = jnp.where(valid, x, -jnp.inf)
    masked = np.asarray(function(padded, where=jnp.asarray(valid), **options))
    alone = np.asarray(function(x[np.flatnonzero(valid)], **options))
    if name == "argmax":  # indices into what is left
        if temperature == 0:
            assert np.flatnonzero(valid)[int(alone)] == int(masked)
    elif masked.ndim == 0:
        np.testing.assert_allclose(masked, alone, rtol=1e-5)
    else:
        kept = masked[: valid.sum()] if name == "sort" else masked[valid]
        np.testing.assert_allclose(kept, alone, rtol=1e-5, atol=1e-6)
        assert not (masked[valid.sum() :] if name == "sort" else masked[~valid]).any()


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_median_and_top_k_at_every_temperature(temperature, size):
    x = jax.random.normal(jax.random.key(size), (size,))
    k = max(1, size // 3)
    mask = smooth.top_k_mask(x, k, temperature=temperature)
    np.testing.assert_allclose(mask.sum(), k, rtol=1e-5)
    assert (np.diff(np.asarray(mask)[np.argsort(x)]) >= 0).all()
    gradient = jax.grad(lambda x: smooth.median(x, temperature=temperature))(x)
    np.testing.assert_allclose(gradient.sum(), 1, rtol=1e-5)
    if temperature == 1e-6:
        np.testing.assert_allclose(smooth.median(x, temperature=temperature), jnp.median(x), atol=2e-6)
        if size < 4096:  # beyond, some gaps are below the temperature
            np.testing.assert_allclose(mask, smooth.top_k_mask(x, k, temperature=0), atol=1e-4)


def test_a_plain_bisection_would_miss_the_median_of_an_even_number():
    x = jnp.array([0.0, 0.1, 3.0, 3.1])
    low, high = jnp.zeros(()), jnp.full((), 3.1)
    for _ in range(40):
        middle = (low + high) / 2
        large = jnp.sum(jax.nn.sigmoid((x - middle) / 1e-4)) > 2
        low, high = jnp.where(large, middle, low), jnp.where(large, high, middle)
    assert abs(float(low) - 1.55) > 0.1
    np.testing.assert_allclose(smooth.median(x, temperature=1e-4), 1.55, rtol=1e-6)


def test_ties_share_equally():
    np.testing.assert_allclose(smooth.top_k_mask(jnp.full(7, 1e4), 2, temperature=1e-6), 2 / 7, rtol=1e-5)
    tied = smooth.top_k_mask(jnp.array([5.0, 1.0, 1.0, 0.0]), 2, temperature=1e-3)
    np.testing.assert_allclose(tied, [1, 0.5, 0.5, 0], atol=1e-5)
    np.testing.assert_allclose(smooth.rank(jnp.array([2.0, 1.0, 2.0]), temperature=1e-3), [2.5, 1, 2.5])
    np.testing.assert_allclose(smooth.one_hot_argmax(jnp.array([2.0, 1.0, 2.0]), temperature=1e-3), [0.5, 0, 0.5])


def test_quantiles_are_numpys():
    x = np.random.default_rng(0).normal(size=20).astype(np.float32)
    for q in (0.0, 0.05, 0.1, 0.33, 0.5, 0.75, 0.9, 1.0):
        expected = np.quantile(x, q, method="averaged_inverted_cdf")
        np.testing.assert_allclose(smooth.quantile(jnp.asarray(x), q, temperature=0), expected, rtol=1e-6)
        if 0 < q < 1:
            np.testing.assert_allclose(smooth.quantile(jnp.asarray(x), q, temperature=1e-5), expected, atol=1e-4)


def test_trimmed_mean_is_scipys():
    x = np.random.default_rng(0).normal(size=21).astype(np.float32)
    for proportion in (0.0, 0.1, 0.25, 0.4):
        expected = scipy.stats.trim_mean(x, proportion)
        for temperature in (0, 1e-5):
            actual = smooth.trimmed_mean(jnp.asarray(x), proportion=proportion, temperature=temperature)
            np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_simplexes_by_enumeration_of_their_supports():
    x = jnp.asarray(DISTINCT)
    # Sparsemax: the largest support whose mean threshold leaves all of it positive.
    descending = np.sort(DISTINCT)[::-1].astype(np.float64)
    support = max(s for s in range(1, 7) if descending[s - 1] > (descending[:s].sum() - 1) / s)
    threshold = (descending[:support].sum() - 1) / support
    np.testing.assert_allclose(smooth.sparsemax(x), np.maximum(DISTINCT - threshold, 0), atol=1e-6)
    np.testing.assert_allclose(smooth.entmax(x, alpha=2.0), smooth.sparsemax(x), atol=1e-6)
    np.testing.assert_allclose(smooth.entmax(x, alpha=1.001), smooth.one_hot_argmax(x), atol=2e-3)
    np.testing.assert_allclose(smooth.entmax(x).sum(), 1, rtol=1e-5)


def test_grad_top_k_by_enumeration_of_subsets():
    weights = np.exp(DISTINCT.astype(np.float64) / 0.5)
    inclusion, total = np.zeros(6), 0.0
    for subset in itertools.combinations(range(6), 3):
        product = np.prod(weights[list(subset)])
        total += product
        inclusion[list(subset)] += product
    actual = smooth.grad_top_k(jnp.asarray(DISTINCT), k=3, temperature=0.5)
    np.testing.assert_allclose(actual, inclusion / total, rtol=1e-5)
    many = smooth.grad_top_k(jax.random.normal(jax.random.key(0), (200,)), k=50, temperature=0.01)
    np.testing.assert_allclose(many.sum(), 50, rtol=5e-4)  # logarithms of about 10,000 in float32


def test_the_iterative_top_k_fails_as_its_documentation_says():
    assert smooth.iterative_top_k(jnp.array([1.0, 0.0]), k=2, temperature=0.01).max() > 1.4


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


def test_nothing_valid_has_a_stated_value_and_no_nan_in_its_gradient():
    x, nothing = jnp.array([-jnp.inf, 1.0]), jnp.zeros(2, bool)
    stated = {"maximum": -np.inf, "mellowmax": -np.inf, "boltzmann": -np.inf, "minimum": np.inf}
    for name in MASKABLE:
        function = getattr(smooth, name)
        value = np.asarray(function(x, where=nothing))
        np.testing.assert_array_equal(value, np.full(value.shape, stated.get(name, 0.0)))
        gradient = jax.grad(lambda x: jnp.sum(jnp.nan_to_num(function(x, where=nothing))))(x)  # noqa: B023
        np.testing.assert_array_equal(gradient, 0)


def test_bad_input_is_refused():
    x = jnp.array([1.0, 2.0, 3.0])
    for name in (*ALONG, "rank", "sort", "step", "round", "pairwise_rank"):
        with pytest.raises(ValueError, match=f"^{name}: temperature must not be negative; got -1"):
            getattr(smooth, name)(x, temperature=-1.0)
    for name in ("rank", "maximum", "median"):
        with pytest.raises(ValueError, match="axis must be an axis of x"):
            getattr(smooth, name)(x, axis=1)
        with pytest.raises(ValueError, match="must not be empty"):
            getattr(smooth, name)(x[:0])
    for k in (0, 4):
        with pytest.raises(ValueError, match=rf"^top_k_mask: k must lie in 1 \.\.\. 3; got {k}"):
            smooth.top_k_mask(x, k)
    with pytest.raises(ValueError, match=r"^grad_top_k: k must be at least 1; got 0"):
        smooth.grad_top_k(x, k=0)
    with pytest.raises(ValueError, match=r"^quantile: q must lie in 0 \.\.\. 1; got 1.5"):
        smooth.quantile(x, 1.5)
    with pytest.raises(ValueError, match=r"^entmax: alpha must lie in \(1, 2\]; got 3"):
        smooth.entmax(x, alpha=3.0)


def test_the_second_derivative_of_a_threshold_through_a_scan_is_refused_or_right():
    """JAX may differentiate the search itself there, in which nothing depends on anything: it must not be silent."""
    x = jnp.asarray(DISTINCT)

    def through_scan(x):
        return jax.lax.scan(lambda c, _: (smooth.median(c, temperature=0.5) * jnp.sin(c), None), x, length=2)[0].sum()

    expected = jax.jacfwd(jax.jacfwd(through_scan))(x)
    try:
        actual = jax.jacrev(jax.jacrev(through_scan))(x)
    except TypeError as error:
        if "second derivative" not in str(error):
            raise
    else:
        np.testing.assert_allclose(actual, expected, atol=1e-3)
