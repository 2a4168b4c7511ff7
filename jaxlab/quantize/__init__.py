"""Quantizers as pure functions: vectors in, codes and their vectors out, with a gradient for the encoder.

A :class:`Quantizer` is four functions. ``init(key, sample)`` gives ``(params, state)``: what an optimizer trains, and
what ``apply`` updates. ``apply(key, params, state, x)`` gives ``(Quantized(values, codes, loss), state)`` as in
training; ``encode(params, state, x)`` and ``decode(params, state, codes)`` are for evaluation, with nothing random and
nothing updated. Vectors lie along the last axis. Parameters and state are pytrees of arrays: ``vmap`` trains over
seeds, ``scan`` runs over stages, any library stores them. What each quantizer claims stands in its row of
``QUANTIZERS``.

>>> import jax, jax.numpy as jnp
>>> from jaxlab import quantize
>>> quantizer = quantize.ema_vector_quantizer(num_codes=64, restart_threshold=0.1)
>>> x = jax.random.normal(jax.random.key(0), (2, 7, 7, 16))  # of a convolutional encoder
>>> params, state = quantizer.init(jax.random.key(1), x)
>>> quantized, state = quantizer.apply(jax.random.key(2), params, state, x)
>>> quantized.values.shape, quantized.codes.shape, quantized.loss.shape
((2, 7, 7, 16), (2, 7, 7), ())
>>> quantizer.decode(params, state, quantizer.encode(params, state, x)).shape
(2, 7, 7, 16)
"""

from jaxlab.quantize.chance import GumbelParams, RandomProjection, gumbel_quantizer, random_projection_quantizer
from jaxlab.quantize.codebook import CodeAssignment, by_nearest_code
from jaxlab.quantize.combinators import masked, product, stochastic
from jaxlab.quantize.contract import QUANTIZERS, Quantized, Quantizer, QuantizerClaims
from jaxlab.quantize.indices import ravel_codes, unravel_codes
from jaxlab.quantize.initial import InitialCodes, kmeans, normal_codes, random_rows
from jaxlab.quantize.loaders import ema_state_from_haiku, ema_state_from_vector_quantize_pytorch
from jaxlab.quantize.moving import EmaState, ema_vector_quantizer
from jaxlab.quantize.nearest import nearest_code
from jaxlab.quantize.scalar import binary_spherical_quantizer, finite_scalar_quantizer, lookup_free_quantizer
from jaxlab.quantize.stages import residual
from jaxlab.quantize.through import GradientOperator, by_derivative, by_rotation, by_straight_through
from jaxlab.quantize.usage import CodeUsage, code_usage
from jaxlab.quantize.vector import sim_vector_quantizer, vector_quantizer

__all__ = [
    "CodeAssignment",
    "CodeUsage",
    "EmaState",
    "GradientOperator",
    "GumbelParams",
    "InitialCodes",
    "QUANTIZERS",
    "Quantized",
    "Quantizer",
    "QuantizerClaims",
    "RandomProjection",
    "binary_spherical_quantizer",
    "by_derivative",
    "by_nearest_code",
    "by_rotation",
    "by_straight_through",
    "code_usage",
    "ema_state_from_haiku",
    "ema_state_from_vector_quantize_pytorch",
    "ema_vector_quantizer",
    "finite_scalar_quantizer",
    "gumbel_quantizer",
    "kmeans",
    "lookup_free_quantizer",
    "masked",
    "nearest_code",
    "normal_codes",
    "product",
    "random_projection_quantizer",
    "random_rows",
    "ravel_codes",
    "residual",
    "sim_vector_quantizer",
    "stochastic",
    "unravel_codes",
    "vector_quantizer",
]
