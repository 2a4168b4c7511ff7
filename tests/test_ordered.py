"""Ordered neurons: cumax, and the cell beside a recorded PyTorch one.

Violations planted for cumax, each of which failed: a derivative without that of the normalising sum (the gradient);
sums over the first axis, as two public programs have them (monotony); sums of many levels without the running maximum;
with ``reverse``, no turning back; ``exclusive`` left out. For the cell, beside the recorded values: ``inclusive`` left
out, or its levels moved the other way; the master gates exchanged, or the input and forget gates; the bias of the
hidden state's map dropped. For the layout there and back: zeros for the last columns in place of the first.
"""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab import gumbel, ordered, recurrent
from jaxlab.ordered import OrderedOutputs, ReferenceWeights
from jaxlab.recurrent import LSTMCarry

GOLDEN = np.load(Path(__file__).parent / "golden" / "ordered_lstm.npz")

quick = settings(deadline=None, max_examples=60, derandomize=True)
logits_lists = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12)


# Cumax


@quick
@given(logits_lists)
def test_cumax_is_monotone_in_0_to_1_and_ends_at_exactly_1(values):
    logits = jnp.array([values, values[::-1]], jnp.float32)
    split = np.asarray(ordered.cumax(logits))
    assert (np.diff(split, axis=-1) >= 0).all()
    assert split.min() >= 0
    np.testing.assert_array_equal(split[:, -1], 1)
    backwards = np.asarray(ordered.cumax(logits, reverse=True))
    assert (np.diff(backwards, axis=-1) <= 0).all()
    np.testing.assert_array_equal(backwards[:, 0], 1)
    np.testing.assert_array_equal(ordered.cumax(logits, exclusive=True)[:, 0], 0)
    # P(split <= k) + P(split > k) = 1
    np.testing.assert_allclose(split + ordered.cumax(logits, reverse=True, exclusive=True), 1, atol=1e-6)
    np.testing.assert_allclose(split, np.cumsum(jax.nn.softmax(logits), -1), atol=1e-6)


@pytest.mark.parametrize("size", [256, 257, 1000])
def test_cumax_of_many_levels_is_monotone_where_a_parallel_sum_is_not(size):
    logits = 4 * jax.random.normal(jax.random.key(0), (500, size))
    split = np.asarray(ordered.cumax(logits))
    assert (np.diff(split, axis=-1) >= 0).all()
    assert split.max() == 1
    exact = np.cumsum(np.asarray(jax.nn.softmax(logits)), -1, dtype=np.float64)
    np.testing.assert_allclose(split, exact, atol=3e-6)
    if size == 1000:
        naive = np.asarray(jnp.cumsum(jax.nn.softmax(logits), -1))
        assert (np.diff(naive, axis=-1) < 0).any()
    gradient = jax.grad(lambda logits: ordered.cumax(logits)[:, size // 2].sum())(logits)
    expected = jax.grad(lambda logits: jax.nn.softmax(logits)[:, : size // 2 + 1].sum())(logits)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_cumax_in_bfloat16_is_rounded_once():
    logits = jax.random.normal(jax.random.key(0), (200, 115)).astype(jnp.bfloat16)
    wide = ordered.cumax(logits.astype(jnp.float32))
    np.testing.assert_array_equal(ordered.cumax(logits), wide.astype(jnp.bfloat16))
    naive = jnp.cumsum(jax.nn.softmax(logits), -1).astype(jnp.float32)
    assert jnp.max(jnp.abs(naive - wide)) > 4e-3


@quick
@given(logits_lists, st.booleans(), st.booleans())
def test_hard_cumax_is_that_of_one_hot_and_the_limit_of_cold_cumax(values, reverse, exclusive):
    logits, options = jnp.array(values, jnp.float32), {"reverse": reverse, "exclusive": exclusive}
    one_hot = np.eye(len(values))[int(np.argmax(values))]
    expected = np.cumsum(one_hot[::-1])[::-1] if reverse else np.cumsum(one_hot)
    expected = expected - one_hot if exclusive else expected
    np.testing.assert_array_equal(ordered.hard_cumax(logits, **options), expected)
    np.testing.assert_array_equal(ordered.straight_through_cumax(logits, **options), expected)
    gradients = [
        jax.grad(lambda x, f=f: jnp.sum(f(x, **options) * jnp.arange(1.0, 1 + x.size)))(logits)
        for f in (ordered.straight_through_cumax, ordered.cumax)
    ]
    np.testing.assert_array_equal(*gradients)
    gap = np.sort(values)[-1] - np.sort(values)[-2] if len(values) > 1 else 1
    if gap > 0.01:
        np.testing.assert_allclose(ordered.cumax(logits / 1e-4, **options), expected, atol=1e-6)


def test_sampled_splits_have_cumax_as_their_mean_and_the_relaxed_gradient():
    logits = jnp.array([0.5, -1.0, 2.0, 0.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = jax.vmap(lambda key: ordered.sample_cumax(key, logits))(keys)
    assert set(np.unique(draws)) == {0.0, 1.0}
    mean = ordered.cumax(logits)
    error = np.sqrt(np.maximum(mean * (1 - mean), 1e-12) / len(keys))
    assert (np.abs(draws.mean(0) - mean) < 5 * error + 1e-7).all()
    relaxed = jax.vmap(lambda key: ordered.concrete_cumax(key, logits, temperature=0.5))(jax.random.clone(keys))
    assert (np.abs(relaxed.mean(0) - mean) > 5 * relaxed.std(0) / len(keys) ** 0.5)[:-1].any(), "relaxed is biased"
    key = jax.random.key(1)
    gradients = [
        jax.grad(lambda x, f=f: f(jax.random.clone(key), x, temperature=0.5)[1])(logits)
        for f in (ordered.sample_cumax, ordered.concrete_cumax)
    ]
    np.testing.assert_array_equal(*gradients)
    argmax = gumbel.log_concrete(jax.random.clone(key), logits, temperature=0.5).argmax()
    np.testing.assert_array_equal(ordered.sample_cumax(jax.random.clone(key), logits), jnp.arange(4) >= argmax)


@quick
@given(logits_lists)
def test_moments_of_the_split(values):
    logits = jnp.array(values, jnp.float32)
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    np.testing.assert_allclose(ordered.expected_split(logits), probabilities @ np.arange(len(values)), atol=1e-4)
    np.testing.assert_allclose(ordered.expected_split(logits), jnp.sum(1 - ordered.cumax(logits)), atol=1e-4)
    entropy = -np.sum(probabilities * np.log(np.maximum(probabilities, 1e-300)))
    np.testing.assert_allclose(ordered.split_entropy(logits), entropy, atol=1e-5)


# The cell


def golden(gate: str, prefix: str, names: tuple[str, ...], dtype=jnp.float32) -> list[jax.Array]:
    return [jnp.asarray(GOLDEN[f"{gate}_{prefix}{name}"], dtype) for name in names]


def scan_of(gate, reference, inputs, carry, scan=recurrent.scan_affine):
    cell = functools.partial(ordered.ordered_lstm, chunk_size=3, inclusive=gate == "inclusive")
    return scan(cell, ordered.from_reference_weights(reference), inputs, carry)


@pytest.mark.parametrize("gate", ["paper", "inclusive"])
def test_values_and_gradients_are_those_recorded_from_torch(gate):
    weights = ("ih_weight", "ih_bias", "hh_weight", "hh_bias")
    reference = ReferenceWeights(*golden(gate, "argument_", weights))
    (inputs,), carry = (
        golden(gate, "argument_", ("inputs",)),
        LSTMCarry(*golden(gate, "argument_", ("hidden", "memory"))),
    )

    def loss(reference, inputs, carry):
        last, outputs = scan_of(gate, reference, inputs, carry)
        results = (*outputs, last.memory)
        weighted = (
            jnp.sum(result * jnp.cos(jnp.arange(result.size, dtype=result.dtype) + number).reshape(result.shape))
            for number, result in enumerate(results)
        )
        return sum(weighted), results

    gradients, results = jax.grad(loss, (0, 1, 2), has_aux=True)(reference, inputs, carry)
    names = ("outputs", "forget_distances", "input_distances", "last_memory")
    for actual, expected in zip(results, golden(gate, "", names), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    recorded = golden(gate, "gradient_", (*weights, "inputs", "hidden", "memory"))
    for actual, expected in zip(jax.tree.leaves(gradients), recorded, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * max(1, float(jnp.abs(expected).max())))
    other = {"paper": "inclusive", "inclusive": "paper"}[gate]
    assert jnp.max(jnp.abs(scan_of(other, reference, inputs, carry)[1].hidden - results[0])) > 1e-2


def test_the_last_chunk_is_dead_with_the_papers_input_gate_alone():
    weights = ordered.initial_ordered_lstm(jax.random.key(0), input_dim=4, hidden_dim=16, chunk_size=4)
    inputs = jax.random.normal(jax.random.key(1), (30, 8, 4))
    zero = LSTMCarry(*[jnp.zeros((8, 16))] * 2)

    def run(inclusive, zero=zero):
        cell = functools.partial(ordered.ordered_lstm, chunk_size=4, inclusive=inclusive)
        return recurrent.scan_affine(cell, weights, inputs, zero)[0].memory[:, -4:]

    assert jnp.max(jnp.abs(run(inclusive=False))) == 0
    assert jnp.min(jnp.max(jnp.abs(run(inclusive=True)), 0)) > 0.01
    # Nor is it erased: what it holds at the start stays.
    np.testing.assert_array_equal(run(inclusive=False, zero=LSTMCarry(zero.hidden, zero.memory + 0.5)), 0.5)


@pytest.mark.parametrize("split", [ordered.hard_cumax, ordered.straight_through_cumax])
def test_hard_master_gates_copy_or_overwrite_whole_chunks(split):
    """Above the forget split the memory stays as it is; between the splits the plain gates decide."""
    carry = LSTMCarry(jnp.zeros(6), jnp.arange(1.0, 7.0))
    # Split of the input gate before level 0 (nothing written), of the forget gate at level 1 (level 0 erased).
    masters = jnp.array([9.0, 0, 0, 0, 9.0, 0])
    preactivations = jnp.concatenate([masters, jnp.zeros(24)])
    after, outputs = ordered.ordered_lstm(carry, preactivations, chunk_size=2, split=split)
    assert after.memory.tolist() == [0, 0, 3, 4, 5, 6]
    assert float(outputs.forget_distance) == pytest.approx(1 / 3)


def test_master_gates_of_the_input_alone():
    weights = ordered.initial_ordered_lstm(jax.random.key(0), input_dim=4, hidden_dim=8, chunk_size=2, input_only=True)
    cell = functools.partial(ordered.ordered_lstm, chunk_size=2)
    inputs = jax.random.normal(jax.random.key(1), (6, 4))
    distances = [
        recurrent.scan_affine(cell, weights, inputs, LSTMCarry(jnp.full(8, start), jnp.zeros(8)))[1].forget_distance
        for start in (0.0, 0.9)
    ]
    np.testing.assert_array_equal(*distances)
    logits = inputs @ weights.input[:, 4:8] + weights.bias[None, 4:8]
    np.testing.assert_allclose(distances[0], ordered.expected_split(logits) / 4, atol=1e-6)


def test_reference_layout_there_and_back():
    weights = ordered.initial_ordered_lstm(jax.random.key(0), input_dim=4, hidden_dim=8, chunk_size=2, input_only=True)
    reference = ordered.to_reference_weights(weights)
    assert [leaf.shape for leaf in reference] == [(40, 4), (40,), (40, 8), (40,)]
    np.testing.assert_array_equal(reference.hh_weight[:8], 0)
    back = ordered.from_reference_weights(reference)
    np.testing.assert_array_equal(back.recurrent[:, 8:], weights.recurrent)
    np.testing.assert_array_equal(back.bias, weights.bias)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ordered.ordered_lstm(LSTMCarry(jnp.zeros(8), jnp.zeros(8)), jnp.zeros(40), chunk_size=3),
            "ordered_lstm: chunk_size must divide the number of hidden units, 8; got 3",
        ),
        (
            lambda: ordered.ordered_lstm(LSTMCarry(jnp.zeros(8), jnp.zeros(8)), jnp.zeros(40), chunk_size=4),
            "ordered_lstm: preactivations must have shape [36], two for each of 2 levels and four for each of 8 units",
        ),
        (
            lambda: ordered.initial_ordered_lstm(jax.random.key(0), input_dim=2, hidden_dim=8, chunk_size=0),
            "initial_ordered_lstm: chunk_size must be at least 1; got 0",
        ),
        (lambda: ordered.cumax(jnp.zeros(3), axis=1), "cumax: axis must be an axis of logits, of shape [3]; got 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


def test_outputs_are_named():
    assert OrderedOutputs._fields == ("hidden", "forget_distance", "input_distance")
