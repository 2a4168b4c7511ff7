"""Smooth functions against the hard ones: limits, stated bounds, masks, ties; thresholds by enumeration.

The laws were tried against violations planted for them, each of which failed: a ``step`` at temperature 0 that is 1
at 0 (bit for bit); a ``relu`` at twice the temperature (the bound); a median that counts masked elements (a mask is
deletion); the search for a threshold without its second part, of tails in logarithms (the median, and the plain
bisection); the rule of ``isotonic`` without the tangents of the weights (derivatives).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

from jaxlab import smooth
from jaxlab.smooth import SMOOTH

ROWS = [pytest.param(row, id=name) for name, row in SMOOTH.items()]
DISTINCT = np.float32([0.31, -1.2, 2.05, 0.9, -0.4, 1.7])
# Sizes 1, 2, odd, even (no more, for each is compiled); ties; a constant; large numbers.
DATA = [[0.7], [0.3, -0.2], DISTINCT]
DATA += [[0.25] * 5, [0.0, 3.0, 3.0, 3.0, 1.0], [1.0, 1.0, -2.0, 0.5, -2.0], [1e3, -1e3, 0.3, 0.2, -1e3]]


@pytest.mark.parametrize("row", ROWS)
def test_the_static_temperature_0_is_the_hard_function_bit_for_bit(row):
    compiled = jax.jit(functools.partial(row.soft, temperature=0.0))
    for x in DATA:
        x = jnp.asarray(x, jnp.float32)
        hard = row.hard(x)
        np.testing.assert_array_equal(row.soft(x, temperature=0), hard)
        np.testing.assert_array_equal(compiled(x), hard)


@pytest.mark.parametrize("row", ROWS)
def test_the_error_stays_within_its_bound(row):
    rounding = 4e-6

    @jax.jit
    def error_and_bound(x, temperature):
        error = jnp.abs(row.soft(x, temperature=temperature) - row.hard(x))
        return error, jnp.broadcast_to(row.bound(x, temperature), error.shape)

    for x, temperature in itertools.product(DATA, (1e-4, 0.03, 0.5, 4.0)):
        x = np.asarray(x, np.float32)
        error, bound = error_and_bound(x, temperature)
        squares = row in (SMOOTH["dtw"], SMOOTH["dtw_divergence"])
        scale = 1 + float(np.max(np.abs(x))) ** (2 if squares else 1) + x.size
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


@pytest.mark.parametrize("name", ["rank", "sort", "maximum", "median", "threshold", "trimmed_mean", "absolute", "relu"])
def test_the_temperature_is_in_the_unit_of_the_data(name):
    """Metres or millimetres: data and temperature times 1,000 give the same ranks, and 1,000 times the values."""
    row, x = SMOOTH[name], jnp.asarray(DISTINCT)
    scale = 1.0 if name == "rank" else 1000.0
    np.testing.assert_allclose(
        row.soft(1000 * x, temperature=550.0), scale * row.soft(x, temperature=0.55), rtol=1e-5, atol=1e-5 * scale
    )


ALONG = ("maximum", "minimum", "mellowmax", "boltzmann", "one_hot_argmax", "argmax", "sparsemax", "entmax", "median")
MATRICES = ("soft_sort", "neural_sort", "sinkhorn_sort")
MASKABLE = (*ALONG, *MATRICES, "rank", "sort", "pairwise_rank", "trimmed_mean", "isotonic")


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
    elif name in MATRICES:
        np.testing.assert_allclose(masked[: valid.sum(), valid], alone, rtol=1e-4, atol=1e-6)
        assert not masked[valid.sum() :].any()
        assert not masked[:, ~valid].any()
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


@pytest.mark.parametrize("name", MATRICES)
def test_the_axis_of_a_permutation_matrix_becomes_two(name):
    x = jnp.asarray(DISTINCT).reshape(3, 2)
    for axis in (0, -2):
        for temperature in (0, 0.5):
            matrices = getattr(smooth, name)(x, temperature=temperature, axis=axis)
            one_by_one = jax.vmap(lambda row: getattr(smooth, name)(row, temperature=temperature), 1, 2)(x)  # noqa: B023
            np.testing.assert_allclose(matrices, one_by_one, rtol=1e-6)
            assert matrices.shape == (3, 3, 2)


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
    for name in (*ALONG, *MATRICES, "rank", "sort", "step", "round", "pairwise_rank"):
        with pytest.raises(ValueError, match=f"^{name}: temperature must not be negative; got -1"):
            getattr(smooth, name)(x, temperature=-1.0)
    for name in ("rank", "maximum", "median", *MATRICES):
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
