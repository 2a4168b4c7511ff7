"""The scan of ``recurrent``: the plain scan's values and gradients, masks, resets, dtypes, bad input.

Violations planted for the comparison with the plain scan, each of which failed: a backward pass that does not hand the
gradient of the carry on through masked steps, that takes no notice of resets, or that hands the gradient on past them;
with ``reverse``, the row of the step after read ahead in place of that before. For NaN: inputs of masked steps that are
not replaced (the rows that are all masked); a backward pass, and a stabiliser, into which a sum or a maximum over the
rows comes with the factor 0.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from programs import operations

from jaxlab import ordered, recurrent
from jaxlab.recurrent import Affine, LSTMCarry, Residuals, SLSTMCarry, scan_affine, scan_plain

STEPS, BATCH, INPUT_DIM, HIDDEN_DIM = 7, 3, 4, 6
LENGTHS = jnp.array([7, 3, 0])


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def affine(num_preactivations: int, **columns: int) -> Affine:
    key, sizes = jax.random.key(1), {"input_dim": INPUT_DIM, "hidden_dim": HIDDEN_DIM}
    return recurrent.uniform_affine(key, num_preactivations=num_preactivations, **sizes, **columns)


HIDDEN = 0.3 * normal(2, BATCH, HIDDEN_DIM)
LSTM_CARRY = LSTMCarry(HIDDEN, -HIDDEN)
CELLS = {
    "elman": (recurrent.elman, affine(HIDDEN_DIM), HIDDEN),
    "gru": (
        recurrent.gru,
        affine(4 * HIDDEN_DIM, input_columns=3 * HIDDEN_DIM, recurrent_columns=3 * HIDDEN_DIM),
        HIDDEN,
    ),
    "lstm": (recurrent.lstm, affine(4 * HIDDEN_DIM), LSTM_CARRY),
    "slstm": (recurrent.slstm, affine(4 * HIDDEN_DIM), SLSTMCarry(HIDDEN, HIDDEN, 1 + HIDDEN**2, HIDDEN)),
    "ordered": (functools.partial(ordered.ordered_lstm, chunk_size=2), affine(30), LSTM_CARRY),
    "input only": (
        functools.partial(ordered.ordered_lstm, chunk_size=2),
        affine(30, recurrent_columns=24),
        LSTM_CARRY,
    ),
}
INPUTS = normal(3, STEPS, BATCH, INPUT_DIM)
MASK = jax.random.bernoulli(jax.random.key(4), 0.7, (STEPS, BATCH))
RESET = jax.random.bernoulli(jax.random.key(5), 0.3, (STEPS, BATCH))
OPTIONS = {
    "nothing": {},
    "mask": {"mask": MASK},
    "reset": {"reset": RESET},
    "everything": {"mask": MASK, "reset": RESET, "lengths": LENGTHS, "reverse": True},
}


def assert_near(actual, expected, tolerance=1e-6):
    """Each array within ``tolerance`` of the largest number in it, or of 1."""
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(jnp.max(jnp.abs(other), initial=0)))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


@functools.cache
def differentiated(scan, name, option, **settings):
    """Compiled once for all inputs: results, and the gradients of everything that is differentiated.

    That is a value the cell closes over, weights, inputs, both carries.
    """
    cell, options = CELLS[name][0], OPTIONS[option]

    def loss(scale, weights, inputs, carry, reset_carry):
        extra = {"reset_carry": reset_carry} if "reset" in options else {}
        results = scan(lambda c, a: cell(c, a * scale), weights, inputs, carry, **options, **extra, **settings)
        weighted = (
            jnp.sum(leaf * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape))
            for leaf in jax.tree.leaves(results)
        )
        return sum(weighted), results

    return jax.jit(jax.grad(loss, (0, 1, 2, 3, 4), has_aux=True))


def results_and_gradients(scan, name, option, *, inputs=INPUTS, changed=lambda leaf: leaf, **settings):
    """As ``differentiated``, of these inputs and of carries that are changed."""
    weights, carry = CELLS[name][1:]
    carry = jax.tree.map(changed, carry)
    reset_carry = jax.tree.map(lambda leaf: 0.5 * leaf + 0.1, carry)
    return differentiated(scan, name, option, **settings)(jnp.array(1.1), weights, inputs, carry, reset_carry)


@functools.cache
def plain(name, option):
    return results_and_gradients(scan_plain, name, option)


KEPT = Residuals.PRE_ACTIVATIONS
GRID = [(name, option, KEPT) for name in CELLS for option in ("nothing", "everything")]
GRID += [("lstm", option, residuals) for option in OPTIONS for residuals in Residuals]


@pytest.mark.parametrize(("name", "option", "residuals"), sorted(set(GRID), key=str))
def test_scan_affine_is_the_plain_scan_in_value_and_gradient(name, option, residuals):
    actual = results_and_gradients(scan_affine, name, option, residuals=residuals)
    assert_near(actual, plain(name, option), 2e-6 if name == "slstm" else 1e-6)


@pytest.mark.parametrize(("name", "option", "residuals"), sorted(set(GRID), key=str))
def test_nan_in_a_row_reaches_no_other_row(name, option, residuals):
    """Neither their results nor their gradients, whatever the cell, the flags, and what is kept: to the bit."""

    def others(results_and_gradients):
        (_, _, d_inputs, *d_carries), (last, outputs) = results_and_gradients
        by_step, by_row = (d_inputs, outputs), (d_carries, last)
        kept = np.array([0, 2])
        return jax.tree.map(lambda x: x[:, kept], by_step), jax.tree.map(lambda x: x[kept], by_row)

    def ruined(leaf):
        return leaf.at[1].set(jnp.nan)

    for scan, settings in ((scan_affine, {"residuals": residuals}), (scan_plain, {})):
        own = functools.partial(results_and_gradients, scan, name, option, **settings)
        actual = own(inputs=jax.vmap(ruined)(INPUTS), changed=ruined)
        assert np.isnan(jax.tree.leaves(actual[1][1])[0][:, 1]).any(), "there is something to reach them"
        jax.tree.map(np.testing.assert_array_equal, others(actual), others(own()))


def test_scan_plain_is_the_loop():
    cell, weights, carry = CELLS["lstm"]
    outputs = []
    for x in INPUTS:
        carry, output = cell(carry, x @ weights.input + carry.hidden @ weights.recurrent + weights.bias[None])
        outputs.append(output)
    assert_near(scan_plain(cell, weights, INPUTS, CELLS["lstm"][2]), (carry, jnp.stack(outputs)))


@pytest.mark.parametrize("unroll", [2, 7])
def test_unrolled_is_the_same(unroll):
    actual = results_and_gradients(scan_affine, "lstm", "everything", unroll=unroll)
    assert_near(actual, plain("lstm", "everything"))


@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_are_runs_of_each_sequence_alone(reverse):
    cell, weights, carry = CELLS["lstm"]
    last, outputs = scan_affine(cell, weights, INPUTS, carry, lengths=LENGTHS, reverse=reverse)
    for row, length in enumerate(LENGTHS.tolist()):
        own = jax.tree.map(lambda leaf, row=row: leaf[row], carry)
        expected = scan_affine(cell, weights, INPUTS[:length, row], own, reverse=reverse)
        actual = jax.tree.map(lambda leaf, row=row: leaf[row], last), outputs[:length, row]
        assert_near(actual, expected)
        np.testing.assert_array_equal(outputs[length:, row], 0)


def test_lengths_beyond_the_end_count_as_all_steps_and_below_0_as_none():
    cell, weights, carry = CELLS["lstm"]
    beyond = scan_affine(cell, weights, INPUTS, carry, lengths=jnp.array([99, 7, -5]))
    within = scan_affine(cell, weights, INPUTS, carry, lengths=jnp.array([7, 7, 0]))
    jax.tree.map(np.testing.assert_array_equal, beyond, within)


def test_resets_are_runs_of_the_packed_sequences():
    """Two sequences of 3 and 4 steps packed one after the other, and each of them alone."""
    cell, weights, carry = CELLS["lstm"]
    reset = jnp.zeros((STEPS, BATCH), bool).at[jnp.array([0, 3])].set(True)
    last, outputs = scan_affine(cell, weights, INPUTS, carry, reset=reset)
    zero = jax.tree.map(jnp.zeros_like, carry)
    _, first = scan_affine(cell, weights, INPUTS[:3], zero)
    second_last, second = scan_affine(cell, weights, INPUTS[3:], zero)
    assert_near((last, outputs), (second_last, jnp.concatenate([first, second])))


def test_a_reset_takes_effect_where_masked():
    cell, weights, carry = CELLS["lstm"]
    reset, mask = jnp.zeros((STEPS, BATCH), bool).at[-1].set(True), jnp.ones((STEPS, BATCH), bool).at[-1].set(False)
    for scan in (scan_affine, scan_plain):
        last, _ = scan(cell, weights, INPUTS, carry, reset=reset, mask=mask, reset_carry=carry)
        jax.tree.map(np.testing.assert_array_equal, last, carry)


@pytest.mark.parametrize("scan", [scan_affine, scan_plain])
def test_rows_that_are_all_masked_keep_their_carry_and_pass_gradients_to_it_alone(scan):
    cell, weights, carry = CELLS["lstm"]
    nothing = jnp.zeros((STEPS, BATCH), bool)

    def total(weights, inputs, carry):
        last, outputs = scan(cell, weights, inputs, carry, mask=nothing)
        return jnp.sum(last.memory) + jnp.sum(outputs)

    gradients = jax.grad(total, (0, 1, 2))(weights, jnp.full_like(INPUTS, jnp.nan), carry)
    for leaf in jax.tree.leaves(gradients[:2]):
        np.testing.assert_array_equal(leaf, 0)
    np.testing.assert_array_equal(gradients[2].memory, 1)


@pytest.mark.parametrize("scan", [scan_affine, scan_plain])
def test_nan_in_padding_reaches_nothing_and_nan_in_a_row_no_other_row(scan):
    cell, weights, carry = CELLS["lstm"]

    def total(weights, inputs, **options):
        last, outputs = scan(cell, weights, inputs, carry, **options)
        return jnp.sum(last.hidden) + jnp.sum(outputs)

    padded = INPUTS.at[5:, 1].set(jnp.nan)
    gradients = jax.grad(total, (0, 1))(weights, padded, lengths=jnp.array([7, 5, 7]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    last, outputs = scan(cell, weights, INPUTS.at[2, 1].set(jnp.nan), carry)
    expected = scan(cell, weights, INPUTS, carry)
    others = np.array([0, 2])
    assert_near((last.hidden[others], outputs[:, others]), (expected[0].hidden[others], expected[1][:, others]))
    assert np.isnan(outputs[2:, 1]).all()
    own = jax.grad(total, 1)(weights, INPUTS.at[2, 1].set(jnp.nan))
    assert np.isfinite(own[:, others]).all()


def test_forward_mode_and_hessian_by_the_plain_scan_alone():
    cell, weights, carry = CELLS["elman"]

    def total(scan, bias):
        return jnp.sum(scan(cell, weights._replace(bias=bias), INPUTS, carry)[1] ** 2)

    bias = weights.bias
    forward = jax.jacfwd(functools.partial(total, scan_plain))(bias)
    assert_near(forward, jax.grad(functools.partial(total, scan_affine))(bias))
    hessian = jax.hessian(functools.partial(total, scan_plain))(bias)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (weights, INPUTS, carry))

        @jax.jit
        def gradient(bias):
            def total(bias):
                weights, inputs, carry = wide
                return jnp.sum(scan_plain(cell, weights._replace(bias=bias), inputs, carry)[1] ** 2)

            return jax.grad(total)(bias)

        steps = 1e-5 * jnp.eye(HIDDEN_DIM, dtype=jnp.float64)
        columns = [(gradient(wide[0].bias + step) - gradient(wide[0].bias - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(hessian, jnp.stack(columns), atol=1e-4)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jacfwd(functools.partial(total, scan_affine))(bias)


def test_carry_is_float32_where_weights_are_bfloat16():
    """And nearer to the float32 result than a carry in bfloat16 is."""
    cell, weights, carry = CELLS["lstm"]
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), weights)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
    inputs = normal(6, 200, BATCH, INPUT_DIM).astype(jnp.bfloat16)
    last, outputs = scan_affine(cell, narrow, inputs, carry)
    assert {leaf.dtype for leaf in jax.tree.leaves((last, outputs))} == {jnp.dtype(jnp.float32)}
    expected, _ = scan_affine(cell, wide, inputs, carry)

    def body(carry, x):
        return cell(carry, x @ narrow.input + carry.hidden @ narrow.recurrent + narrow.bias[None])

    rounded, _ = jax.lax.scan(body, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), carry), inputs)
    error = jnp.max(jnp.abs(last.memory - expected.memory))
    assert error < 0.5 * jnp.max(jnp.abs(rounded.memory.astype(jnp.float32) - expected.memory))
    gradients = jax.grad(lambda weights: jnp.sum(scan_affine(cell, weights, inputs, carry)[1]))(narrow)
    assert {leaf.dtype for leaf in gradients} == {jnp.dtype(jnp.bfloat16)}
    exact = jax.grad(lambda weights: jnp.sum(scan_affine(cell, weights, inputs, carry)[1]))(wide)
    for one, other in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(one.astype(jnp.float32), other, atol=0.03 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("scan", [scan_affine, scan_plain])
@pytest.mark.parametrize("precision", [jax.lax.Precision.DEFAULT, jax.lax.Precision.HIGHEST])
def test_products_are_made_at_the_precision_that_is_set(scan, precision):
    """Those of both directions. Planted and found: a precision of its own in the gradient of the weights."""
    cell, weights, carry = CELLS["lstm"]
    with jax.default_matmul_precision(precision.name.lower()):
        traced = jax.make_jaxpr(jax.grad(lambda weights: scan(cell, weights, INPUTS, carry)[1].sum()))(weights)
    products = [step for step in operations(traced.jaxpr) if step.primitive.name == "dot_general"]
    assert len(products) >= 4, "of the inputs and in the loop, forward and backward"
    assert {step.params["precision"] for step in products} == {(precision, precision)}


def test_integers_in_the_carry_and_in_the_outputs():
    def counting(carry, preactivations):
        hidden, count = carry
        hidden = jnp.tanh(preactivations) * count.astype(jnp.float32)[:, None]
        return (hidden, count + 1), (hidden, count)

    weights, carry = affine(HIDDEN_DIM), (HIDDEN, jnp.ones(BATCH, jnp.int32))

    def total(scan, weights, **options):
        (_, count), (hidden, counts) = scan(counting, weights, INPUTS, carry, lengths=LENGTHS, **options)
        return jnp.sum(hidden), (count, counts)

    expected = jax.grad(functools.partial(total, scan_plain), has_aux=True)(weights)
    for residuals in Residuals:
        actual = jax.grad(functools.partial(total, scan_affine, residuals=residuals), has_aux=True)(weights)
        assert_near(actual, expected)
    np.testing.assert_array_equal(expected[1][0], 1 + LENGTHS)


def test_vmap_over_what_the_cell_closes_over():
    cell, weights, carry = CELLS["lstm"]

    def total(scan, scale, shift):
        # A float and an integer, both batched.
        return jnp.sum(scan(lambda c, a: cell(c, a * scale + shift.astype(a.dtype)), weights, INPUTS, carry)[1])

    scales, shifts = jnp.array([0.5, 1.0]), jnp.array([0, 1])
    actual, expected = (
        jax.jit(jax.vmap(jax.value_and_grad(functools.partial(total, scan))))(scales, shifts)
        for scan in (scan_affine, scan_plain)
    )
    assert_near(actual, expected)


def test_shard_map_over_the_batch():
    cell, weights, carry = CELLS["lstm"]
    weights, inputs = weights, jnp.concatenate([INPUTS, INPUTS[:, :1]], 1)
    carry = jax.tree.map(lambda leaf: jnp.zeros((4, HIDDEN_DIM)), carry)
    mesh = Mesh(jax.devices()[:4], ("batch",))

    def total(weights, inputs, carry):
        return jnp.sum(scan_affine(cell, weights, inputs, carry)[1] ** 2)

    def part(weights, inputs):
        carry = LSTMCarry(*[jnp.zeros((inputs.shape[1], HIDDEN_DIM))] * 2)
        return jax.grad(lambda weights: jax.lax.psum(total(weights, inputs, carry), "batch"))(weights)

    specs = (PartitionSpec(), PartitionSpec(None, "batch"))
    actual = jax.jit(jax.shard_map(part, mesh=mesh, in_specs=specs, out_specs=PartitionSpec()))(weights, inputs)
    assert_near(actual, jax.grad(total)(weights, inputs, carry), 2e-6)


def test_no_steps():
    cell, weights, carry = CELLS["lstm"]
    last, outputs = scan_affine(cell, weights, INPUTS[:0], carry)
    jax.tree.map(np.testing.assert_array_equal, last, carry)
    assert outputs.shape == (0, BATCH, HIDDEN_DIM)


def test_rematerialising_keeps_less_than_the_pre_activations_and_these_less_than_everything():
    cell, _, _ = CELLS["lstm"]
    weights = recurrent.uniform_affine(jax.random.key(0), input_dim=32, hidden_dim=64, num_preactivations=256)
    inputs, carry = jnp.zeros((50, 8, 32)), LSTMCarry(*[jnp.zeros((8, 64))] * 2)

    def kept(residuals):
        def pull(weights):
            return jax.vjp(lambda w: scan_affine(cell, w, inputs, carry, residuals=residuals)[0].memory, weights)[1]

        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(pull, weights)))

    assert kept(Residuals.NONE) < 0.5 * kept(Residuals.PRE_ACTIVATIONS)
    assert kept(Residuals.PRE_ACTIVATIONS) < 0.8 * kept(Residuals.ALL)


def test_slstm_without_its_stabiliser():
    """Its equations in float64 as they stand, with gates so small that nothing overflows."""
    with jax.enable_x64(True):
        preactivations = normal(7, 5, 1, 4).astype(jnp.float64)
        carry = SLSTMCarry(*[jnp.zeros((1, 1), jnp.float64)] * 4)
        memory = normaliser = 0.0
        for a in preactivations:
            carry, hidden = recurrent.slstm(carry, a)
            write, forget, show, candidate = np.asarray(a)[0]
            memory = memory / (1 + np.exp(-forget)) + np.exp(write) * np.tanh(candidate)
            normaliser = normaliser / (1 + np.exp(-forget)) + np.exp(write)
            np.testing.assert_allclose(hidden[0, 0], memory / normaliser / (1 + np.exp(-show)), rtol=1e-12)
