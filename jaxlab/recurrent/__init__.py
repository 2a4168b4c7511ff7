r"""Recurrent networks: one fast scan for every cell, masks and resets, and the cells.

A recurrent cell is a matrix product and some arithmetic on each unit. :func:`scan_affine` does the products (those of
the inputs before the loop, those for the gradients of all weights after it) and a *cell* is only the rest: a body of
``jax.lax.scan`` from a carry and pre-activations to a new carry and outputs.

Time is the first axis of inputs, masks and outputs, and any axes may stand for the batch: the gradient of the weights
is one matrix product over time and batch together.
"""

from jaxlab.recurrent.cells import LSTMCarry, SLSTMCarry, elman, gru, lstm, slstm
from jaxlab.recurrent.masking import keep_where, reset_where
from jaxlab.recurrent.scan import Residuals, scan_affine, scan_plain
from jaxlab.recurrent.weights import Affine, uniform_affine

__all__ = [
    "Affine",
    "LSTMCarry",
    "Residuals",
    "SLSTMCarry",
    "elman",
    "gru",
    "keep_where",
    "lstm",
    "reset_where",
    "scan_affine",
    "scan_plain",
    "slstm",
    "uniform_affine",
]
