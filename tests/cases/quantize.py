"""Rows of ``jaxlab.quantize``."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from cases.case import ONE_UP, SQUARE, Case, each, f32
from jaxlab import quantize
from jaxlab.quantize import CodeUsage, EmaState, GumbelParams, RandomProjection

# Four vectors of three features; nothing is near the border between two cells.
X = f32([0.5, -1.0, 2.0], [1.5, 0.25, -0.5], [-2.0, 1.0, 0.75], [0.25, 0.5, -1.25])
CODEBOOK = f32([0.25, -0.75, 1.75], [1.25, 0.5, -0.25], [-1.5, 0.75, 0.5], [0.5, 0.25, -1.0], [3.0, 3.0, 3.0])
COUNTS = f32(1.0, 0.5, 2.0, 0.75, 0.25)
STATE = EmaState(CODEBOOK, COUNTS, COUNTS[:, None] * CODEBOOK, np.float32(0.75))
EYE, HALVES = np.eye(3, dtype=np.float32), CODEBOOK[:, :2]
MASK = np.array([True, True, False, True])
USAGE = CodeUsage(
    np.array([3, 1, 0, 2], np.int32),
    np.array(7, np.int32),
    np.array(1, np.int32),
    np.float32(20.0),
    np.float32(0.5),
    np.float32(-9.0),
)
EXTREMES = each("x", 0 * X, 1e4 * X, X[:1], X[:0])
QUANTIZED = ("same", "integer", "wide")
# Of the states of so many arrays: none, a table, a projection with its codebook, moving averages.
STATE_AXES = {0: (), 1: ("k d",), 2: ("d e", "k e"), 4: ("k d", "k", "k d", "")}


def row(
    name: str,
    make: Callable,
    params: Any = (),
    state: Any = (),
    results: tuple[str, ...] = (),
    extremes: tuple = EXTREMES,
    variant: str = "",
    x: Any = X,
    axes: dict[str, str] | None = None,
    returned: tuple[str, str] = ("*n d", "*n"),
) -> Case:
    """A quantizer in training: values, codes, loss and the new state."""

    def apply(key, params, state, x):
        return make().apply(key, params, state, x)

    return Case(
        f"quantize.{name}",
        {"params": params, "state": state, "x": x},
        surrogate=("params", "x"),
        results=QUANTIZED + results,
        wide=("params", "state"),
        extremes=extremes,
        compiled=False,
        function=apply,
        variant=variant,
        axes={"x": "*n d", "params": "k d", "state": "k d"} | (axes or {}),
        returned=(*returned, "", *STATE_AXES[len(results)]),
        sizes={"k": (5,), "d": ONE_UP},
    )


def method(name: str, result: str = "wide", exact: tuple[str, ...] = ()) -> Case:
    sizes = {"k": ONE_UP}
    return Case(f"quantize.CodeUsage.{name}", {"self": USAGE}, exact, results=(result,), wide=("self",), sizes=sizes)


def start(name: str, **options: Any) -> Case:
    return Case(
        f"quantize.{name}",
        {"sample": X, "num_codes": 3, **options},
        results=("wide",),
        extremes=each("sample", 0 * X, 1e4 * X),
        axes={} if name == "normal_codes" else {"sample": "n d"},
        sizes={"*n": ONE_UP, "n": (3, 5), "d": ONE_UP},
    )


def operator(name: str, surrogate: tuple[str, ...]) -> Case:
    arguments = {"hard": np.round(SQUARE), "soft": SQUARE}
    extremes = each("soft", 0 * SQUARE, 1e4 * SQUARE)
    return Case(f"quantize.{name}", arguments, (), surrogate, extremes=extremes, compiled=False)


def from_haiku(counts, sums, codebook):
    modules = {
        "q": {"embeddings": codebook},
        "q/ema_cluster_size": {"hidden": counts, "counter": np.array(3)},
        "q/ema_dw": {"hidden": sums},
    }
    return quantize.ema_state_from_haiku(modules, decay=0.5).codebook


FOUR = np.concatenate([X, X[:, :1]], 1)  # four features
OPTIONS = {"num_codes": 5}
EMA = ("wide",) * 4
EMA_AXES = {"state.counts": "k"}

QUANTIZE = (
    Case(
        "quantize.nearest_code",
        {"x": X, "codebook": CODEBOOK},
        results=("integer",),
        extremes=(*EXTREMES, *each("codebook", 0 * CODEBOOK, CODEBOOK[:1])),
        sizes={"k": ONE_UP},
    ),
    Case(
        "quantize.nearest_code",
        {"x": X, "codebook": CODEBOOK, "cosine": True, "chunk_size": 2},
        results=("integer",),
        variant="cosine",
        sizes={"k": ONE_UP},
    ),
    Case(
        "quantize.ravel_codes",
        {"digits": np.array([[2, 1], [0, 0]]), "levels": (3, 2)},
        results=("integer",),
        axes={"digits": "*n 2"},
    ),
    Case("quantize.unravel_codes", {"codes": np.array([5, 0]), "levels": (3, 2)}, results=("integer",)),
    start("normal_codes"),
    start("random_rows"),
    start("kmeans", num_iterations=2),
    Case(
        "quantize.by_nearest_code",
        {"x": X, "codebook": CODEBOOK},
        results=("integer",),
        compiled=False,
        sizes={"k": ONE_UP},
    ),
    operator("by_straight_through", ("soft",)),
    operator("by_rotation", ("soft",)),
    operator("by_derivative", ("hard",)),
    row("vector_quantizer", lambda: quantize.vector_quantizer(num_codes=5), CODEBOOK),
    row("vector_quantizer", lambda: quantize.vector_quantizer(num_codes=5, cosine=True), CODEBOOK, variant="cosine"),
    row("ema_vector_quantizer", lambda: quantize.ema_vector_quantizer(num_codes=5), (), STATE, EMA, axes=EMA_AXES),
    row(
        "ema_vector_quantizer",
        lambda: quantize.ema_vector_quantizer(num_codes=5, cosine=True, restart_threshold=0.1),
        (),
        STATE,
        EMA,
        each("x", 0 * X, 1e4 * X, X[:1]),
        variant="cosine with restarts",
        axes=EMA_AXES,
    ),
    row(
        "sim_vector_quantizer",
        lambda: quantize.sim_vector_quantizer(num_codes=5),
        EYE,
        CODEBOOK,
        ("wide",),
        axes={"params": "d d"},
    ),
    row("finite_scalar_quantizer", lambda: quantize.finite_scalar_quantizer(levels=(5, 4, 3)), axes={"x": "*n 3"}),
    row(
        "lookup_free_quantizer", lambda: quantize.lookup_free_quantizer(num_bits=3, temperature=4.0), axes={"x": "*n 3"}
    ),
    row(
        "binary_spherical_quantizer",
        lambda: quantize.binary_spherical_quantizer(num_bits=3, temperature=4.0),
        axes={"x": "*n 3"},
    ),
    row(
        "gumbel_quantizer",
        lambda: quantize.gumbel_quantizer(num_codes=5),
        GumbelParams(CODEBOOK.T, np.zeros(5, np.float32), CODEBOOK),
        axes={"params.weights": "d k", "params.biases": "k"},
    ),
    row(
        "random_projection_quantizer",
        lambda: quantize.random_projection_quantizer(num_codes=5, projected_dim=2),
        (),
        RandomProjection(EYE[:, :2], HALVES),
        ("wide", "wide"),
        axes={"state.projection": "d 2", "state.codebook": "k 2"},
        returned=("*n 2", "*n"),
    ),
    row(
        "residual",
        lambda: quantize.residual(quantize.vector_quantizer(num_codes=5), depth=2),
        np.stack([CODEBOOK, CODEBOOK / 4]),
        axes={"params": "2 k d"},
        returned=("*n d", "*n 2"),
    ),
    row(
        "residual",
        lambda: quantize.residual(quantize.ema_vector_quantizer(num_codes=5), depth=2, shared=True, dropout=0.5),
        (),
        STATE,
        EMA,
        variant="shared with dropout",
        axes=EMA_AXES,
        returned=("*n d", "*n 2"),
    ),
    row(
        "product",
        lambda: quantize.product(quantize.vector_quantizer(num_codes=5), groups=2),
        np.stack([HALVES, HALVES / 2]),
        x=FOUR,
        axes={"x": "*n 4", "params": "2 k 2"},
        returned=("*n d", "*n 2"),
        extremes=each("x", 0 * FOUR, 1e4 * FOUR),
    ),
    row(
        "masked",
        lambda: quantize.masked(quantize.vector_quantizer(num_codes=5), jnp.array(MASK)),
        CODEBOOK,
        extremes=each("x", 0 * X, 1e4 * X),
        axes={"x": "4 d"},  # the mask is part of the program
        returned=("4 d", "4"),
    ),
    row(
        "stochastic",
        lambda: quantize.stochastic(quantize.vector_quantizer(num_codes=5), temperature=0.5),
        CODEBOOK,
    ),
    Case(
        "quantize.code_usage",
        {"x": X, "values": CODEBOOK[:4], "codes": np.array([0, 1, 2, 3]), "num_codes": 5, "log_prob": -f32(1, 2, 3, 4)},
        exact=("x", "values", "log_prob"),
        results=("integer", "integer", "integer", "wide", "wide", "wide"),
        extremes=each("x", 0 * X, 1e4 * X),
        axes={"codes": "*n"},
        returned=("5", *("",) * 5),
    ),
    Case(
        "quantize.CodeUsage.merge",
        {"self": USAGE, "other": USAGE},
        exact=("self", "other"),
        results=("integer", "integer", "integer", "wide", "wide", "wide"),
        wide=("self", "other"),
    ),
    method("frequencies"),
    method("marginal_bits"),
    method("nominal_bits"),
    method("prior_bits", exact=("self.log_prob",)),
    method("perplexity"),
    method("dead_fraction"),
    method("signal_to_noise", exact=("self.signal", "self.noise")),
    Case(
        "quantize.ema_state_from_haiku",
        {},
        function=lambda: from_haiku(COUNTS, CODEBOOK.T, CODEBOOK.T),
        results=("wide",),
        compiled=False,
    ),
    Case(
        "quantize.ema_state_from_vector_quantize_pytorch",
        {},
        function=lambda: quantize.ema_state_from_vector_quantize_pytorch(
            {
                "_codebook.embed": CODEBOOK[None],
                "_codebook.embed_avg": CODEBOOK[None],
                "_codebook.cluster_size": COUNTS[None],
            }
        ),
        results=EMA,
        compiled=False,
    ),
)
