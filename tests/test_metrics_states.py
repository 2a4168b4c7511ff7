"""States of metrics, which add exactly; what is made of metrics; bad input.

Violations planted here failed: counts held in float32, and rests that are not carried; states that are not asked what
they are of; labels and bits that are not looked at.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from labelled import SIZE, case, close
from replicates import FAR, largest_z, replicate

from jaxlab import metrics

SOFT = metrics.multiclass()


def test_a_state_is_summed_over_devices():
    logits, labels, _ = case(0)
    metric = metrics.f_beta(SOFT)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("batch")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(spec, spec), out_specs=jax.sharding.PartitionSpec())
    def value(logits, labels):
        return metrics.value_of(metric, jax.lax.psum(metrics.state_of(metric, logits, labels), "batch"))

    close(value(logits, labels), metrics.evaluate(metric, logits, labels))


def test_counts_go_on_beyond_two_to_the_24():
    metric = metrics.precision(metrics.binary(temperature=0.0))
    one = metrics.state_of(metric, jnp.array([1.0]), jnp.array([0]))
    many = jax.tree.map(lambda leaf: leaf * 2**24, one)
    merged = metrics.merge_states(many, one)
    assert merged.weight.whole.item() == merged.sums["decided"].whole.item() == 2**24 + 1
    assert float(jnp.float32(2**24) + jnp.float32(1)) == 2**24  # what a float32 count would be


def test_soft_counts_keep_their_rests():
    metric = metrics.accuracy(metrics.binary())
    state = one = metrics.state_of(metric, jnp.array([0.3]), jnp.array([1]))
    merge = jax.jit(metrics.merge_states)
    for _ in range(200):
        state = merge(state, one)
    close(metrics.value_of(metric, state), jax.nn.sigmoid(0.3))
    assert int(state.sums.whole) > 100  # what is whole is carried over
    assert 0 <= float(state.sums.rest) < 1


# Five per cent of positives, of which a score says little: the minibatch is biased.
def population(key, size):
    label_key, score_key = jax.random.split(key)
    labels = (jax.random.uniform(label_key, (size,)) < 0.05).astype(jnp.int32)
    return 1.5 * labels.astype(jnp.float32) + jax.random.normal(score_key, (size,)), labels


F1 = metrics.f_beta(metrics.binary(temperature=0.3))


@functools.cache
def truth(bias=1.5):
    """State, value and gradient (of the loss, for a shift of all scores) on a million examples."""
    scores, labels = population(jax.random.key(1), 1_000_000)
    state = metrics.state_of(F1, scores - bias, labels)
    gradient = jax.grad(lambda shift: metrics.loss(F1)(scores - shift, labels))(bias)
    return state, float(metrics.value_of(F1, state)), float(gradient)


def test_linearized_gradients_are_unbiased_and_the_naive_ones_are_not():
    state, _, gradient = truth()

    def gradients(key):
        scores, labels = population(key, 8)
        naive = jax.grad(lambda shift: metrics.loss(F1)(scores - shift, labels))(1.5)
        linear = jax.grad(lambda shift: metrics.linearize(F1, state)(scores - shift, labels))(1.5)
        return naive, linear

    naive, linear = replicate(gradients)
    assert largest_z(linear, gradient) < FAR
    assert largest_z(naive, gradient) > FAR
    assert np.sign(naive.mean()) != np.sign(gradient)


def test_jackknife_and_delta_have_less_bias_and_honest_errors():
    _, value, _ = truth()

    def estimates(key):
        scores, labels = population(key, 128)
        logits = scores - 1.5
        naive = metrics.evaluate(F1, logits, labels)
        return naive, metrics.jackknife_metric(F1)(logits, labels), metrics.delta_metric(F1)(logits, labels)

    naive, jackknifed, corrected = replicate(estimates, num_replicates=4000)
    assert largest_z(naive, value) > FAR
    for result in (jackknifed, corrected):
        assert abs(result.value.mean() - value) < 0.4 * abs(naive.mean() - value)
        np.testing.assert_allclose(jnp.sqrt(jnp.mean(result.standard_error**2)), result.value.std(), rtol=0.15)


def test_an_accuracy_has_no_bias_to_take_off():
    logits, labels, _ = case(1)
    metric = metrics.accuracy(metrics.multiclass())
    for transform in (metrics.jackknife_metric, metrics.delta_metric):
        result = transform(metric)(logits, labels)
        close(result.bias, 0)
        close(result.value, metrics.evaluate(metric, logits, labels))
        close(result.standard_error, np.std(np.asarray(jax.vmap(metric.stat)(logits, labels)), ddof=1) / np.sqrt(SIZE))


def test_empty_and_weightless_batches_have_stated_values_and_no_nan():
    logits, labels, _ = case(0)
    nothing = jnp.zeros(SIZE)
    for name in ("f_beta", "precision", "jaccard", "matthews", "cohen_kappa", "balanced_accuracy"):
        metric = getattr(metrics, name)(metrics.multiclass())
        evaluate = functools.partial(metrics.evaluate, metric, targets=labels, weights=nothing)
        value, gradient = jax.jit(jax.value_and_grad(evaluate))(logits)
        close(value, 0)
        assert not np.isnan(gradient).any()
    assert float(metrics.roc_auc(jnp.ones(3), jnp.zeros(3))) == 0.5
    assert float(metrics.average_precision(jnp.ones(3), jnp.zeros(3))) == 0.0


def test_bad_input_is_refused():
    logits, labels, _ = (jnp.asarray(x) for x in case(0))
    f1, kappa = metrics.f_beta(metrics.multiclass()), metrics.cohen_kappa(metrics.multiclass())
    # The same shapes, and nothing in common but them.
    accuracy, brier = metrics.accuracy(metrics.multiclass()), metrics.brier(metrics.multiclass())
    for one, other, names in (
        (f1, kappa, "'counts of multiclass'; got that of 'confusion matrix of multiclass'"),
        (accuracy, brier, "'accuracy of multiclass'; got that of 'squared errors of multiclass'"),
    ):
        state, wrong = (metrics.state_of(metric, logits, labels) for metric in (one, other))
        message = f"state must be of the statistic {names}"
        with pytest.raises(ValueError, match=f"^merge_states: {message}"):
            metrics.merge_states(state, wrong)
        with pytest.raises(ValueError, match=f"^decay_state: {message}"):
            metrics.decay_state(state, wrong)
        with pytest.raises(ValueError, match=f"^value_of: {message}"):
            metrics.value_of(one, wrong)
        with pytest.raises(ValueError, match=f"^linearize: {message}"):
            metrics.linearize(one, wrong)
        with pytest.raises(ValueError, match=r"structure|node data"):
            jax.tree.map(jnp.add, state, wrong)
    # Precision and recall are of one statistic: a state of one is a state of the other.
    recall = metrics.recall(metrics.multiclass())
    close(metrics.value_of(recall, metrics.state_of(f1, logits, labels)), metrics.evaluate(recall, logits, labels))
    few = metrics.state_of(f1, logits[:, :2], jnp.minimum(labels, 1))
    with pytest.raises(ValueError, match=r"^merge_states: states of 'counts of multiclass' must have the same shapes"):
        metrics.merge_states(metrics.state_of(f1, logits, labels), few)
    with pytest.raises(ValueError, match=r"^state_of: .* the same number of examples; got \[11, 12\]"):
        metrics.evaluate(f1, logits, labels[:-1])
    with pytest.raises(ValueError, match=r"^multiclass: .* integer label; got"):
        metrics.evaluate(f1, logits, logits)
    for make in (metrics.multiclass, metrics.multilabel, metrics.binary):
        with pytest.raises(ValueError, match="temperature must not be negative; got -1"):
            make(temperature=-1.0)
    with pytest.raises(ValueError, match="beta must be greater than 0; got 0"):
        metrics.f_beta(metrics.binary(), beta=0.0)
    with pytest.raises(ValueError, match=r"top_k_accuracy: k must lie in 1 \.\.\. 3; got 5"):
        metrics.evaluate(metrics.top_k_accuracy(k=5), logits, labels)
    with pytest.raises(ValueError, match=r"precision_at: num_top must lie in 1 \.\.\. 3; got 9"):
        metrics.precision_at(logits[0], jnp.array([0, 1, 0]), num_top=9)
    for wrong in (labels.at[3].set(-1), labels.at[3].set(3)):
        for metric in (f1, kappa, metrics.top_k_accuracy(k=2)):
            with pytest.raises(
                ValueError, match=r"^state_of: labels must lie in 0 \.\.\. 2; got (-1|3) \(1 of 12 outside\)"
            ):
                metrics.evaluate(metric, logits, wrong)
        # What has no weight may have any label, and what is traced is not looked at.
        weights = jnp.ones(SIZE).at[3].set(0)
        close(
            metrics.evaluate(f1, logits, wrong, weights=weights), metrics.evaluate(f1, logits, labels, weights=weights)
        )
        assert np.isfinite(jax.jit(lambda wrong: metrics.evaluate(f1, logits, wrong))(wrong))
    with pytest.raises(ValueError, match=r"^state_of: bits must lie in 0 \.\.\. 1; got 2"):
        metrics.evaluate(metrics.f_beta(metrics.multilabel()), logits, jnp.full(logits.shape, 2))
    for name in ("roc_auc", "partial_auc", "average_precision", "precision_recall_auc", "reciprocal_rank"):
        with pytest.raises(ValueError, match=rf"^{name}: targets must lie in 0 \.\.\. 1; got 2 \(4 of 12 outside\)"):
            getattr(metrics, name)(logits[:, 0], jnp.arange(12) % 3)
    with pytest.raises(ValueError, match=r"^ndcg: gains must lie in 0 \.\.\. inf; got -1"):
        metrics.ndcg(logits[0], jnp.array([1.0, -1.0, 0.0]))
    text, mask = jnp.zeros((1, 4, 3)), jnp.ones((1, 4), bool)
    for metric in (metrics.bleu(), metrics.rouge_l(), metrics.token_error_rate()):
        with pytest.raises(ValueError, match=r"^state_of: tokens must lie in 0 \.\.\. 2; got 9"):
            metrics.evaluate(metric, (text, mask), (jnp.full((1, 4), 9), mask))
    for transform in (metrics.jackknife_metric, metrics.delta_metric):
        with pytest.raises(ValueError, match="at least 2 samples are needed; got 1"):
            transform(f1)(logits[:1], labels[:1])


def temporary_bytes(function, *arguments):
    return jax.jit(jax.value_and_grad(function)).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("area", [metrics.roc_auc, metrics.partial_auc], ids=["roc_auc", "partial_auc"])
def test_the_memory_of_a_large_auc_is_that_of_one_chunk(area):
    """8,192 scores, value and gradient: all pairs at once would take 256 MiB and more. Planted and found: these."""
    assert temporary_bytes(area, jnp.zeros(8192), jnp.zeros(8192, jnp.int32)) <= 16 * 2**20


def test_matrices_of_a_metric_are_made_of_no_example_by_itself():
    """The confusion matrix and the products of features of 512 examples: one by one, they would take 8 MiB each.

    Planted and found: matrices of each example, and their sum.
    """
    x, labels = jnp.zeros((512, 64)), jnp.zeros(512, jnp.int32)
    matthews = metrics.loss(metrics.matthews(metrics.multiclass(temperature=1.0)))
    assert temporary_bytes(matthews, x, labels) < 2**20
    assert temporary_bytes(metrics.loss(metrics.linear_cka()), x, x) < 2**20


@pytest.mark.parametrize("transform", [metrics.jackknife_metric, metrics.delta_metric])
def test_corrected_metrics_keep_no_matrix_of_each_example(transform):
    """The confusion matrices of 16,384 examples take 256 MiB. Planted and found: all of them at once."""
    x, labels = jnp.zeros((16_384, 64)), jnp.zeros(16_384, jnp.int32)
    estimate = transform(metrics.cohen_kappa(metrics.multiclass(temperature=1.0)))
    assert temporary_bytes(lambda x, labels: estimate(x, labels).value, x, labels) < 192 * 2**20
