"""Metrics: hard ones equal scikit-learn's, with ties, weights and 0 / 0.

Violations planted here failed: ``zero_division`` taken for 0; a partial area that counts ties as a step; a
trapezoid that begins at precision 0; an average precision that counts an item half above itself.
"""

import functools
import math
from collections import Counter

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk
from labelled import CLASSES, SIZE, case, close

from jaxlab import metrics

AVERAGES = {"macro": metrics.macro, "micro": metrics.micro, "weighted": metrics.weighted}
BEST = hypothesis.settings(deadline=None, max_examples=25)
seeds = st.integers(0, 10**6)


PROGRAMS = {}


@functools.cache
def compiled(name, **options):
    """A metric of this name: its state is compiled once for all the cases, and for all metrics of one statistic."""
    metric = getattr(metrics, name)(**options)
    state_of = PROGRAMS.setdefault(
        (metric.statistic, options.get("decision")), jax.jit(lambda p, t, w: metrics.state_of(metric, p, t, weights=w))
    )
    return lambda p, t, w: metrics.value_of(metric, state_of(p, t, w))


DECISIONS = {make: make(temperature=0.0) for make in (metrics.multiclass, metrics.multilabel, metrics.binary)}


def hard(name, decision=metrics.multiclass, **options):
    return compiled(name, decision=DECISIONS[decision], **options)


@functools.cache
def of_samples(name, zero):
    """The mean over examples of a metric of each one's labels."""
    decision = DECISIONS[metrics.multilabel]
    metric = metrics.samplewise(getattr(metrics, name)(decision, average=metrics.micro, zero_division=zero))
    return jax.jit(lambda p, t, w: metrics.evaluate(metric, p, t, weights=w))


@BEST
@hypothesis.given(seed=seeds, average=st.sampled_from(list(AVERAGES)), zero=st.sampled_from([0.0, 1.0]))
def test_overlaps_of_classes_are_scikit_learns(seed, average, zero):
    logits, labels, weights = case(seed)
    options = {"average": AVERAGES[average], "zero_division": zero}
    common = {"labels": range(CLASSES), "average": average, "sample_weight": weights, "zero_division": zero}
    decided = logits.argmax(-1)
    close(hard("precision", **options)(logits, labels, weights), sk.precision_score(labels, decided, **common))
    close(hard("recall", **options)(logits, labels, weights), sk.recall_score(labels, decided, **common))
    for beta in (1.0, 2.0):
        actual = hard("f_beta", beta=beta, **options)(logits, labels, weights)
        close(actual, sk.fbeta_score(labels, decided, beta=beta, **common))
    close(hard("jaccard", **options)(logits, labels, weights), sk.jaccard_score(labels, decided, **common))


@BEST
@hypothesis.given(seed=seeds)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_metrics_of_the_confusion_matrix_are_scikit_learns(seed):
    logits, labels, weights = case(seed)
    decided, keep = logits.argmax(-1), {"sample_weight": weights}
    close(hard("accuracy")(logits, labels, weights), sk.accuracy_score(labels, decided, **keep))
    close(hard("matthews")(logits, labels, weights), sk.matthews_corrcoef(labels, decided, **keep))
    if weights[labels == np.max(labels)].sum() > 0:  # scikit-learn takes a class without weight for one that occurs
        present = [c for c in range(CLASSES) if weights[labels == c].sum() > 0]
        recalls = sk.recall_score(labels, decided, labels=present, average=None, **keep)
        close(hard("balanced_accuracy")(logits, labels, weights), recalls.mean())
    kappa = sk.cohen_kappa_score(labels, decided, labels=range(CLASSES), **keep)
    close(hard("cohen_kappa")(logits, labels, weights), np.nan_to_num(kappa))


@BEST
@hypothesis.given(seed=seeds, zero=st.sampled_from([0.0, 1.0]))
def test_sets_of_labels_and_bits_are_scikit_learns(seed, zero):
    logits, _, weights = case(seed)
    bits = np.random.default_rng(seed).integers(0, 2, (SIZE, CLASSES))
    keep = {"sample_weight": weights, "zero_division": zero}
    for name in ("precision", "recall", "f_beta", "jaccard"):
        reference = {"f_beta": sk.f1_score}.get(name) or getattr(sk, f"{name}_score")
        actual = of_samples(name, zero)(logits, bits, weights)
        close(actual, reference(bits, logits > 0, average="samples", **keep))
    actual = hard("f_beta", metrics.multilabel, average=metrics.micro, zero_division=zero)(logits, bits, weights)
    close(actual, sk.f1_score(bits, logits > 0, average="micro", **keep))
    of_sets = compiled("set_f1", temperature=0.0, zero_division=zero)
    close(of_sets(logits, bits, weights), sk.f1_score(bits, logits > 0, average="micro", **keep))
    one, truth = logits[:, 0], bits[:, 0]
    close(hard("f_beta", metrics.binary, zero_division=zero)(one, truth, weights), sk.f1_score(truth, one > 0, **keep))
    close(hard("dice", metrics.binary, zero_division=zero)(one, truth, weights), sk.f1_score(truth, one > 0, **keep))
    close(
        hard("accuracy", metrics.binary)(one, truth, weights), sk.accuracy_score(truth, one > 0, sample_weight=weights)
    )


def ranking(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(-3, 4, SIZE).astype(np.float32) / 2
    targets = random.integers(0, 2, SIZE)
    targets[:2] = 0, 1
    weights = random.integers(0, 4, SIZE).astype(np.float32)
    weights[:2] = 1, 0.5  # a positive and a negative
    return scores, targets, weights, random.integers(0, 4, SIZE).astype(np.float32)


@BEST
@hypothesis.given(seed=seeds)
def test_rankings_are_scikit_learns(seed):
    scores, targets, weights, gains = ranking(seed)
    close(metrics.roc_auc(scores, targets, temperature=0.0), sk.roc_auc_score(targets, scores))
    weighted = metrics.roc_auc(scores, targets, weights=weights, temperature=0.0)
    close(weighted, sk.roc_auc_score(targets, scores, sample_weight=weights))
    close(metrics.average_precision(scores, targets, temperature=0.0), sk.average_precision_score(targets, scores))
    weighted = metrics.average_precision(scores, targets, weights=weights, temperature=0.0)
    close(weighted, sk.average_precision_score(targets, scores, sample_weight=weights))
    for rate in (0.2, 0.5):
        actual = metrics.partial_auc(scores, targets, max_rate=rate, temperature=0.0)
        close(actual, sk.roc_auc_score(targets, scores, max_fpr=rate))
        actual = metrics.partial_auc(scores, targets, weights=weights, max_rate=rate, temperature=0.0)
        close(actual, sk.roc_auc_score(targets, scores, max_fpr=rate, sample_weight=weights))
    for weight in (None, weights):
        precision, recall, _ = sk.precision_recall_curve(targets, scores, sample_weight=weight)
        actual = metrics.precision_recall_auc(scores, targets, weights=weight, temperature=0.0)
        close(actual, sk.auc(recall, precision))
    for top in (None, 4):
        actual = metrics.ndcg(scores, gains, num_top=top, temperature=0.0)
        close(actual, sk.ndcg_score(gains[None], scores[None], k=top) if gains.any() else 0)


@pytest.mark.parametrize("temperature", [1e-3, 0.3])
def test_a_weight_of_two_is_two_items_in_the_smooth_areas_too(temperature):
    scores, targets, weights, _ = ranking(5)
    again = np.repeat(np.arange(SIZE), weights.astype(int))
    whole = np.floor(weights)
    for name in ("roc_auc", "partial_auc"):
        function = functools.partial(getattr(metrics, name), temperature=temperature)
        one, other = function(scores, targets, weights=whole), function(scores[again], targets[again])
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1e-3, 0.02])
def test_smooth_rankings_are_near_the_hard_ones_where_there_are_no_ties(temperature):
    scores = jnp.asarray(np.random.default_rng(0).permutation(SIZE), jnp.float32)
    targets = jnp.asarray(np.arange(SIZE) % 3 == 0).astype(jnp.int32)
    functions = (
        metrics.roc_auc,
        metrics.precision_recall_auc,
        metrics.average_precision,
        metrics.ndcg,
        metrics.reciprocal_rank,
        functools.partial(metrics.precision_at, num_top=4),
        functools.partial(metrics.recall_at, num_top=4),
        functools.partial(metrics.partial_auc, max_rate=0.5),
    )
    for function in functions:
        arguments = (scores, targets)
        np.testing.assert_allclose(
            function(*arguments, temperature=temperature), function(*arguments, temperature=0.0), atol=1e-4
        )


def test_other_hard_values_are_scikit_learns():
    random = np.random.default_rng(0)
    numbers = random.normal(size=(3, 30)).astype(np.float32)
    numbers[2] = np.abs(numbers[2])
    y, prediction, weights = (jnp.asarray(x) for x in numbers)
    theirs = {"y_true": numbers[0], "y_pred": numbers[1]}
    weighted = {**theirs, "sample_weight": numbers[2]}
    close(metrics.evaluate(metrics.r_squared(), prediction, y, weights=weights), sk.r2_score(**weighted))
    far = metrics.evaluate(metrics.r_squared(center=1e4), prediction + 1e4, y + 1e4)
    np.testing.assert_allclose(far, sk.r2_score(**theirs), rtol=1e-2)
    for q in (0.1, 0.5):
        actual = metrics.evaluate(metrics.pinball(q=q), prediction, y, weights=weights)
        close(actual, sk.mean_pinball_loss(**weighted, alpha=q))
    bits = (numbers[0] > 0).astype(np.int32)
    chances = np.asarray(jax.nn.sigmoid(prediction))
    close(metrics.evaluate(metrics.brier(metrics.binary()), prediction, bits), sk.brier_score_loss(bits, chances))
    labels = random.integers(0, 4, 30)
    logits = random.normal(size=(30, 4)).astype(np.float32)
    close(
        metrics.evaluate(metrics.top_k_accuracy(k=2, temperature=0.0), logits, labels),
        sk.top_k_accuracy_score(labels, logits, k=2),
    )
    x, other = (np.asarray(jax.nn.sigmoid(z)) for z in (y, prediction))
    binned = [np.minimum((z * 4).astype(int), 3) for z in (x, other)]
    actual = metrics.evaluate(metrics.mutual_information(num_bins=4, temperature=0.0), x, other)
    np.testing.assert_allclose(actual, sk.mutual_info_score(*binned), rtol=1e-4)


def test_calibration_error_by_hand():
    chances, bits = jnp.array([0.125, 0.15, 0.95, 0.85]), jnp.array([0, 1, 1, 1])
    expected = abs(0.275 - 1) / 4 + abs(0.95 - 1) / 4 + abs(0.85 - 1) / 4  # three bins of ten hold something
    close(metrics.evaluate(metrics.calibration_error(temperature=0.0), chances, bits), expected)


def textbook_bleu(pairs, order):
    matches, totals, lengths = [0] * order, [0] * order, [0, 0]
    for hypothesis_, reference in pairs:
        lengths[0] += len(hypothesis_)
        lengths[1] += len(reference)
        for n in range(1, order + 1):
            grams = [Counter(tuple(x[i : i + n]) for i in range(len(x) - n + 1)) for x in (hypothesis_, reference)]
            matches[n - 1] += sum((grams[0] & grams[1]).values())
            totals[n - 1] += sum(grams[0].values())
    if 0 in matches:
        return 0.0
    brevity = min(0.0, 1 - lengths[1] / lengths[0])
    return math.exp(brevity + sum(math.log(m / t) for m, t in zip(matches, totals, strict=True)) / order)


def padded(sequences, length, vocabulary):
    mask = np.array([[i < len(s) for i in range(length)] for s in sequences])
    tokens = np.array([[*s, *[0] * (length - len(s))] for s in sequences])
    return np.eye(vocabulary, dtype=np.float32)[tokens], tokens, mask


words = st.lists(st.integers(0, 2), min_size=2, max_size=7)


@BEST
@hypothesis.given(pairs=st.lists(st.tuples(words, words), min_size=2, max_size=2), order=st.sampled_from([1, 2]))
def test_bleu_is_the_textbooks(pairs, order):
    logits, _, mask = padded([p for p, _ in pairs], 7, 3)
    _, tokens, reference_mask = padded([r for _, r in pairs], 7, 3)
    evaluate = compiled("bleu", temperature=0.0, order=order)
    close(evaluate((logits, mask), (tokens, reference_mask), None), textbook_bleu(pairs, order))


def test_expected_ngrams_of_a_soft_prediction():
    """Two places, chance 3/4 of each right token: one unigram each with 3/4, the bigram with 9/16."""
    logits = jnp.log(jnp.array([[[0.75, 0.25], [0.25, 0.75]]]))
    mask = jnp.ones((1, 2), bool)
    value = metrics.evaluate(metrics.bleu(order=2), (logits, mask), (jnp.array([[0, 1]]), mask))
    np.testing.assert_allclose(value, math.sqrt(1.0 * 9 / 16), rtol=1e-6)  # each token is expected 3/4 + 1/4 times


SOFT = metrics.multiclass()


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(chosen=st.lists(st.booleans(), min_size=SIZE, max_size=SIZE), seed=seeds)
def test_a_state_in_any_split_is_that_of_all(chosen, seed):
    logits, labels, weights = (jnp.asarray(x) for x in case(seed))
    for name in ("f_beta", "matthews"):
        evaluate = compiled(name, decision=SOFT)
        metric, state_of = getattr(metrics, name)(SOFT), PROGRAMS[getattr(metrics, name)(SOFT).statistic, SOFT]
        whole = evaluate(logits, labels, weights)
        # A weight of 0 leaves an example out: one program for all the splits.
        parts = [state_of(logits, labels, jnp.where(jnp.asarray(chosen) == part, weights, 0)) for part in (True, False)]
        close(metrics.value_of(metric, metrics.merge_states(*parts)), whole)
        close(metrics.value_of(metric, metrics.merge_states(*parts[::-1])), whole)
        close(metrics.value_of(metric, jax.tree.map(jnp.add, *parts)), whole)
