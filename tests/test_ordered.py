"""Ordered neurons: cumax, the cell beside a recorded PyTorch one, trees beside a brute-force parser."""

import functools
import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab import gumbel, ordered, recurrent
from jaxlab.ordered import OrderedOutputs, ReferenceWeights, SpanCounts
from jaxlab.recurrent import LSTMCarry

GOLDEN = np.load(Path(__file__).parent / "golden" / "ordered_lstm.npz")
SIZE = 9

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


# Trees


def brute_force(distances: list[float], first: int, biased: bool) -> set[tuple[int, int]]:
    """The constituents of words ``first`` on, with these distances, by the recursion of the definition."""
    if len(distances) < 2:
        return set()
    last = first + len(distances) - 1
    split = int(np.argmax(distances)) if biased else 1 + int(np.argmax(distances[1:]))
    spans = {(first, last)} | brute_force(distances[:split], first, biased)
    if biased:
        rest = {(first + split, last)} if first + split < last else set()
        return spans | rest | brute_force(distances[split + 1 :], first + split + 1, biased)
    return spans | brute_force(distances[split:], first + split, biased)


def spans_of(chart) -> set[tuple[int, int]]:
    return {(int(first), int(last)) for first, last in np.argwhere(np.asarray(chart))}


distance_lists = st.lists(st.integers(0, 4), min_size=0, max_size=SIZE)  # few values: many ties


@pytest.mark.parametrize("biased", [False, True])
@quick
@given(values=distance_lists)
def test_distance_to_tree_is_the_brute_force_parser(values, biased):
    padded = jnp.array([*values, *[9.0] * (SIZE - len(values))], jnp.float32)
    chart = ordered.distance_to_tree(padded, jnp.array(len(values)), right_biased=biased)
    assert spans_of(chart) == brute_force(values, 0, biased)
    assert len(spans_of(chart)) == max(len(values) - 1, 0)


def test_a_padded_batch_is_parsed_row_by_row_and_nan_stays_in_its_row():
    distances = jax.random.uniform(jax.random.key(0), (4, SIZE)).at[2].set(jnp.nan)
    lengths = jnp.array([9, 5, 7, 1])
    charts = jax.vmap(ordered.distance_to_tree)(distances, lengths)
    for row in (0, 1, 3):
        length = int(lengths[row])
        assert spans_of(charts[row]) == brute_force(distances[row, :length].tolist(), 0, False)


def bracketing(length: int, shape: str, first: int = 0) -> set[tuple[int, int]]:
    if length < 2:
        return set()
    half = {"left": length - 1, "right": 1, "balanced": length // 2}[shape]
    whole = {(first, first + length - 1)}
    return whole | bracketing(half, shape, first) | bracketing(length - half, shape, first + half)


@pytest.mark.parametrize("length", range(SIZE + 1))
def test_trivial_trees(length):
    for shape in ("left", "right", "balanced"):
        tree = getattr(ordered, f"{shape}_tree" if shape == "balanced" else f"{shape}_branching_tree")
        assert spans_of(tree(jnp.array(length), size=SIZE)) == bracketing(length, shape)


def test_random_trees_split_uniformly():
    keys = jax.random.split(jax.random.key(0), 6000)
    charts = jax.vmap(lambda key: ordered.random_tree(key, jnp.array(4), size=5))(keys)
    assert (charts.sum((1, 2)) == 3).all()
    # [w0 | rest], [w0 w1 | w2 w3], [w0 w1 w2 | w3], a third each.
    for span in ((1, 3), (0, 2)):
        assert abs(float(charts[:, span[0], span[1]].mean()) - 1 / 3) < 5 * (2 / 9 / 6000) ** 0.5
    assert abs(float((charts[:, 0, 1] & charts[:, 2, 3]).mean()) - 1 / 3) < 5 * (2 / 9 / 6000) ** 0.5


def nested(draw, length: int):
    """A random tree as nested lists with as many leaves, nodes of two children and more."""
    if length == 1:
        return 0
    cuts = sorted(draw(st.sets(st.integers(1, length - 1), min_size=1, max_size=length - 1)))
    bounds = [0, *cuts, length]
    return [nested(draw, end - begin) for begin, end in itertools.pairwise(bounds)]


trees = st.composite(lambda draw: nested(draw, draw(st.integers(1, SIZE))))()


def size_of(tree) -> int:
    return sum(map(size_of, tree)) if isinstance(tree, list) else 1


def constituents(tree, first: int = 0) -> set[tuple[int, int]]:
    if not isinstance(tree, list):
        return set()
    spans = {(first, first + size_of(tree) - 1)}
    for child in tree:
        spans |= constituents(child, first)
        first += size_of(child)
    return spans


def from_the_left(tree):
    """The tree with every node of more than two children split into its first child and the rest."""
    if not isinstance(tree, list):
        return tree
    children = [from_the_left(child) for child in tree]
    while len(children) > 2:
        children[-2:] = [children[-2:]]
    return children


def chart_of(spans: set[tuple[int, int]]) -> jax.Array:
    padded = sorted(spans) + [(-1, -1)] * (2 * SIZE - len(spans))
    return ordered.spans_to_chart(jnp.array(padded), size=SIZE)


@quick
@given(trees)
def test_binarize_is_the_recursion_and_keeps_all_that_it_is_given(tree):
    spans, length = constituents(tree), jnp.array(size_of(tree))
    chart = chart_of(spans)
    assert spans_of(chart) == spans
    binary = ordered.binarize(chart, length)
    assert spans_of(binary) == constituents(from_the_left(tree))
    assert spans <= spans_of(binary)
    assert int(binary.sum()) == size_of(tree) - 1


# Scores


def reference_scores(predicted: set, gold: set) -> float:
    """Sentence F1 as the reference program defines it, by sets."""
    common = len(predicted & gold)
    recall = common / len(gold) if gold else 1
    precision = common / len(predicted) if predicted else float(not gold)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


@quick
@given(st.lists(st.tuples(trees, st.lists(st.integers(0, 3), min_size=SIZE, max_size=SIZE)), min_size=1, max_size=4))
def test_f1_in_both_conventions_is_that_of_sets(examples):
    examples = (examples * 4)[:4]  # of one shape
    lengths = [size_of(tree) for tree, _ in examples]
    gold = [constituents(tree) for tree, _ in examples]
    predicted = [brute_force(values[:length], 0, False) for (_, values), length in zip(examples, lengths, strict=True)]
    charts = [jnp.stack([chart_of(spans) for spans in both]) for both in (predicted, gold)]
    roots = [{(0, length - 1)} for length in lengths]
    sentences = [reference_scores(p - r, g - r) for p, g, r in zip(predicted, gold, roots, strict=True)]
    np.testing.assert_allclose(ordered.sentence_f1(*charts, jnp.array(lengths)), np.mean(sentences), atol=1e-6)
    common, all_predicted, all_gold = (
        sum(map(len, spans)) for spans in ([p & g for p, g in zip(predicted, gold, strict=True)], predicted, gold)
    )
    expected = 2 * common / (all_predicted + all_gold) if all_gold else 1
    np.testing.assert_allclose(ordered.corpus_f1(*charts, jnp.array(lengths)), expected, atol=1e-6)


def test_conventions_by_hand():
    """[w0 w1] [w2 w3] against [w0 [w1 [w2 w3]]]: (2, 3) in common; the root of both beside it."""
    length = jnp.array(4)
    predicted, gold = chart_of({(0, 3), (0, 1), (2, 3)}), chart_of({(0, 3), (1, 3), (2, 3)})
    assert [int(count) for count in ordered.count_spans(predicted, gold, length)] == [1, 2, 2]
    assert [int(count) for count in ordered.count_spans(predicted, gold, length, root=True)] == [2, 3, 3]
    batch = predicted[None], gold[None], length[None]
    assert float(ordered.sentence_f1(*batch)) == pytest.approx(1 / 2)
    assert float(ordered.corpus_f1(*batch)) == pytest.approx(2 / 3)


def test_sentences_of_one_word_and_padding():
    nothing = jnp.zeros((3, SIZE, SIZE), bool)
    assert float(ordered.sentence_f1(nothing, nothing, jnp.array([1, 1, 0]))) == 1
    gold = nothing.at[0].set(chart_of({(0, 3), (0, 1)}))
    predicted = nothing.at[0].set(chart_of({(0, 3), (1, 3), (2, 3)}))
    assert float(ordered.sentence_f1(predicted, gold, jnp.array([4, 1, 0]))) == 0.5  # the mean of 0 and 1
    assert float(ordered.corpus_f1(predicted, gold, jnp.array([4, 1, 0]))) == pytest.approx(2 / 5)
    empty = ordered.span_scores(SpanCounts(*[jnp.array(count) for count in (0, 2, 0)]))
    assert [float(score) for score in empty] == [0, 1, 0]


# Bad input


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
        (lambda: ordered.balanced_tree(jnp.array(3), size=0), "balanced_tree: size must be at least 1; got 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


def test_outputs_are_named():
    assert OrderedOutputs._fields == ("hidden", "forget_distance", "input_distance")
