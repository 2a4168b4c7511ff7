"""Moving codebooks, roundings, statistics of usage: against arithmetic, enumeration and other libraries.

Values of other libraries were made by ``tests/golden/quantize.py`` (versions stand in its output).
"""

import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlab import quantize
from jaxlab.quantize import nearest_code

GOLDEN = Path(__file__).parent / "golden" / "quantize.json"


def normal(*shape, seed=0, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


# Moving codebooks.


def ema(**options):
    return quantize.ema_vector_quantizer(num_codes=2, initial_codes=fixed_codes, smoothing=0.0, **options)


def stepping(quantizer):
    """Compiled training: (number, params, state, x) -> (out, state)."""
    step = jax.jit(quantizer.apply)
    return lambda number, params, state, x: step(jax.random.key(number), params, state, x)


def fixed_codes(key, sample, *, num_codes, mask=None, axis_name=None):
    return jnp.array([[0.0], [10.0]])


def test_ema_by_hand():
    """Codes 0 and 10, each with 1.5 expected hits; three vectors at 1, 2, 12 and decay 0.5."""
    x = jnp.array([[1.0], [2.0], [12.0]])
    quantizer = ema(decay=0.5)
    params, state = quantizer.init(jax.random.key(0), x)
    out, state = quantizer.apply(jax.random.key(1), params, state, x)
    assert out.values.ravel().tolist() == [0.0, 0.0, 10.0]  # those before the update
    np.testing.assert_allclose(out.loss, 0.25 * (1 + 4 + 4) / 3)
    n = [(1.5 + 2) / 2, (1.5 + 1) / 2]
    m = [(1.5 * 0 + 3) / 2, (1.5 * 10 + 12) / 2]
    np.testing.assert_allclose(state.counts, n)
    np.testing.assert_allclose(state.codebook.ravel(), [m[0] / n[0], m[1] / n[1]])


def test_codes_that_are_not_hit_keep_their_bits():
    """Planted and found: every code set to the quotient of its averages."""
    quantizer = quantize.ema_vector_quantizer(num_codes=100, decay=0.5)
    params, state = quantizer.init(jax.random.key(0), normal(50, 3))
    first = state.codebook
    step = stepping(quantizer)
    for number in range(50):  # their counts decay to nothing
        out, state = step(number, params, state, normal(2, 3))
    unused = np.setdiff1d(np.arange(100), out.codes)
    assert len(unused) >= 98
    np.testing.assert_array_equal(state.codebook[unused], first[unused])
    assert (state.codebook[out.codes] != first[out.codes]).all()


def test_dead_codes_restart_on_vectors_of_the_call_and_only_once():
    """Planted and found: restarts that keep the old counts."""
    x = normal(64, 3)
    quantizer = quantize.ema_vector_quantizer(num_codes=16, restart_threshold=0.1, decay=0.9)
    params, state = quantizer.init(jax.random.key(0), x)
    far = state.codebook.at[4:].add(1000.0)
    state = state._replace(codebook=far, sums=far * state.counts[:, None])
    restarted = []
    step = stepping(quantizer)
    for number in range(40):
        before = state.codebook
        _, state = step(number, params, state, x)
        jumped = np.flatnonzero(np.linalg.norm(state.codebook - before, axis=1) > 100)
        restarted.append(len(jumped))
        if len(jumped):  # each on a vector of its own, with counts and sums to match
            places = np.linalg.norm(np.asarray(state.codebook)[jumped, None] - np.asarray(x)[None], axis=-1)
            assert (places.min(1) == 0).all()
            assert len(set(places.argmin(1))) == len(jumped)
            np.testing.assert_allclose(state.sums[jumped], state.codebook[jumped] * state.counts[jumped, None])
            np.testing.assert_allclose(state.counts[jumped], 64 / 16, rtol=1e-5)  # the mean
    assert sum(restarted) == 12
    assert sum(restarted[-10:]) == 0  # an absolute threshold would replace most of the codebook for ever
    assert len(set(quantizer.encode(params, state, x).tolist())) > 12


def test_fewer_vectors_than_dead_codes_make_no_copies():
    x = normal(4, 3)
    quantizer = quantize.ema_vector_quantizer(num_codes=32, restart_threshold=0.9, decay=0.0)
    params, state = quantizer.init(jax.random.key(0), x)
    copies = []
    step = stepping(quantizer)
    for number in range(5):
        _, state = step(number, params, state, x)
        # At most one code goes to each vector in one call.
        copies.append(max(np.sum((np.asarray(state.codebook) == row).all(1)) for row in np.asarray(x)))
    assert copies[0] == 1
    assert copies == sorted(copies)


def test_kmeans_takes_the_means_of_its_cells():
    x = jnp.concatenate([normal(50, 2) + centre for centre in (-20.0, 0.0, 20.0)])
    best = min(
        float(jnp.mean((x - c[nearest_code(x, c)]) ** 2))
        for c in (quantize.kmeans(jax.random.key(seed), x, num_codes=3) for seed in range(8))
    )
    codebook = quantize.kmeans(jax.random.key(0), x, num_codes=3, num_iterations=50)
    codes = np.asarray(nearest_code(x, codebook))
    for code in range(3):
        np.testing.assert_allclose(codebook[code], np.asarray(x)[codes == code].mean(0), rtol=1e-4, atol=1e-4)
    assert best < 1.2


# Roundings.


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("level", range(2, 17))
def test_finite_scalar_levels_are_a_bijection(level, symmetric):
    quantizer = quantize.finite_scalar_quantizer(levels=(level, 3), symmetric=symmetric)
    codes = np.arange(3 * level, dtype=np.int32)
    values = jax.jit(quantizer.decode)((), (), codes)
    digits = np.asarray(jax.jit(functools.partial(quantize.unravel_codes, levels=(level, 3)))(codes))
    grid = (2 * digits[:, 0] / (level - 1) - 1) if symmetric else (digits[:, 0] - level // 2) / (level // 2)
    np.testing.assert_allclose(values[:, 0], grid, atol=1e-6)
    x = np.linspace(-6, 6, 4001, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    reached = np.asarray(jax.jit(quantizer.apply)(jax.random.key(0), (), (), x)[0].codes) % level
    assert sorted(set(reached.tolist())) == list(range(level))
    assert (np.diff(reached) >= 0).all()
    if not symmetric and level > 2:
        half, offset = (level - 1) * 1.001 / 2, (1 - level % 2) / 2
        middle = np.round(half * np.tanh(np.asarray(x[:, 0], np.float64) + math.atanh(offset / half)) - offset)
        assert np.mean(middle + level // 2 != np.asarray(reached)) < 0.002  # at the borders of float32


def test_index_arithmetic_is_exact_to_two_to_the_31():
    levels = (2,) * 31
    codes = jnp.array([0, 1, 2**24 + 1, 2**30 + 12345, 2**31 - 1])
    digits = quantize.unravel_codes(codes, levels=levels)
    expected = [[(int(code) >> bit) & 1 for bit in range(31)] for code in codes]
    assert digits.tolist() == expected
    assert quantize.ravel_codes(digits, levels=levels).tolist() == codes.tolist()
    mixed = (7, 11, 13, 17, 19, 23, 53)
    codes = jax.random.randint(jax.random.key(0), (1000,), 0, math.prod(mixed))
    assert bool((quantize.ravel_codes(quantize.unravel_codes(codes, levels=mixed), levels=mixed) == codes).all())


def entropy(p):
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), -1)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("group_size", [1, 2, 6])
def test_entropies_are_those_over_all_codes(spherical, group_size):
    """Against a table of all codes: equal for the vectors', an upper bound for the mean's unless one group has all."""
    bits, temperature, x = 6, 0.7, normal(50, 6) + 0.3
    make = quantize.binary_spherical_quantizer if spherical else quantize.lookup_free_quantizer

    def loss(diversity_weight):
        quantizer = make(
            num_bits=bits,
            temperature=temperature,
            group_size=group_size,
            commitment_weight=0.0,
            entropy_weight=1.0,
            diversity_weight=diversity_weight,
        )
        return float(quantizer.apply(jax.random.key(0), (), (), x)[0].loss)

    codes = np.asarray(make(num_bits=bits).decode((), (), jnp.arange(2**bits)), np.float64)
    u = np.asarray(x, np.float64)
    u = u / np.linalg.norm(u, axis=1, keepdims=True) if spherical else u
    p = np.exp(-((u[:, None] - codes[None]) ** 2).sum(-1) / temperature)
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(loss(0.0), entropy(p).mean(), rtol=1e-5)
    of_mean = loss(0.0) - loss(1.0)
    if group_size == bits:
        np.testing.assert_allclose(of_mean, entropy(p.mean(0)), rtol=1e-5)
    else:
        assert entropy(p.mean(0)) + 1e-4 < of_mean <= bits * math.log(2)


def test_signs_of_zero_and_of_zero_vectors():
    out, _ = quantize.lookup_free_quantizer(num_bits=2).apply(jax.random.key(0), (), (), jnp.array([[0.0, 1.0]]))
    assert out.values.tolist() == [[-1.0, 1.0]]

    def total(x):
        out, _ = quantize.binary_spherical_quantizer(num_bits=4).apply(jax.random.key(0), (), (), x)
        return jnp.sum(out.values) + out.loss, out.values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(jnp.zeros((1, 4)))
    assert values.tolist() == [[-0.5] * 4]
    assert bool(jnp.isfinite(gradient).all())


# Chance.


def test_stochastic_codes_have_their_probabilities():
    codebook, x = jnp.array([[0.0], [1.0], [3.0]]), jnp.full((200_000, 1), 0.8)
    quantizer = quantize.stochastic(quantize.vector_quantizer(num_codes=3), temperature=2.0)
    codes = quantizer.apply(jax.random.key(0), codebook, (), x)[0].codes
    p = np.exp(-(np.array([0.8, 0.2, 2.2]) ** 2) / 2)
    p /= p.sum()
    found = np.bincount(codes, minlength=3) / len(codes)
    z = (found - p) / np.sqrt(p * (1 - p) / len(codes))
    assert np.abs(z).max() < 4.5
    assert quantizer.encode(codebook, (), x[:2]).tolist() == [1, 1]
    cold = quantize.stochastic(quantize.vector_quantizer(num_codes=3), temperature=1e-6)
    assert (cold.apply(jax.random.key(0), codebook, (), x)[0].codes == 1).all()


def gumbel_loss(chunk_size, num_vectors):
    quantizer = quantize.gumbel_quantizer(num_codes=64, chunk_size=chunk_size)
    x = normal(num_vectors, 3)
    params, state = quantizer.init(jax.random.key(0), x)

    def loss(params, x):
        out, _ = quantizer.apply(jax.random.key(1), params, state, x)
        return jnp.mean((out.values - x) ** 2) + out.loss, out.codes

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(params, x).compile(), (params, x)


def test_chunks_of_logits_change_no_code_and_keep_no_matrix_of_all():
    """Planted and found: a key of each chunk, and chunks that are not made again for the derivative."""
    num_vectors = 1000
    (whole, arguments), (cut, _) = (gumbel_loss(size, num_vectors) for size in (num_vectors, 48))
    ((value, codes), gradient), ((expected, all_codes), expected_gradient) = cut(*arguments), whole(*arguments)
    np.testing.assert_array_equal(codes, all_codes)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (gradient, expected_gradient)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    matrix = num_vectors * 64 * 4
    assert cut.memory_analysis().temp_size_in_bytes < matrix < whole.memory_analysis().temp_size_in_bytes


def test_codes_by_chance_gather_no_vectors_of_other_devices():
    """With as many scores as make chunks; planted and found: chunks of vectors that follow one another."""
    spread = jax.NamedSharding(jax.make_mesh((4,), ("batch",), (jax.sharding.AxisType.Auto,)), jax.P("batch"))
    codebook, x = normal(2**12, 2), jax.ShapeDtypeStruct((2**9, 2), jnp.float32, sharding=spread)
    quantizer = quantize.stochastic(quantize.vector_quantizer(num_codes=2**12), temperature=1.0)

    def codes(x):
        return quantizer.apply(jax.random.key(0), codebook, (), x)[0].codes

    program = jax.jit(codes).lower(x).compile().as_text()
    assert "while(" in program
    assert "all-gather" not in program


def test_quantizer_dropout_leaves_out_the_last_stages():
    x = normal(5, 3)
    quantizer = quantize.residual(quantize.ema_vector_quantizer(num_codes=8), depth=4, dropout=0.75)
    params, state = quantizer.init(jax.random.key(0), x)
    run, decode = jax.jit(quantizer.apply), jax.jit(quantizer.decode)
    used = []
    for number in range(200):
        out, after = run(jax.random.key(number), params, state, x)
        used.append(int((out.codes[0] >= 0).sum()))
        assert ((np.asarray(out.codes) >= 0) == (np.arange(4) < used[-1])).all()
        np.testing.assert_array_equal(after.codebook[used[-1] :], state.codebook[used[-1] :])
        if used[-1] < 4:
            np.testing.assert_array_equal(out.values, decode(params, state, out.codes))
    # 1 - dropout + dropout / 4 for all stages, dropout / 4 for each other number.
    expected = np.array([0.1875, 0.1875, 0.1875, 0.4375])
    found = np.bincount(used, minlength=5)[1:] / 200
    assert np.abs((found - expected) / np.sqrt(expected * (1 - expected) / 200)).max() < 4.5


def test_each_stage_leaves_less_and_a_shared_codebook_is_one():
    x = normal(512, 4)
    for shared in (False, True):
        quantizer = quantize.residual(quantize.ema_vector_quantizer(num_codes=32), depth=3, shared=shared)
        params, state = quantizer.init(jax.random.key(0), x)
        step = stepping(quantizer)
        for number in range(5):
            _, state = step(number, params, state, x)
        codes = quantizer.encode(params, state, x)
        left = [
            float(jnp.mean((x - quantizer.decode(params, state, codes.at[:, used:].set(-1))) ** 2)) for used in range(4)
        ]
        assert left == sorted(left, reverse=True)
        assert state.codebook.shape == ((32, 4) if shared else (3, 32, 4))
    # One update from the residuals of all stages: each vector counts once for each stage.
    np.testing.assert_allclose(jnp.sum(state.counts), 512 * 0.99**5 + 3 * 512 * (1 - 0.99**5), rtol=1e-5)


# Usage.


def test_usage_by_arithmetic_and_merged():
    x, values = jnp.array([[3.0], [4.0], [0.0], [1.0]]), jnp.array([[3.0], [3.0], [0.0], [1.0]])
    codes, log_prob = jnp.array([0, 1, 1, 2]), jnp.log(jnp.array([0.5, 0.25, 0.25, 0.125]))
    whole = quantize.code_usage(x, values, codes, num_codes=4, log_prob=log_prob)
    parts = [
        quantize.code_usage(x[part], values[part], codes[part], num_codes=4, log_prob=log_prob[part])
        for part in (slice(0, 1), slice(1, 4))
    ]
    for usage in (whole, parts[0].merge(parts[1])):
        assert usage.counts.tolist() == [1, 2, 1, 0]
        np.testing.assert_allclose(usage.marginal_bits(), 1.5)
        np.testing.assert_allclose(usage.perplexity(), 2**1.5, rtol=1e-6)
        np.testing.assert_allclose(usage.nominal_bits(), 2.0)
        np.testing.assert_allclose(usage.prior_bits(), (1 + 2 + 2 + 3) / 4, rtol=1e-6)
        np.testing.assert_allclose(usage.dead_fraction(), 0.25)
        np.testing.assert_allclose(usage.signal_to_noise(), 10 * math.log10(26 / 1), rtol=1e-6)
    assert np.isnan(quantize.code_usage(x, values, codes, num_codes=4).prior_bits())
    some = quantize.code_usage(x, values, codes, num_codes=4, mask=jnp.array([True, False, True, False]))
    assert some.counts.tolist() == [1, 1, 0, 0]
    staged = quantize.code_usage(x, values, jnp.stack([codes, -jnp.ones_like(codes)], 1), num_codes=4)
    assert staged.counts.tolist() == [[1, 2, 1, 0], [0, 0, 0, 0]]


# Other libraries.


def arrays(tree):
    """Lists of numbers as arrays; lists of cases and of states as they are."""
    if isinstance(tree, dict):
        return {name: arrays(leaf) for name, leaf in tree.items()}
    if isinstance(tree, list) and isinstance(tree[0], dict):
        return [arrays(leaf) for leaf in tree]
    return np.float32(tree)


@pytest.fixture(scope="module")
def golden():
    return arrays(json.loads(GOLDEN.read_text())["cases"])


def assert_states_close(actual, expected, rtol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=2e-6), actual, expected)


@pytest.mark.parametrize("library", ["haiku", "vector_quantize_pytorch"])
def test_training_goes_on_from_the_state_of_another_library_as_there(golden, library):
    """Codes, values, loss and the next states of three steps."""
    case = golden[library]
    load = {
        "haiku": lambda state: quantize.ema_state_from_haiku(state, decay=0.9),
        "vector_quantize_pytorch": quantize.ema_state_from_vector_quantize_pytorch,
    }[library]
    quantizer = quantize.ema_vector_quantizer(num_codes=6, decay=0.9, commitment_weight=0.25)
    state = load(case["states"][0])
    for x, values, codes, loss, after in zip(
        case["x"], case["values"], case["codes"], case["loss"], case["states"][1:], strict=True
    ):
        out, state = quantizer.apply(jax.random.key(0), (), state, jnp.asarray(x))
        np.testing.assert_array_equal(out.codes, codes)
        np.testing.assert_allclose(out.values, values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(out.loss, loss, rtol=1e-5)
        assert_states_close(state, load(after), rtol=1e-4 if library == "vector_quantize_pytorch" else 2e-5)


def test_finite_scalar_rounding_is_that_of_another_library(golden):
    for case in golden["finite_scalar"]:
        levels = tuple(int(level) for level in case["levels"])
        quantizer = quantize.finite_scalar_quantizer(levels=levels, symmetric=bool(case["symmetric"]))
        out, _ = quantizer.apply(jax.random.key(0), (), (), jnp.asarray(case["x"]))
        np.testing.assert_allclose(out.values, case["values"], atol=1e-6)
        np.testing.assert_array_equal(out.codes, case["codes"])
