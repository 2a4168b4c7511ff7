"""The laws of quantizers, over ``QUANTIZERS``: each claim holds, and what does not claim it fails the same test."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from quantizers import DTYPES, ROWS, applied, bits_of, made, over, vectors

from jaxlab import quantize

# Values, codes, and the way between them.


@pytest.mark.parametrize("dtype", DTYPES)
@over(ROWS)
def test_values_are_the_decoded_codes_bit_for_bit(row, dtype):
    """Planted and found: ``x + stop_gradient(code - x)`` instead of the operator."""
    quantizer, params, state = made(row)
    x = vectors().astype(dtype)
    out, _ = applied(row, x)
    decoded = jax.jit(quantizer.decode)(params, state, out.codes).astype(dtype)
    assert out.values.dtype == x.dtype
    assert (bits_of(out.values) == bits_of(decoded)) == row.exact_values
    assert out.codes.shape == (*x.shape[:-1], *quantizer.code_shape)
    assert 0 <= int(out.codes.min()) <= int(out.codes.max()) < quantizer.num_codes
    assert out.loss.shape == ()
    assert out.loss.dtype == jnp.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_one_liner_is_not_exact(dtype):
    hard, soft = vectors().astype(dtype), vectors(seed=1).astype(dtype)
    assert bits_of(soft + jax.lax.stop_gradient(hard - soft)) != bits_of(hard)


@over(ROWS)
def test_encode_is_apply_without_chance(row):
    quantizer, params, state = made(row)
    codes = [applied(row, vectors(), key=key)[0].codes for key in range(4)]
    assert (bits_of(codes) == bits_of([quantizer.encode(params, state, vectors())] * 4)) == row.deterministic


@over(ROWS)
def test_quantizing_a_value_gives_its_code_where_that_is_claimed(row):
    """Planted and found: a distance with the squared length of the code instead of half of it."""
    quantizer, params, state = made(row)
    x = vectors((1000, 4))
    codes = quantizer.encode(params, state, x)
    values = quantizer.decode(params, state, codes)
    if values.shape == x.shape:
        again = quantizer.encode(params, state, values)
        assert bool((again == codes).all()) == (row.idempotent or row.name == "stochastic")
    else:
        assert not row.idempotent


@over(ROWS)
def test_low_precision_takes_other_codes_no_more_often_than_its_rounding_does(row):
    """Codes of bfloat16 are those of the same numbers in float32; rounding the numbers changes few.

    Planted and found: a codebook rounded to the precision of the vectors.
    """
    quantizer, params, state = made(row)
    x = vectors((2000, 4))
    encode = jax.jit(quantizer.encode)
    codes, half = encode(params, state, x), encode(params, state, x.astype(jnp.bfloat16))
    np.testing.assert_array_equal(half, encode(params, state, x.astype(jnp.bfloat16).astype(jnp.float32)))
    assert np.mean(np.asarray(codes) != np.asarray(half)) < 0.03


@over(ROWS)
def test_every_axis_before_the_features_is_a_batch(row):
    """One vector, a matrix of them and none at all; the codes of vectors do not depend on one another."""
    quantizer, params, state = made(row)
    x = vectors()
    codes = quantizer.encode(params, state, x)
    for place in ((0, 0), (5, 4)):
        np.testing.assert_array_equal(quantizer.encode(params, state, x[place]), codes[place])
    assert quantizer.encode(params, state, x[:0]).shape == (0, *codes.shape[1:])


# State.


@over(ROWS)
def test_state_changes_where_that_is_claimed_and_parameters_are_there_where_that_is_claimed(row):
    _, params, state = made(row)
    _, after = applied(row, vectors())
    assert (bits_of(after) != bits_of(state)) == row.stateful
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert bool(jax.tree.leaves(params)) == row.trained


@over(ROWS)
def test_a_mask_of_all_changes_no_bit_and_what_is_masked_has_no_influence(row):
    """Planted and found: no mask as a constant of ones, which the compiler folds into other sums."""
    x, mask = vectors(), jax.random.bernoulli(jax.random.key(9), 0.6, (6, 5))
    out, state = applied(row, x)
    everything, state_of_everything = applied(row, x, mask=jnp.ones((6, 5), bool))
    assert bits_of((out, state)) == bits_of((everything, state_of_everything))

    results = [applied(row, jnp.where(mask[..., None], x, junk), mask=mask) for junk in (0.0, 1e3, np.nan)]
    assert len({tuple(bits_of(result)) for result in results}) == 1
    masked_out, _ = results[0]
    assert not masked_out.values[~mask].any()
    assert (np.asarray(masked_out.codes)[~mask] == -1).all()
    assert (np.asarray(masked_out.codes)[mask] == np.asarray(out.codes)[mask]).all() or not row.deterministic
    quantizer, params, state = made(row)
    bound, _ = quantize.masked(quantizer, mask).apply(jax.random.key(2), params, state, x)
    np.testing.assert_array_equal(bound.codes, masked_out.codes)
    assert not quantizer.decode(params, state, masked_out.codes)[~mask].any()


@over(row for row in ROWS if row.name not in ("gumbel_quantizer", "stochastic"))
def test_masking_is_leaving_out(row):
    """The loss and the statistics are those of the vectors that count.

    Planted and found: a mean over all vectors, masked ones included.
    """
    x, mask = vectors((30, 4)), jnp.arange(30) % 3 > 0
    (some, state), (few, state_of_few) = applied(row, x, mask=mask), applied(row, x[mask])
    np.testing.assert_allclose(some.loss, few.loss, rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), state, state_of_few)


@over(ROWS)
def test_nothing_that_is_not_finite_gets_into_the_state(row):
    """Planted and found: statistics that take what is not finite."""
    x = vectors().at[0, 0, 0].set(jnp.nan).at[1, 1].set(jnp.inf)
    _, state = applied(row, x)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state))
    if row.stateful:  # and the rest of the batch is in it
        mask = jnp.isfinite(x).all(-1)
        _, masked_state = applied(row, jnp.where(mask[..., None], x, 0), mask=mask)
        assert bits_of(state) == bits_of(masked_state)


@over(ROWS)
def test_trained_over_seeds_by_vmap_is_trained_one_by_one(row):
    quantizer = row.small()
    keys = jax.random.split(jax.random.key(0), 3)

    def train(key):
        key_init, key_step = jax.random.split(key)
        params, state = quantizer.init(key_init, vectors())
        return quantizer.apply(key_step, params, state, vectors(seed=1))

    together = jax.jit(jax.vmap(train))(keys)
    one = jax.jit(train)
    for number in range(3):
        alone = one(jax.random.wrap_key_data(jax.random.key_data(keys)[number]))
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6),
            jax.tree.map(lambda leaf, number=number: leaf[number], together),
            alone,
        )


def ema(**options):
    return quantize.ema_vector_quantizer(num_codes=8, **options)


COMPOSED = {
    "ema": ema,
    "masked": lambda: quantize.masked(ema(), vectors()[..., 0] > 0),
    "product": lambda: quantize.product(ema(), groups=2),
    "residual": lambda: quantize.residual(ema(), depth=3),
    "residual, shared": lambda: quantize.residual(ema(), depth=3, shared=True),
    "residual of products": lambda: quantize.residual(quantize.product(ema(), groups=2), depth=2, shared=True),
    "product of residuals": lambda: quantize.product(quantize.residual(ema(), depth=2), groups=2),
}


@over(ROWS)
def test_only_what_changes_its_state_has_an_update(row):
    assert (made(row)[0].update is not None) == row.stateful


@pytest.mark.parametrize("name", COMPOSED)
def test_update_is_the_part_of_apply_that_changes_the_state(name):
    quantizer, x, mask = COMPOSED[name](), vectors(), jnp.arange(30).reshape(6, 5) % 7 > 0
    params, state = quantizer.init(jax.random.key(0), vectors(seed=1))
    out, after = jax.jit(quantizer.apply)(jax.random.key(1), params, state, x, mask=mask)
    assert bits_of(after) != bits_of(state)
    again = jax.jit(quantizer.update)(jax.random.key(2), params, state, x, out.codes, mask=mask)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=2e-6), again, after)
    other = jax.jit(quantizer.update)(jax.random.key(2), params, state, x, out.codes[::-1], mask=mask)
    assert np.max(np.abs(jax.tree.leaves(other)[0] - jax.tree.leaves(after)[0])) > 1e-3  # the codes matter


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_a_shared_codebook_is_searched_once_a_stage_and_updated_by_the_codes_that_were_found(temperature):
    """With codes drawn at random a second search would find others, and update with them.

    Planted and found: an update that applies the quantizer again.
    """

    def quantizer(shared):
        inner = ema(decay=0.5)
        inner = inner if temperature is None else quantize.stochastic(inner, temperature=temperature)
        return quantize.residual(inner, depth=3, shared=shared)

    programs = {}
    for shared in (True, False):
        params, state = quantizer(shared).init(jax.random.key(0), vectors())
        arguments = jax.random.key(1), params, state, vectors(seed=1)
        programs[shared] = str(jax.make_jaxpr(quantizer(shared).apply)(*arguments)).count(" = reduce_min[")
        if shared:
            out, after = quantizer(True).apply(*arguments)
            hits = np.bincount(np.asarray(out.codes).ravel(), minlength=8)
            np.testing.assert_allclose(after.counts, 0.5 * state.counts + 0.5 * hits, rtol=1e-6)
    assert programs[True] == programs[False] > 0


DATA_PARALLEL = {
    "ema": quantize.ema_vector_quantizer,
    "ema with restarts": functools.partial(
        quantize.ema_vector_quantizer, restart_threshold=0.5, initial_codes=quantize.random_rows
    ),
    "ema, cosine, k-means": functools.partial(
        quantize.ema_vector_quantizer, cosine=True, initial_codes=quantize.kmeans
    ),
    "random rows": functools.partial(quantize.vector_quantizer, initial_codes=quantize.random_rows),
    "residual, shared": lambda axis_name, num_codes: quantize.residual(
        quantize.ema_vector_quantizer(num_codes=num_codes, axis_name=axis_name), depth=2, shared=True
    ),
    "product": lambda axis_name, num_codes: quantize.product(
        quantize.ema_vector_quantizer(num_codes=num_codes, axis_name=axis_name), groups=2
    ),
    "lookup free": lambda axis_name, num_codes: quantize.lookup_free_quantizer(
        num_bits=4, group_size=2, axis_name=axis_name
    ),
    "spherical": lambda axis_name, num_codes: quantize.binary_spherical_quantizer(
        num_bits=4, group_size=4, axis_name=axis_name
    ),
}


@pytest.mark.parametrize("name", DATA_PARALLEL)
@pytest.mark.parametrize("num_devices", [2, 4])
def test_many_devices_give_what_one_gives(name, num_devices):
    """Of whole eighths, whose sums are exact in any order, the state after one call has the same bits.

    Planted and found: sums averaged over devices, and entropies of one device alone.
    """
    x = jnp.round(8 * vectors((64, 4))) / 8
    mask = jnp.arange(64) % 4 > 0  # as many of each device's count

    def train(axis_name, x, mask):
        quantizer = DATA_PARALLEL[name](num_codes=16, axis_name=axis_name)
        params, state = quantizer.init(jax.random.key(0), x, mask=mask)
        codes, losses, states = [], [], []
        for number in range(3):
            out, state = quantizer.apply(jax.random.key(1 + number), params, state, x, mask=mask)
            codes.append(out.codes)
            losses.append(out.loss if axis_name is None else jax.lax.pmean(out.loss, axis_name))
            states.append(state)
        return params, states, losses, jnp.stack(codes, -1)

    expected = jax.jit(functools.partial(train, None))(x, mask)
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("batch",))
    spread = jax.jit(
        jax.shard_map(
            functools.partial(train, "batch"),
            mesh=mesh,
            in_specs=P("batch"),
            out_specs=(P(), P(), P(), P("batch")),
        )
    )
    actual = spread(*jax.device_put((x, mask), NamedSharding(mesh, P("batch"))))
    np.testing.assert_array_equal(actual[-1], expected[-1])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=2e-6), actual[:3], expected[:3])
    if name in ("ema with restarts", "random rows"):
        assert bits_of(actual[1][0]) == bits_of(expected[1][0])
