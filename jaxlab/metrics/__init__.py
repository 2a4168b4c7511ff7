"""Metrics that stream, merge and have gradients: each is a statistic of an example and what is made of its mean.

A metric at temperature 0 is the usual one, equal to scikit-learn's; at a temperature above 0 its statistic is smooth,
and the same metric is a loss. Sums of statistics are its state: exact over any batches and devices. What comes at the
end is curved, so that a minibatch is biased: :func:`linearize`, :func:`jackknife_metric` and :func:`delta_metric` treat
that.
"""

from jaxlab.metrics.areas import average_precision, partial_auc, precision_recall_auc, roc_auc
from jaxlab.metrics.classification import (
    accuracy,
    balanced_accuracy,
    brier,
    calibration_error,
    cohen_kappa,
    matthews,
    top_k_accuracy,
)
from jaxlab.metrics.continuous import cosine, linear_cka, mutual_information, pinball, r_squared
from jaxlab.metrics.decisions import binary, macro, micro, multiclass, multilabel, weighted
from jaxlab.metrics.metric import Metric, State, Sum, evaluate, merge_states, state_of, value_of
from jaxlab.metrics.overlap import (
    dice,
    f_beta,
    jaccard,
    precision,
    recall,
    samplewise,
    set_f1,
    tversky,
)
from jaxlab.metrics.ranking import mean_over_lists, ndcg, precision_at, recall_at, reciprocal_rank
from jaxlab.metrics.running import decay_state
from jaxlab.metrics.sequences import bleu, rouge_l, token_error_rate
from jaxlab.metrics.table import METRICS, MetricRow
from jaxlab.metrics.transforms import delta_metric, jackknife_metric, linearize, loss

__all__ = [
    "METRICS",
    "Metric",
    "MetricRow",
    "State",
    "Sum",
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "binary",
    "bleu",
    "brier",
    "calibration_error",
    "cohen_kappa",
    "cosine",
    "decay_state",
    "delta_metric",
    "dice",
    "evaluate",
    "f_beta",
    "jaccard",
    "jackknife_metric",
    "linear_cka",
    "linearize",
    "loss",
    "macro",
    "matthews",
    "mean_over_lists",
    "merge_states",
    "micro",
    "multiclass",
    "multilabel",
    "mutual_information",
    "ndcg",
    "partial_auc",
    "pinball",
    "precision",
    "precision_at",
    "precision_recall_auc",
    "r_squared",
    "recall",
    "recall_at",
    "reciprocal_rank",
    "roc_auc",
    "rouge_l",
    "samplewise",
    "set_f1",
    "state_of",
    "token_error_rate",
    "top_k_accuracy",
    "tversky",
    "value_of",
    "weighted",
]
