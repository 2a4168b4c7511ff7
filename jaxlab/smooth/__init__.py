"""Smooth stand-ins for hard functions, each with one knob, ``temperature``, in the unit of the data.

Every function states how far it is from the hard one; the Python number 0 as temperature *is* the hard one, bit for
bit. There is no hidden scaling: what a temperature means does not depend on the other elements. ``where`` masks
elements before anything is computed of them. Three kernels carry the module: the log-sum-exp, :func:`threshold`
(top-k masks, quantiles, sparse simplexes) and :func:`isotonic` (sorts and ranks).
"""

from jaxlab.smooth.alignment import dtw, dtw_divergence, edit_distance, longest_common_subsequence
from jaxlab.smooth.extremes import (
    argmax,
    boltzmann,
    entmax,
    maximum,
    mellowmax,
    minimum,
    one_hot_argmax,
    sparsemax,
)
from jaxlab.smooth.isotonic import isotonic
from jaxlab.smooth.kernel import ExponentialLink, Link, LogisticLink, PowerLink, threshold
from jaxlab.smooth.matrices import neural_sort, sinkhorn_sort, soft_sort
from jaxlab.smooth.order import pairwise_rank, rank, sort, spearman
from jaxlab.smooth.quantiles import grad_top_k, iterative_top_k, median, quantile, top_k_mask, trimmed_mean
from jaxlab.smooth.rectifiers import absolute, clip, gated_relu, relu, square_plus
from jaxlab.smooth.steps import floor, round, sign, step
from jaxlab.smooth.table import SMOOTH, SmoothFunction
from jaxlab.smooth.truth import equal, logical_and, logical_not, logical_or, where

__all__ = [
    "ExponentialLink",
    "Link",
    "LogisticLink",
    "PowerLink",
    "SMOOTH",
    "SmoothFunction",
    "absolute",
    "argmax",
    "boltzmann",
    "clip",
    "dtw",
    "dtw_divergence",
    "edit_distance",
    "entmax",
    "equal",
    "floor",
    "gated_relu",
    "grad_top_k",
    "isotonic",
    "iterative_top_k",
    "logical_and",
    "logical_not",
    "logical_or",
    "longest_common_subsequence",
    "maximum",
    "median",
    "mellowmax",
    "minimum",
    "neural_sort",
    "one_hot_argmax",
    "pairwise_rank",
    "quantile",
    "rank",
    "relu",
    "round",
    "sign",
    "sinkhorn_sort",
    "soft_sort",
    "sort",
    "sparsemax",
    "spearman",
    "square_plus",
    "step",
    "threshold",
    "top_k_mask",
    "trimmed_mean",
    "where",
]
