"""The nearest code: exact against enumeration, with ties, in low precision, over devices, in bounded memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from programs import needs_four_devices

from jaxlab import quantize
from jaxlab.quantize import nearest_code
from jaxlab.quantize._fused import search_fused
from jaxlab.quantize._sums import counts_by_comparisons, counts_by_segments, sums_by_products, sums_by_segments
from jaxlab.quantize.nearest import (
    first_minimum,
    rows_at,
    rows_by_gathering,
    rows_by_products,
    search_blocks,
    search_tiles,
)


def normal(*shape, seed=0, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def exact_codes(x, codebook):
    """By enumeration in float64."""
    x, codebook = np.asarray(x, np.float64), np.asarray(codebook, np.float64)
    return np.argmin((codebook**2).sum(1) / 2 - x @ codebook.T, 1)


def wrong(codes, x, codebook):
    return float(np.mean(np.asarray(codes) != exact_codes(x, codebook)))


@pytest.mark.parametrize("num_codes", [1, 3, 512, 1024, 1025, 2000])
@pytest.mark.parametrize("chunk_size", [None, 7, 100, 1000])
def test_nearest_code_is_the_nearest(num_codes, chunk_size):
    x, codebook = normal(100, 5), normal(num_codes, 5, seed=1)
    assert wrong(nearest_code(x, codebook, chunk_size=chunk_size), x, codebook) == 0


SEARCHES = {"tiles": search_tiles, "blocks": search_blocks, "fused": functools.partial(search_fused, interpret=True)}


@pytest.mark.parametrize("name", list(SEARCHES))
@pytest.mark.parametrize("num_codes", [1, 128, 129, 1024, 1025, 2000])
def test_every_search_finds_the_first_minimum(name, num_codes):
    """Those for other platforms, too; with ties, whose distances are exact, and with vectors that are not finite."""
    x = jnp.round(normal(300, 2)).at[3].set(jnp.nan).at[4].set(jnp.inf)
    codebook = jnp.round(normal(num_codes, 2, seed=1))
    codes, minima = jax.jit(SEARCHES[name])(x, codebook, jnp.sum(codebook**2, 1) / 2)
    usable = jnp.isfinite(x).all(1)
    assert wrong(codes[usable], x[usable], codebook) == 0
    assert int(codes[3]) == 0
    assert 0 <= int(codes[4]) < num_codes
    chosen = codebook[codes]
    np.testing.assert_array_equal(minima[usable], (jnp.sum(chosen**2, 1) / 2 - jnp.sum(x * chosen, 1))[usable])


@pytest.mark.parametrize("num_codes", [4, 1024, 1100, 4096])
def test_the_lowest_of_equally_near_codes(num_codes):
    """Whole numbers: all distances are exact, and ties are many.

    Planted and found: the highest of equally near codes.
    """
    x = jnp.round(normal(300, 2))
    codebook = jnp.round(normal(num_codes, 2, seed=1))
    assert wrong(nearest_code(x, codebook), x, codebook) == 0
    assert not nearest_code(x, jnp.ones((num_codes, 2))).any()
    assert (nearest_code(x, codebook[::-1]) != num_codes - 1 - nearest_code(x, codebook)).any()  # there are ties


@pytest.mark.parametrize("size", [5, 1280])
def test_first_minimum_is_argmin_with_ties_infinities_and_nan(size):
    scores = np.array(jnp.round(normal(50, size)))
    scores[0], scores[1], scores[2, size // 2 :] = np.inf, np.nan, -np.inf
    place, minimum = first_minimum(jnp.asarray(scores))
    np.testing.assert_array_equal(place, jnp.argmin(scores, -1))
    np.testing.assert_array_equal(minimum, jnp.min(jnp.asarray(scores), -1))


def test_vectors_that_are_not_finite_get_code_zero_and_disturb_no_other():
    x, codebook = normal(20, 3).at[3].set(jnp.nan).at[4, 1].set(jnp.nan), normal(2000, 3, seed=1)
    codes = nearest_code(x, codebook)
    assert codes[3:5].tolist() == [0, 0]
    np.testing.assert_array_equal(jnp.delete(codes, jnp.array([3, 4])), nearest_code(x[jnp.r_[:3, 5:20]], codebook))


def test_cosine_takes_the_nearest_direction_whatever_the_lengths():
    x, codebook = normal(100, 4), normal(30, 4, seed=1)
    lengths = jnp.exp(3 * normal(30, 1, seed=2))
    expected = exact_codes(x, codebook / jnp.linalg.norm(codebook, axis=1, keepdims=True))
    np.testing.assert_array_equal(nearest_code(x, codebook * lengths, cosine=True), expected)
    assert (nearest_code(x, codebook * lengths) != expected).any()
    assert int(nearest_code(jnp.zeros(4), codebook, cosine=True)) == 0
    np.testing.assert_array_equal(nearest_code(1e30 * x, 1e-30 * codebook, cosine=True), expected)


def test_low_precision_needs_a_centre_and_sums_in_float32():
    """Vectors in bfloat16 are compared exactly; operands rounded to bfloat16 are, near a centre, seldom misjudged.

    Planted and found: products of bfloat16 that stay in it, and a centre that is not subtracted.
    """
    half_x, half_codebook = normal(2000, 32, dtype=jnp.bfloat16), normal(512, 32, seed=1, dtype=jnp.bfloat16)
    assert wrong(nearest_code(half_x, half_codebook), half_x, half_codebook) == 0
    naive = jnp.argmin((jnp.sum(half_codebook**2, 1) / 2)[None] - half_x @ half_codebook.T, 1)
    assert wrong(naive, half_x, half_codebook) > 0.005
    x, codebook = 100 + normal(2000, 32), 100 + normal(512, 32, seed=1)
    low = {"operand_dtype": jnp.bfloat16}
    assert wrong(nearest_code(x, codebook), x, codebook) < 0.02
    assert wrong(nearest_code(x, codebook, centre=codebook.mean(0), **low), x, codebook) < 0.04
    assert wrong(nearest_code(x, codebook, **low), x, codebook) > 0.1


@needs_four_devices
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("options", [{}, {"cosine": True}, {"operand_dtype": jnp.bfloat16}], ids=str)
def test_a_codebook_spread_over_devices_gives_the_codes_of_one_device(ties, options):
    """Planted and found: the last device among those with equally near codes."""
    x, codebook = normal(64, 16), normal(4096, 16, seed=1)
    if ties:
        codebook = jnp.tile(codebook[:64], (64, 1))
    expected = nearest_code(x, codebook, **options)
    for num_devices in (2, 4):
        mesh = Mesh(np.array(jax.devices()[:num_devices]), ("codes",))
        search = jax.shard_map(
            lambda x, codebook: nearest_code(x, codebook, axis_name="codes", **options),
            mesh=mesh,
            in_specs=(P(), P("codes")),
            out_specs=P(),
        )
        np.testing.assert_array_equal(jax.jit(search)(x, codebook), expected)


SPREAD = {
    "gradient": quantize.vector_quantizer,
    "ema": quantize.ema_vector_quantizer,
    "ema with restarts": functools.partial(quantize.ema_vector_quantizer, restart_threshold=0.9, decay=0.5),
}


@needs_four_devices
@pytest.mark.parametrize("name", SPREAD)
def test_training_with_vectors_and_codebook_both_spread_is_training_on_one_device(name):
    """Restarts, too, take the same vectors for the same codes.

    Planted and found: the vectors for the first part of the codebook taken for every part.
    """
    make = SPREAD[name]
    x = normal(64, 8)

    def train(axes, params, state, x):
        quantizer = make(num_codes=32, **axes)

        def loss(params, state, key):
            out, state = quantizer.apply(key, params, state, x)
            return out.loss, (out.codes, out.values, state)

        gradient, (codes, values, state) = jax.grad(loss, has_aux=True)(params, state, jax.random.key(0))
        return gradient, codes, values, state

    params, state = make(num_codes=32).init(jax.random.key(1), x)
    expected = jax.jit(lambda *arguments: train({}, *arguments))(params, state, x)
    axes = {"axis_name": "batch", "code_axis_name": "codes"}
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("batch", "codes"))

    def spec(tree):
        return jax.tree.map(lambda leaf: P("codes") if leaf.ndim else P(), tree)

    def program(params, state, x):
        gradient, *rest = train(axes, params, state, x)
        return jax.tree.map(lambda leaf: leaf / 2, gradient), *rest  # of the mean over two parts of the batch

    spread = jax.shard_map(
        program,
        mesh=mesh,
        in_specs=(spec(params), spec(state), P("batch")),
        out_specs=(spec(params), P("batch"), P("batch"), spec(state)),
    )
    actual = jax.jit(spread)(params, state, x)
    if name == "ema with restarts":
        restarted = (np.asarray(expected[3].codebook)[:, None] == np.asarray(x)[None]).all(-1)
        assert restarted.any(1).reshape(2, -1).any(1).all()  # on both parts of the codebook
    np.testing.assert_array_equal(actual[1], expected[1])
    np.testing.assert_array_equal(actual[2], expected[2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6), actual, expected)


def test_search_keeps_its_memory_where_a_matrix_of_distances_would_not():
    """That of the kernel: test_compile_budgets.py."""

    def temporary(num_vectors):
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((num_vectors, 64), (8192, 64))]
        search = jax.jit(functools.partial(nearest_code, kernel=False))
        return search.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    at_once = 16 if jax.default_backend() == "cpu" else 17  # the scores of a chunk, and beside them the result
    assert temporary(32_768) <= at_once * 2**20  # the matrix has 1,024 MiB
    assert temporary(131_072) <= temporary(32_768) + 2**20


@pytest.mark.parametrize("sums", [sums_by_segments, sums_by_products])
def test_sums_of_each_code_whichever_way(sums):
    x, codes = normal(3000, 5), jax.random.randint(jax.random.key(1), (3000,), 0, 12)  # 11 is nowhere
    counts, total = sums(x, codes, num_codes=11)
    np.testing.assert_array_equal(counts, np.bincount(codes, minlength=12)[:11])
    expected = np.zeros((12, 5))
    np.add.at(expected, np.asarray(codes), np.asarray(x, np.float64))
    np.testing.assert_allclose(total, expected[:11], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counts", [counts_by_segments, counts_by_comparisons])
def test_counts_of_each_code_whichever_way(counts):
    codes = np.random.default_rng(0).integers(12, size=300).astype(np.int32)  # 11 is nowhere
    np.testing.assert_array_equal(counts(jnp.asarray(codes), num_codes=11), np.bincount(codes, minlength=12)[:11])


def test_rows_of_a_codebook_and_their_gradient_whichever_way():
    """In two chunks, the second not full; 11 is beyond the last code, and -1 is the last. In a batch too.

    Planted and found: products without the clipping.
    """
    codebook = normal(2, 11, 5)
    codes = jax.random.randint(jax.random.key(1), (2, 50, 31), -1, 12)

    def weighted(rows, codebook, codes):
        return jnp.sum(rows(codebook, codes) * jnp.cos(jnp.arange(50 * 31 * 5.0)).reshape(50, 31, 5))

    found, expected, as_used = (
        jax.jit(jax.vmap(jax.value_and_grad(functools.partial(weighted, rows))))(codebook, codes)
        for rows in (rows_by_products, rows_by_gathering, rows_at)
    )
    for one, other, same in zip(found, expected, as_used, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        rounding = 0 if jax.default_backend() == "cpu" else 1e-5  # a GPU adds in no fixed order
        np.testing.assert_allclose(same, other, rtol=rounding, atol=rounding)
    np.testing.assert_array_equal(rows_by_products(codebook[0], codes[0]), rows_at(codebook[0], codes[0]))
