"""Rows of ``jaxlab.recurrent``."""

from typing import Any

import jax
import numpy as np

from cases.case import ROWS, SQUARE, VALUE, Case, each, f32
from jaxlab.recurrent import Affine, LSTMCarry, Residuals, SLSTMCarry, elman, gru, keep_where, lstm, reset_where

# Five steps of two sequences of three features, two hidden units.
INPUTS = np.float32(0.25) * ((np.arange(30, dtype=np.float32) * 5 % 17) - 8).reshape(5, 2, 3)
MASK = np.array([[1, 1], [1, 0], [0, 1], [1, 1], [1, 0]], bool)
RESET = np.array([[0, 0], [0, 1], [0, 0], [1, 0], [0, 1]], bool)
LENGTHS = np.array([5, 3])
HIDDEN = f32([0.5, -0.25], [0.125, 0.75])
LSTM_CARRY, SLSTM_CARRY = LSTMCarry(HIDDEN, 2 * HIDDEN), SLSTMCarry(HIDDEN, 2 * HIDDEN, 3 + HIDDEN, HIDDEN)
GATES = np.float32(0.25) * ((np.arange(16, dtype=np.float32) * 7 % 13) - 6).reshape(2, 8)


def weights(*columns: int) -> Affine:
    """Of input, recurrent and bias."""
    sizes = zip((3, 2, 1), columns, strict=True)
    input, recurrent, bias = (
        np.float32(0.125) * ((np.arange(rows * columns, dtype=np.float32) * 3 % 11) - 5).reshape(rows, columns)
        for rows, columns in sizes
    )
    return Affine(input, recurrent, bias[0])


def cell(name: str, carry: Any, preactivations: np.ndarray, gates: str = "4*h") -> Case:
    return Case(
        f"recurrent.{name}",
        {"carry": carry, "preactivations": preactivations},
        exact=("carry", "preactivations"),
        results=("same",) * (1 + len(jax.tree.leaves(carry))),
        extremes=each("preactivations", 1e4 * preactivations, 0 * preactivations),
        axes={"carry": "*batch h", "preactivations": f"*batch {gates}"},
        returned=("*batch h",) * (1 + len(jax.tree.leaves(carry))),
    )


def scan(variant: str, cell: Any, weights: Affine, carry: Any, *, plain: bool = False, **options: Any) -> Case:
    columns = {"elman": ("h", "h"), "gru": ("3*h", "4*h")}.get(variant, ("4*h", "4*h"))
    axes = dict(zip(("weights.input", "weights.recurrent", "weights.bias"), ("d {}", "h {}", "{}"), strict=True))
    exact = ("weights", "inputs", "carry", *(["reset_carry"] if "reset_carry" in options else []))
    return Case(
        "recurrent.scan_plain" if plain else "recurrent.scan_affine",
        {"cell": cell, "weights": weights, "inputs": INPUTS, "carry": carry, **options},
        exact=exact,
        results=("wide",) * (1 + len(jax.tree.leaves(carry))),
        wide=("weights", "carry", "reset_carry"),
        extremes=each("inputs", 1e4 * INPUTS, 0 * INPUTS, INPUTS[:1]) if variant == "elman" else (),
        compiled=False,
        variant=variant,
        axes={name: letters.format(columns[name == "weights.bias"]) for name, letters in axes.items()}
        | {"carry": "*batch h", "reset_carry": "*batch h"},
        returned=(*("*batch h",) * len(jax.tree.leaves(carry)), "t *batch h"),
    )


def add(total, x):
    return total + x, total * x


def kept(total, mask, x):
    return keep_where(add)(total, (mask, x))


def restarted(total, reset, reset_total, x):
    return reset_where(add, reset_total)(total, (reset, x))


EVERYTHING = {"mask": MASK, "lengths": LENGTHS, "reset": RESET, "reset_carry": LSTMCarry(-HIDDEN, HIDDEN)}
GRU = weights(6, 6, 8)

RECURRENT = (
    cell("elman", HIDDEN, GATES[:, :2], "h"),
    cell("gru", HIDDEN, GATES),
    cell("lstm", LSTM_CARRY, GATES),
    cell("slstm", SLSTM_CARRY, GATES),
    scan("elman", elman, weights(2, 2, 2), HIDDEN),
    scan("gru", gru, GRU, HIDDEN, residuals=Residuals.ALL),
    scan("lstm", lstm, weights(8, 8, 8), LSTM_CARRY, reverse=True, **EVERYTHING),
    scan("none", lstm, weights(8, 8, 8), LSTM_CARRY, residuals=Residuals.NONE, **EVERYTHING),
    scan("plain", lstm, weights(8, 8, 8), LSTM_CARRY, plain=True, reverse=True, **EVERYTHING),
    Case(
        "recurrent.keep_where",
        {"total": ROWS, "mask": np.array([True, False]), "x": SQUARE[1:]},
        exact=("total", "x"),
        results=("same", "same"),
        compiled=False,
        function=kept,
        axes={"total": "*batch h", "mask": "*batch", "x": "*batch h"},
        returned=("*batch h",) * 2,
    ),
    Case(
        "recurrent.reset_where",
        {"total": ROWS, "reset": np.array([True, False]), "reset_total": SQUARE[1:], "x": ROWS + VALUE[None]},
        exact=("total", "reset_total", "x"),
        results=("same", "same"),
        compiled=False,
        function=restarted,
        axes={"total": "*batch h", "reset": "*batch", "reset_total": "*batch h", "x": "*batch h"},
        returned=("*batch h",) * 2,
    ),
    Case(
        "recurrent.uniform_affine",
        {"input_dim": 3, "hidden_dim": 2, "num_preactivations": 8, "input_columns": 6},
        results=("wide",) * 3,
    ),
)
