"""Trees from distances beside a brute-force parser, trivial trees, and both conventions of F1 beside sets.

Violations planted for them, each of which failed: a parser that splits equal distances at the last one, one that never
looks at the first word's distance, or that takes a larger one before a word for one after it (brute force); a sentence
F1 that counts the whole sentence (the conventions by hand); a binary tree with brackets that cross those that were
given.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlab import ordered
from jaxlab.ordered import SpanCounts

SIZE = 9

quick = settings(deadline=None, max_examples=60, derandomize=True)


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


def test_a_tree_of_no_words_is_refused():
    with pytest.raises(ValueError, match=r"^balanced_tree: size must be at least 1; got 0"):
        ordered.balanced_tree(jnp.array(3), size=0)
