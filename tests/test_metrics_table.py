"""The table of metrics: each row's hard value is scikit-learn's, its soft one tends to it, and its bias is as claimed.

Minibatches are all that can be drawn, so that means over them are exact: nothing here is a matter of chance.

Violations planted here failed: an accuracy that is claimed to be biased; Matthews' correlation that is claimed not
to be; an average precision that does not tend to the hard one; a linearized loss that stands on its own batch.
"""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
from sklearn.metrics.pairwise import paired_cosine_distances

from jaxlab import metrics
from jaxlab.metrics import METRICS

SIZE, CLASSES, ITEMS = 6, 3, 5
# All minibatches of two, drawn with replacement.
BATCHES = np.array(list(itertools.product(range(SIZE), repeat=2)))
rows = pytest.mark.parametrize("name", METRICS)


def examples(kind, random, *, ties):
    """Predictions and targets of a kind; with ties, 0 / 0, and classes that do not occur, or without."""

    def scores(*shape):
        return random.integers(-2, 3, shape).astype(np.float32) if ties else random.normal(size=shape).astype("f")

    bits = random.integers(0, 2, (SIZE, ITEMS))
    if kind == "class":
        return scores(SIZE, CLASSES), random.integers(0, random.integers(1, CLASSES + 1) if ties else CLASSES, SIZE)
    if kind == "bit":
        return scores(SIZE), bits[:, 0]
    if kind == "labels":
        return scores(SIZE, ITEMS), bits
    if kind == "list":
        bits[:, :2] = 0, 1  # both must occur in a ROC curve
        return scores(SIZE, ITEMS), bits
    if kind == "gains":
        return scores(SIZE, ITEMS), random.integers(0, 4, (SIZE, ITEMS)).astype(np.float32)
    if kind == "probability":
        return random.uniform(size=SIZE).astype("f"), bits[:, 0]
    if kind == "units":
        return tuple(random.uniform(size=(2, SIZE)).astype("f"))
    if kind in ("numbers", "vectors"):
        return tuple(random.normal(size=(2, SIZE) if kind == "numbers" else (2, SIZE, 2)).astype("f"))
    lengths, tokens = random.integers(2, 5, (2, SIZE)), random.integers(0, CLASSES, (SIZE, 4))
    masks = [np.arange(4) < length[:, None] for length in lengths]
    logits = random.normal(size=(SIZE, 4, CLASSES)) + 2 * np.eye(CLASSES)[tokens]
    return (logits.astype("f"), masks[0]), (tokens, masks[1])


def of_lists(function):
    return lambda p, t, w: np.average([function(*pair) for pair in zip(t, p, strict=True)], weights=w)


def of_counts(function, decide, **options):
    return lambda p, t, w: function(t, decide(p), sample_weight=w, zero_division=0, **options)


def largest(p):
    return p.argmax(-1)


def positive(p):
    return p > 0


def pr_auc(t, p):
    precision, recall, _ = sk.precision_recall_curve(t, p)
    return sk.auc(recall, precision)


def correlation(t, p):
    return scipy.stats.spearmanr(p, t).statistic if np.ptp(p) * np.ptp(t) > 0 else 0.0


def balanced(p, t, w):
    # scikit-learn takes a class without weight for one that occurs.
    present = [c for c in range(CLASSES) if w[t == c].sum() > 0]
    return np.mean(sk.recall_score(t, largest(p), labels=present, average=None, sample_weight=w, zero_division=0))


def information(p, t, w):
    binned = (np.repeat(np.minimum((z * 3).astype(int), 2), w.astype(int)) for z in (p, t))
    return sk.mutual_info_score(*binned)


OF_CLASSES = {"labels": range(CLASSES), "average": "macro"}
OF_SAMPLES = {"average": "samples"}
REFERENCES = {
    "accuracy": lambda p, t, w: sk.accuracy_score(t, largest(p), sample_weight=w),
    "accuracy_of_labels": lambda p, t, w: 1 - sk.hamming_loss(t, p > 0, sample_weight=w),
    "top_k_accuracy": lambda p, t, w: sk.top_k_accuracy_score(t, p, k=2, labels=range(CLASSES), sample_weight=w),
    "brier": lambda p, t, w: sk.brier_score_loss(t, 1 / (1 + np.exp(-p)), sample_weight=w, pos_label=1),
    "samplewise_precision": of_counts(sk.precision_score, positive, **OF_SAMPLES),
    "samplewise_recall": of_counts(sk.recall_score, positive, **OF_SAMPLES),
    "samplewise_f_beta": of_counts(sk.f1_score, positive, **OF_SAMPLES),
    "samplewise_jaccard": of_counts(sk.jaccard_score, positive, **OF_SAMPLES),
    "roc_auc": of_lists(sk.roc_auc_score),
    "partial_auc": of_lists(functools.partial(sk.roc_auc_score, max_fpr=0.4)),
    "average_precision": of_lists(sk.average_precision_score),
    "precision_recall_auc": of_lists(pr_auc),
    "ndcg": lambda p, t, w: sk.ndcg_score(t, p, sample_weight=w),
    "ndcg_of_three": lambda p, t, w: sk.ndcg_score(t, p, k=3, sample_weight=w),
    "spearman": of_lists(correlation),
    "pinball": lambda p, t, w: sk.mean_pinball_loss(t, p, alpha=0.25, sample_weight=w),
    "cosine": lambda p, t, w: np.average(1 - paired_cosine_distances(p, t), weights=w),
    "precision": of_counts(sk.precision_score, largest, **OF_CLASSES),
    "recall": of_counts(sk.recall_score, largest, **OF_CLASSES),
    "f_beta": of_counts(sk.f1_score, largest, **OF_CLASSES),
    "weighted_f_beta": of_counts(sk.fbeta_score, largest, labels=range(CLASSES), average="weighted", beta=2.0),
    "micro_f_beta": of_counts(sk.f1_score, positive, average="micro"),
    "f_beta_of_bits": of_counts(sk.f1_score, positive),
    "dice": of_counts(sk.f1_score, positive),
    "jaccard": of_counts(sk.jaccard_score, largest, **OF_CLASSES),
    "set_f1": of_counts(sk.f1_score, positive, average="micro"),
    "balanced_accuracy": balanced,
    "matthews": lambda p, t, w: sk.matthews_corrcoef(t, largest(p), sample_weight=w),
    "cohen_kappa": lambda p, t, w: np.nan_to_num(
        sk.cohen_kappa_score(t, largest(p), labels=range(CLASSES), sample_weight=w)
    ),
    "r_squared": lambda p, t, w: sk.r2_score(t, p, sample_weight=w),
    "mutual_information": information,
}


def test_every_reference_is_used_and_every_factory_has_a_row():
    assert {name for name, row in METRICS.items() if row.reference} == set(REFERENCES)
    factories = {
        name.removeprefix("samplewise_")
        for name in METRICS
        if not name.endswith(("_of_labels", "_of_bits", "_of_three"))
    }
    not_factories = {
        "binary",
        "multiclass",
        "multilabel",
        "micro",
        "macro",
        "weighted",
        "samplewise",
        "mean_over_lists",
    }
    states = {"evaluate", "value_of", "state_of", "merge_states", "decay_state"}
    transforms = {"loss", "linearize", "jackknife_metric", "delta_metric"}
    types = {"METRICS", "Metric", "MetricRow", "State", "Sum"}
    public = set(metrics.__all__) - not_factories - states - transforms - types
    assert public <= factories, public - factories


@functools.cache
def hard_program(name):
    metric = METRICS[name].hard
    return jax.jit(lambda p, t, w: metrics.evaluate(metric, p, t, weights=w))


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(seed=st.integers(0, 10**6))
def test_the_hard_metric_is_the_reference_with_ties_weights_and_zero_division(name, seed):
    random = np.random.default_rng(seed)
    predictions, targets = examples(METRICS[name].examples, random, ties=name != "top_k_accuracy")
    weights = random.integers(0, 4, SIZE).astype(np.float32)
    weights[:2] = 1, 2
    expected = REFERENCES[name](predictions, targets, weights)
    np.testing.assert_allclose(hard_program(name)(predictions, targets, weights), expected, rtol=1e-5, atol=3e-6)


@functools.cache
def soft_program(name):
    """On all the data, merged from two parts, and on all minibatches: compiled once for all temperatures."""

    def program(temperature, p, t):
        metric = METRICS[name].soft(temperature=temperature)
        of_each = jax.vmap(lambda *pair: metrics.state_of(metric, *jax.tree.map(lambda leaf: leaf[None], pair)))(p, t)

        def one(i):
            return jax.tree.map(lambda leaf: leaf[i], of_each)

        def of(index):
            return functools.reduce(metrics.merge_states, map(one, index))

        everything = jax.tree.map(lambda leaf: jnp.sum(leaf, 0), of_each)
        merged = metrics.merge_states(of(range(2)), of(range(2, SIZE)))
        batches = jax.vmap(of)(BATCHES)
        stacked = jax.tree.map(
            lambda *leaves: jnp.concatenate([leaves[0][None], leaves[1][None], leaves[2]]), everything, merged, batches
        )
        values = jax.vmap(lambda state: metrics.value_of(metric, state))(stacked)
        return values[0], values[1], values[2:]

    return jax.jit(program)


def temperature_of(name):
    return np.float32(0.05 if METRICS[name].examples in ("probability", "units") else 0.5)


def fixed(name):
    return examples(METRICS[name].examples, np.random.default_rng(3), ties=False)


@rows
def test_parts_merge_and_the_mean_of_all_minibatches_is_the_whole_exactly_if_that_is_claimed(name):
    whole, merged, batches = soft_program(name)(temperature_of(name), *fixed(name))
    np.testing.assert_allclose(merged, whole, rtol=2e-6, atol=1e-6)
    bias = abs(float(np.mean(np.float64(batches)) - whole))
    assert bias < 2e-6 if METRICS[name].unbiased else bias > 1e-3


@rows
def test_the_soft_metric_tends_to_the_hard_one(name):
    row, (predictions, targets) = METRICS[name], fixed(name)
    hard = hard_program(name)(predictions, targets, np.ones(SIZE, np.float32))
    cold = soft_program(name)(np.float32(1e-3), predictions, targets)[0]
    np.testing.assert_allclose(cold, hard, atol=2e-2 if row.examples == "tokens" else 2e-3)
    warm = soft_program(name)(temperature_of(name), predictions, targets)[0]
    assert (abs(warm - hard) > 1e-3) == row.tempered


@pytest.mark.parametrize("name", ["f_beta", "matthews", "r_squared", "mutual_information"])
def test_the_gradient_around_a_state_is_unbiased_and_that_of_the_batch_is_not(name):
    metric = METRICS[name].soft(temperature=temperature_of(name))
    predictions, targets = jax.tree.map(jnp.asarray, fixed(name))

    @jax.jit
    def gradients(predictions):
        state = metrics.state_of(metric, predictions, targets)

        def batch_mean(loss, predictions):
            parts = jax.vmap(lambda index: loss(*jax.tree.map(lambda x: x[index], (predictions, targets))))
            return jnp.mean(parts(BATCHES))

        losses = (
            lambda p: metrics.loss(metric)(p, targets),
            functools.partial(batch_mean, metrics.linearize(metric, state)),
            functools.partial(batch_mean, metrics.loss(metric)),
        )
        return [jax.tree.leaves(jax.grad(loss, allow_int=True)(predictions))[0] for loss in losses]

    exact, linear, naive = gradients(predictions)
    np.testing.assert_allclose(linear, exact, rtol=1e-4, atol=2e-6)
    assert np.abs(naive - exact).max() > 1e-3
