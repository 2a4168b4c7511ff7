"""Rows of ``jaxlab.metrics``: of a factory, the metric that it makes, evaluated."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from cases.case import ONE_UP, SQUARE, TWO_UP, Case, each, f32
from jaxlab import metrics

LOGITS = f32([0.5, -1.0, 2.0], [1.5, 0.25, -0.5], [-2.0, 1.0, 0.75], [0.25, 0.5, 1.0])
# Of 32 bits: some rows close over them, and JAX keeps what it made of such an array under x64.
LABELS = np.array([2, 1, 1, 0], np.int32)
BITS = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0]])
SCORES, TARGETS = f32(0.5, -1.0, 2.0, 0.25, 1.5), np.array([1, 0, 1, 0, 0])
TEXT = (np.stack([SQUARE, SQUARE[::-1]]), np.array([[True, True, True], [True, True, False]]))
TEXT_AXES = {"predictions.0": "b t k", "predictions.1": "b t", "targets": "b s"}
REFERENCE = (np.array([[2, 0, 1], [1, 1, 0]]), np.array([[True, True, True], [True, False, False]]))


def made(name: str, make: Callable[[], metrics.Metric], predictions: Any, targets: Any, **more: Any) -> Case:
    """A factory of metrics, by the metric's value on a batch."""

    def function(predictions, targets):
        return metrics.evaluate(make(), predictions, targets)

    exact = ("predictions", *(("targets",) if more.pop("both", False) else ()))
    arguments = {"predictions": predictions, "targets": targets}
    axes = (
        {"predictions": "b k"[: 2 * predictions.ndim], "targets": "b k"[: 2 * targets.ndim]}
        if isinstance(targets, np.ndarray)
        else TEXT_AXES
    )
    # Of a text's predictions the second part is its mask; what goes from 0 to 1 says its own extremes.
    large = (1e4 * predictions[0], predictions[1]) if isinstance(predictions, tuple) else 1e4 * predictions
    none = (0 * predictions[0], predictions[1]) if isinstance(predictions, tuple) else 0 * predictions
    extremes = each("predictions", large, none)
    more = {"axes": axes, "returned": ("",), "sizes": {"b": ONE_UP, "k": ONE_UP}, "extremes": extremes, **more}
    return Case(f"metrics.{name}", arguments, exact, results=("wide",), function=function, compiled=False, **more)


def classified(name: str, make: Callable[[], metrics.Metric]) -> Case:
    """One of as many classes as there are logits, which are enough for a top 2."""
    sizes = {"b": ONE_UP, "k": TWO_UP}
    return made(name, make, LOGITS, LABELS, below={"targets": "k"}, sizes=sizes)


def ranked(name: str, **options: Any) -> Case:
    arguments = {"scores": SCORES, "targets": TARGETS, "temperature": 0.5, **options}
    extremes = ({"scores": 0 * SCORES}, {"scores": 1e4 * SCORES}, {"temperature": 1e-3}, {"targets": 0 * TARGETS})
    exact = ("scores", "temperature", "weights")
    sizes = {"n": TWO_UP if "num_top" in options else ONE_UP}
    return Case(f"metrics.{name}", arguments, exact, results=("wide",), extremes=extremes, sizes=sizes)


def score(counts):
    return counts["both"]


def averaged(name: str) -> Case:
    def function(both, true):
        return getattr(metrics, name)(score, {"both": both, "true": true})

    arguments = {"both": f32(0.5, 1.0), "true": f32(1.0, 2.0)}
    exact = ("both", "true") if name == "weighted" else ("both",)
    return Case(
        f"metrics.{name}",
        arguments,
        exact,
        function=function,
        compiled=False,
        axes={"both": "k", "true": "k"},
        returned=("",),
        sizes={"k": ONE_UP},
    )


def decided(name: str, logits: Any, target: Any) -> Case:
    def function(logits, temperature):
        return getattr(metrics, name)(temperature=temperature)(logits, jnp.asarray(target, jnp.int32))[0]

    arguments = {"logits": logits, "temperature": 0.5}
    return Case(
        f"metrics.{name}",
        arguments,
        ("logits", "temperature"),
        results=("wide",),
        extremes=(*each("logits", 1e4 * logits, 0 * logits), {"temperature": 1e-3}),
        function=function,
        compiled=False,
        # The target, which is part of the program, has its own.
        axes={"logits": "k"} if name == "multiclass" else {},
        returned=("k",) if name == "multiclass" else (),
        sizes={"k": (3, 5)},
    )


def f1() -> metrics.Metric:
    return metrics.f_beta(metrics.multiclass())


def state_value(logits):
    state = metrics.state_of(f1(), logits, jnp.asarray(LABELS))
    return metrics.value_of(f1(), metrics.merge_states(state, state))


def decayed(logits):
    state = metrics.state_of(f1(), logits, jnp.asarray(LABELS))
    twice = metrics.merge_states(state, state)
    return metrics.decay_state(state, twice).weight.rest + metrics.value_of(f1(), state)


def around(logits):
    # As precise as the logits, or else the value would be rounded more than its derivative.
    precise = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32
    state = metrics.state_of(f1(), jnp.asarray(LOGITS, precise), jnp.asarray(LABELS))
    return metrics.linearize(f1(), state)(logits, jnp.asarray(LABELS))


def transformed(name: str, function: Callable, num_results: int = 1) -> Case:
    """A transformation, or what works on states."""
    arguments = {"logits": LOGITS}
    return Case(
        f"metrics.{name}",
        arguments,
        ("logits",),
        results=("wide",) * num_results,
        extremes=each("logits", 1e4 * LOGITS, 0 * LOGITS),
        function=function,
        compiled=False,
        # The labels of four examples, which are part of the program, are below three; and a state has its classes.
        axes={"logits": "4 3" if name == "linearize" else "4 k"},
        returned=("k",) if name == "state_of" else ("",) * num_results,
        sizes={"k": (3, 5)},
    )


MULTICLASS = {"predictions": LOGITS, "targets": LABELS}
FACTORIES = ("precision", "recall", "f_beta", "jaccard", "dice", "tversky")
MATRIX = ("accuracy", "balanced_accuracy", "matthews", "cohen_kappa", "brier")

METRICS = (
    averaged("macro"),
    averaged("micro"),
    averaged("weighted"),
    decided("multiclass", LOGITS[0], np.array(2)),
    decided("multilabel", LOGITS[0], BITS[0]),
    decided("binary", np.float32(0.5), np.array(1)),
    *(classified(name, lambda name=name: getattr(metrics, name)(metrics.multiclass())) for name in FACTORIES),
    *(classified(name, lambda name=name: getattr(metrics, name)(metrics.multiclass())) for name in MATRIX),
    made(
        "samplewise",
        lambda: metrics.samplewise(metrics.f_beta(metrics.multilabel(), average=metrics.micro)),
        LOGITS,
        BITS,
    ),
    made("set_f1", metrics.set_f1, LOGITS, BITS),
    classified("top_k_accuracy", lambda: metrics.top_k_accuracy(k=2)),
    made(
        "calibration_error",
        lambda: metrics.calibration_error(temperature=0.125),
        f32(0.25, 0.5, 0.875, 0.75),
        np.array([0, 1, 1, 0]),
        extremes=each("predictions", f32(0, 1, 1, 0), f32(1, 0, 0, 1), f32(0, 0, 0, 0)),
    ),
    made("bleu", lambda: metrics.bleu(order=2), TEXT, REFERENCE),
    made("rouge_l", metrics.rouge_l, TEXT, REFERENCE),
    made("token_error_rate", metrics.token_error_rate, TEXT, REFERENCE),
    made("r_squared", metrics.r_squared, f32(0.5, 1.0, 3.0), f32(1.0, 1.5, 2.5), both=True),
    made(
        "pinball", lambda: metrics.pinball(q=0.25, temperature=0.5), f32(0.5, 1.0, 3.0), f32(1.0, 1.5, 2.5), both=True
    ),
    made("cosine", metrics.cosine, SQUARE, SQUARE[::-1], both=True),
    made("linear_cka", metrics.linear_cka, LOGITS, LOGITS[::-1] ** 2, both=True),
    made(
        "mutual_information",
        lambda: metrics.mutual_information(num_bins=3, temperature=0.125),
        f32(0.25, 0.5, 0.875),
        f32(0.125, 0.5, 0.75),
        both=True,
        extremes=each("predictions", f32(0, 1, 1), f32(0, 0, 0)),
    ),
    made("mean_over_lists", lambda: metrics.mean_over_lists(metrics.roc_auc), LOGITS, BITS),
    ranked("roc_auc", weights=f32(1.0, 2.0, 0.5, 1.0, 1.5), chunk_size=2),
    ranked("average_precision", weights=f32(1.0, 2.0, 0.5, 1.0, 1.5), chunk_size=2),
    ranked("precision_recall_auc", weights=f32(1.0, 2.0, 0.5, 1.0, 1.5), chunk_size=2),
    ranked("partial_auc", weights=f32(1.0, 2.0, 0.5, 1.0, 1.5), max_rate=np.float32(0.5), chunk_size=2),
    Case(
        "metrics.ndcg",
        {"scores": SCORES, "gains": f32(1.0, 0.0, 3.0, 0.5, 2.0), "temperature": 0.5, "num_top": 3},
        ("scores", "gains", "temperature"),
        results=("wide",),
        extremes=({"scores": 0 * SCORES},),
        sizes={"n": ONE_UP},
    ),
    ranked("reciprocal_rank"),
    ranked("precision_at", num_top=2),
    ranked("recall_at", num_top=2),
    transformed("evaluate", lambda logits: metrics.evaluate(f1(), logits, jnp.asarray(LABELS))),
    transformed("loss", lambda logits: metrics.loss(f1())(logits, jnp.asarray(LABELS))),
    transformed("linearize", around),
    transformed("jackknife_metric", lambda logits: metrics.jackknife_metric(f1())(logits, jnp.asarray(LABELS)), 3),
    transformed("delta_metric", lambda logits: metrics.delta_metric(f1())(logits, jnp.asarray(LABELS)), 3),
    transformed("state_of", lambda logits: metrics.state_of(f1(), logits, jnp.asarray(LABELS)).sums["both"].rest),
    transformed("merge_states", state_value),
    transformed("decay_state", decayed),
    transformed("value_of", state_value),
)
