r"""Ordered neurons: the cumulative softmax, the ON-LSTM, and the trees that are read off its gates.

- :func:`cumax` and its hard, straight-through and random versions split ordered levels in two.
- :func:`ordered_lstm` is a cell for :func:`jaxlab.recurrent.scan_affine`, with the distances of every step.
- :func:`distance_to_tree` makes trees of distances; a tree is a *chart*, a boolean matrix that is true at
  (i, j), i < j, where words i ... j (both included) form a constituent. :func:`sentence_f1` and :func:`corpus_f1`
  compare charts; the trivial trees and :func:`binarize` give what a parser has to be compared with.
"""

from jaxlab.ordered.cell import (
    OrderedOutputs,
    ReferenceWeights,
    from_reference_weights,
    initial_ordered_lstm,
    ordered_lstm,
    to_reference_weights,
)
from jaxlab.ordered.cumulative import (
    concrete_cumax,
    cumax,
    expected_split,
    hard_cumax,
    sample_cumax,
    split_entropy,
    straight_through_cumax,
)
from jaxlab.ordered.scores import SpanCounts, SpanScores, corpus_f1, count_spans, sentence_f1, span_scores
from jaxlab.ordered.trees import (
    balanced_tree,
    binarize,
    distance_to_tree,
    left_branching_tree,
    random_tree,
    right_branching_tree,
    spans_to_chart,
)

__all__ = [
    "OrderedOutputs",
    "ReferenceWeights",
    "SpanCounts",
    "SpanScores",
    "balanced_tree",
    "binarize",
    "concrete_cumax",
    "corpus_f1",
    "count_spans",
    "cumax",
    "distance_to_tree",
    "expected_split",
    "from_reference_weights",
    "hard_cumax",
    "initial_ordered_lstm",
    "left_branching_tree",
    "ordered_lstm",
    "random_tree",
    "right_branching_tree",
    "sample_cumax",
    "sentence_f1",
    "span_scores",
    "spans_to_chart",
    "split_entropy",
    "straight_through_cumax",
    "to_reference_weights",
]
