"""Rows of ``jaxlab.ordered``."""

from typing import Any

import numpy as np

from cases.case import COLD, EXTREME_LOGITS, EXTREME_SQUARES, LAST, LOGITS, ONE_UP, SQUARE, TWO_UP, Case, each, f32
from jaxlab.ordered import ReferenceWeights, SpanCounts, hard_cumax
from jaxlab.recurrent import Affine, LSTMCarry

LENGTH, LENGTHS = np.array(4), np.array([5, 3])
DISTANCES = f32(0.5, 2.0, -1.0, 3.0, 2.0)
GOLD = np.zeros((2, 5, 5), bool)
GOLD[0, 1, 3] = GOLD[0, 2, 3] = GOLD[0, 0, 4] = GOLD[1, 0, 1] = GOLD[1, 0, 2] = True
PREDICTED = GOLD | np.roll(GOLD, 1, 2)
CARRY = LSTMCarry(f32([0.5, -0.25, 0.0, 1.0]), f32([2.0, -1.0, 0.5, 0.25]))
PREACTIVATIONS = np.float32(0.25) * ((np.arange(20, dtype=np.float32) * 7 % 13) - 6).reshape(1, 20)
AFFINE = Affine(f32([0.5, -1.0], [0.25, 2.0]), f32([0.75, 1.0]), f32(0.5, -0.5))
REFERENCE = ReferenceWeights(f32([0.5, -1.0], [0.25, 2.0]), f32(1.0, -0.5), f32([0.75], [1.0]), f32(0.5, 0.25))


def split(name: str, **promises: Any) -> Case:
    along = {"axes": {"logits": "*batch k"}, **LAST, **promises}
    return Case(f"ordered.{name}", {"logits": LOGITS}, extremes=EXTREME_LOGITS, **along)


def random_split(name: str, **promises: Any) -> Case:
    along = {"axes": {"logits": "*batch k"}, **LAST, **promises}
    return Case(f"ordered.{name}", {"logits": LOGITS, "temperature": 0.5}, extremes=EXTREME_LOGITS + COLD, **along)


def tree(name: str, *results: str, **arguments: Any) -> Case:
    below = {name: "t" for name in ("length", "lengths") if name in arguments}
    # The mean F1 of no sentence of some length is not a number.
    sizes = {"b": ONE_UP, "t": TWO_UP} if name == "sentence_f1" else {}
    return Case(f"ordered.{name}", arguments, results=results or ("integer",), below=below, sizes=sizes)


def cell(variant: str, exact: tuple[str, ...] = ("carry", "preactivations"), **options: Any) -> Case:
    return Case(
        "ordered.ordered_lstm",
        {"carry": CARRY, "preactivations": PREACTIVATIONS, "chunk_size": 2, **options},
        exact=exact,
        results=("same",) * 5,
        extremes=each("preactivations", 1e4 * PREACTIVATIONS, 0 * PREACTIVATIONS),
        axes={"carry": "*batch 4", "preactivations": "*batch 20"},
        returned=("*batch 4",) * 3 + ("*batch",) * 2,
        variant=variant,
    )


ORDERED = (
    split("cumax", exact=("logits",)),
    Case(
        "ordered.cumax",
        {"logits": SQUARE, "axis": 0, "reverse": True, "exclusive": True},
        exact=("logits",),
        extremes=EXTREME_SQUARES,
        variant="options",
        axes={"logits": "k *batch"},
        returned=("k *batch",),
        sizes={"k": ONE_UP},
    ),
    split("hard_cumax"),
    split("straight_through_cumax", surrogate=("logits",)),
    random_split("concrete_cumax", exact=("logits", "temperature")),
    random_split("sample_cumax", surrogate=("logits", "temperature")),
    split("expected_split", exact=("logits",), results=("wide",), returned=("*batch",)),
    split("split_entropy", exact=("logits",), results=("wide",), returned=("*batch",)),
    cell("paper"),
    cell("inclusive", inclusive=True),
    cell("hard", ("carry.memory", "preactivations"), split=hard_cumax),
    Case(
        "ordered.initial_ordered_lstm",
        {"input_dim": 3, "hidden_dim": 4, "chunk_size": 2, "input_only": True},
        results=("wide",) * 3,
    ),
    Case(
        "ordered.from_reference_weights",
        {"reference": REFERENCE},
        exact=("reference",),
        results=("same",) * 3,
        returned=("d m", "h m", "m"),
    ),
    Case(
        "ordered.to_reference_weights",
        {"weights": AFFINE},
        exact=("weights",),
        results=("same",) * 4,
        axes={"weights.input": "d m", "weights.recurrent": "h m"},
    ),
    tree("distance_to_tree", distances=DISTANCES, length=LENGTH),
    Case(
        "ordered.distance_to_tree",
        {"distances": DISTANCES, "length": LENGTH, "right_biased": True},
        results=("integer",),
        variant="biased",
        below={"length": "t"},
    ),
    tree("spans_to_chart", spans=np.array([[0, 1], [2, 4], [-1, -1]]), size=5),
    tree("left_branching_tree", length=LENGTH, size=5),
    tree("right_branching_tree", length=LENGTH, size=5),
    tree("balanced_tree", length=LENGTH, size=5),
    tree("random_tree", length=LENGTH, size=5),
    tree("binarize", chart=GOLD[0], length=np.array(5)),
    tree("count_spans", *("integer",) * 3, predicted=PREDICTED[0], gold=GOLD[0], length=LENGTH),
    tree("span_scores", *("wide",) * 3, counts=SpanCounts(np.array(2), np.array(4), np.array(3))),
    tree("sentence_f1", "wide", predicted=PREDICTED, gold=GOLD, lengths=LENGTHS),
    tree("corpus_f1", "wide", predicted=PREDICTED, gold=GOLD, lengths=LENGTHS),
)
