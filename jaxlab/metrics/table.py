"""The metrics as rows: soft, hard, what the hard one equals, whether a minibatch is biased. Tests go over them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from jaxlab import smooth
from jaxlab.metrics import areas, classification, continuous, overlap, ranking, sequences
from jaxlab.metrics.decisions import binary, micro, multiclass, multilabel, weighted
from jaxlab.metrics.metric import Metric

__all__ = ["METRICS", "MetricRow"]


@dataclass(frozen=True)
class MetricRow:
    """A metric at a temperature, what it is of, and what is claimed of it.

    ``soft(temperature=...)`` makes it; at the number 0 it is :attr:`hard`, whose value is that of ``reference`` (a
    function of scikit-learn, or of SciPy; empty where neither has it). ``examples`` says what an example is: "class"
    (logits and a label), "bit" (a logit and a bit), "labels" (logits and bits), "list" (scores and bits), "gains"
    (scores and gains), "probability" (one, and a bit), "numbers", "units" (two numbers of [0, 1]), "vectors", "tokens".

    ``unbiased`` claims that the mean of value and gradient over minibatches is the metric's on all the data: its end is
    linear. All others are biased, and need :func:`linearize`. ``tempered`` says whether it has a temperature at all.
    """

    soft: Callable[..., Metric]
    examples: str
    unbiased: bool
    reference: str = ""
    tempered: bool = True

    @property
    def hard(self) -> Metric:
        """The metric at temperature 0."""
        return self.soft(temperature=0.0)


def _of(factory: Callable[..., Metric], decision: Callable, **options: object) -> Callable[..., Metric]:
    return lambda *, temperature: factory(decision(temperature=temperature), **options)


def _each(factory: Callable[..., Metric]) -> Callable[..., Metric]:
    return lambda *, temperature: overlap.samplewise(factory(multilabel(temperature=temperature), average=micro))


def _lists(function: Callable, **options: object) -> Callable[..., Metric]:
    return lambda *, temperature: ranking.mean_over_lists(
        functools.partial(function, temperature=temperature, **options)
    )


def _fixed(factory: Callable[..., Metric], **options: object) -> Callable[..., Metric]:
    return lambda *, temperature: factory(**options)


METRICS: dict[str, MetricRow] = {
    # Means over examples: a minibatch is unbiased.
    "accuracy": MetricRow(_of(classification.accuracy, multiclass), "class", True, "accuracy_score"),
    "accuracy_of_labels": MetricRow(_of(classification.accuracy, multilabel), "labels", True, "hamming_loss"),
    "top_k_accuracy": MetricRow(
        functools.partial(classification.top_k_accuracy, k=2), "class", True, "top_k_accuracy_score"
    ),
    "brier": MetricRow(
        lambda *, temperature: classification.brier(binary()), "bit", True, "brier_score_loss", tempered=False
    ),
    "samplewise_precision": MetricRow(_each(overlap.precision), "labels", True, "precision_score"),
    "samplewise_recall": MetricRow(_each(overlap.recall), "labels", True, "recall_score"),
    "samplewise_f_beta": MetricRow(_each(overlap.f_beta), "labels", True, "f1_score"),
    "samplewise_jaccard": MetricRow(_each(overlap.jaccard), "labels", True, "jaccard_score"),
    "roc_auc": MetricRow(_lists(areas.roc_auc), "list", True, "roc_auc_score"),
    "partial_auc": MetricRow(_lists(areas.partial_auc, max_rate=0.4), "list", True, "roc_auc_score"),
    "average_precision": MetricRow(_lists(areas.average_precision), "list", True, "average_precision_score"),
    "precision_recall_auc": MetricRow(_lists(areas.precision_recall_auc), "list", True, "precision_recall_curve"),
    "ndcg": MetricRow(_lists(ranking.ndcg), "gains", True, "ndcg_score"),
    "ndcg_of_three": MetricRow(_lists(ranking.ndcg, num_top=3), "gains", True, "ndcg_score"),
    "reciprocal_rank": MetricRow(_lists(ranking.reciprocal_rank), "list", True),
    "precision_at": MetricRow(_lists(ranking.precision_at, num_top=3), "list", True),
    "recall_at": MetricRow(_lists(ranking.recall_at, num_top=3), "list", True),
    "spearman": MetricRow(_lists(smooth.spearman), "gains", True, "spearmanr"),
    "pinball": MetricRow(functools.partial(continuous.pinball, q=0.25), "numbers", True, "mean_pinball_loss"),
    "cosine": MetricRow(_fixed(continuous.cosine), "vectors", True, "paired_cosine_distances", tempered=False),
    "rouge_l": MetricRow(sequences.rouge_l, "tokens", True),
    # Curved functions of means: a minibatch is biased.
    "precision": MetricRow(_of(overlap.precision, multiclass), "class", False, "precision_score"),
    "recall": MetricRow(_of(overlap.recall, multiclass), "class", False, "recall_score"),
    "f_beta": MetricRow(_of(overlap.f_beta, multiclass), "class", False, "f1_score"),
    "weighted_f_beta": MetricRow(
        _of(overlap.f_beta, multiclass, beta=2.0, average=weighted), "class", False, "fbeta_score"
    ),
    "micro_f_beta": MetricRow(_of(overlap.f_beta, multilabel, average=micro), "labels", False, "f1_score"),
    "f_beta_of_bits": MetricRow(_of(overlap.f_beta, binary), "bit", False, "f1_score"),
    "dice": MetricRow(_of(overlap.dice, binary), "bit", False, "f1_score"),
    "jaccard": MetricRow(_of(overlap.jaccard, multiclass), "class", False, "jaccard_score"),
    "tversky": MetricRow(_of(overlap.tversky, binary, false_positives=0.25, false_negatives=0.75), "bit", False),
    "set_f1": MetricRow(overlap.set_f1, "labels", False, "f1_score"),
    "balanced_accuracy": MetricRow(
        _of(classification.balanced_accuracy, multiclass), "class", False, "balanced_accuracy_score"
    ),
    "matthews": MetricRow(_of(classification.matthews, multiclass), "class", False, "matthews_corrcoef"),
    "cohen_kappa": MetricRow(_of(classification.cohen_kappa, multiclass), "class", False, "cohen_kappa_score"),
    "calibration_error": MetricRow(
        functools.partial(classification.calibration_error, num_bins=4), "probability", False
    ),
    "r_squared": MetricRow(_fixed(continuous.r_squared), "numbers", False, "r2_score", tempered=False),
    "mutual_information": MetricRow(
        functools.partial(continuous.mutual_information, num_bins=3), "units", False, "mutual_info_score"
    ),
    "linear_cka": MetricRow(_fixed(continuous.linear_cka), "vectors", False, tempered=False),
    "bleu": MetricRow(functools.partial(sequences.bleu, order=2), "tokens", False),
    "token_error_rate": MetricRow(sequences.token_error_rate, "tokens", False),
}
"""By name. Averages and options are examples; each factory of :mod:`jaxlab.metrics` stands here at least once."""
