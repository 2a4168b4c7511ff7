r"""The convolutional encoder: twelve dilated convolutions, each of which passes on a gated mix of input and result.

.. math:: g, h = \mathrm{conv}(x), \qquad y = \sigma(g) \odot x + (1 - \sigma(g)) \odot h

A convolution is one matrix product with the units around each unit, with a backward pass that copies nothing
(``experiments.bert.products``).

Reference: Su, "DGCNN: a reading comprehension and information extraction model", https://kexue.fm/archives/5409, 2018,
and https://kexue.fm/archives/6671, 2019.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bert.dropout import dropout
from experiments.bert.model import Linear
from experiments.bert.products import product

DILATIONS = (1, 2, 5, 1, 2, 5, 1, 2, 5, 1, 1, 1)
#: The most units of a text.
NUM_POSITIONS = 512


class Encoder(NamedTuple):
    """Tables [rows, d], whose sum is the input, and convolutions [layers, 3 d, 2 d]."""

    units: jax.Array
    pieces: jax.Array
    words: jax.Array
    positions: jax.Array
    convolutions: Linear


def dense(key: jax.Array, num_inputs: int, num_outputs: int, bias: float = 0.0) -> Linear:
    """Weights of a layer: Glorot and Bengio's uniform law, and a constant bias."""
    weight = jax.nn.initializers.glorot_uniform()(key, (num_inputs, num_outputs), jnp.float32)
    return Linear(weight, jnp.full((num_outputs,), bias))


def initial(
    key: jax.Array, *, num_units: int, num_pieces: int, num_words: int, dim: int, num_layers: int = len(DILATIONS)
) -> Encoder:
    """Random tables and convolutions; positions are 0."""
    keys = jax.random.split(key, 4)
    units, pieces, words = (
        0.05 * jax.random.normal(k, (rows, dim))
        for k, rows in zip(keys[:3], (num_units, num_pieces, num_words), strict=True)
    )
    layers = jax.vmap(lambda k: dense(k, 3 * dim, 2 * dim))(jax.random.split(keys[3], num_layers))
    return Encoder(units, pieces, words, jnp.zeros((NUM_POSITIONS, dim)), layers)


def shifted(x: jax.Array, by: int) -> jax.Array:
    """``x`` of [b, t, d] with unit ``i + by`` at ``i``; 0 from outside."""
    if abs(by) >= x.shape[1]:
        return jnp.zeros_like(x)
    kept = x[:, max(by, 0) : x.shape[1] + min(by, 0)]
    return jnp.pad(kept, ((0, 0), (max(-by, 0), max(by, 0)), (0, 0)))


def around(x: jax.Array, dilation: int = 1) -> jax.Array:
    """The features of the unit ``dilation`` before, of the unit and of that after it, [b, t, 3 d]."""
    return jnp.concatenate([shifted(x, -dilation), x, shifted(x, dilation)], -1)


def linear(weights: Linear, x: jax.Array) -> jax.Array:
    """``x @ weight + bias``."""
    return product(x, weights.weight) + weights.bias.reshape((1,) * (x.ndim - 1) + (-1,))


def embed(encoder: Encoder, batch: dict[str, jax.Array]) -> jax.Array:
    """Sums of unit, parts, word around it, and position, [b, t, d]."""
    length = batch["ids"].shape[1]
    if length > NUM_POSITIONS:
        raise ValueError(f"embed: a text has at most {NUM_POSITIONS} units; got {length}")
    pieces = encoder.pieces[batch["pieces"]].mean(2)
    words = jnp.where(batch["words"][..., None] > 0, encoder.words[batch["words"]], 0)
    return encoder.units[batch["ids"]] + pieces + words + encoder.positions[None, :length]


def encode(
    encoder: Encoder,
    batch: dict[str, jax.Array],
    read: jax.Array | None = None,
    *,
    key: jax.Array | None = None,
    rate: float = 0.25,
    gate_rate: float = 0.1,
) -> jax.Array:
    """Features [b, t, d].

    Args:
      encoder: weights.
      batch: "ids", "pieces", "words" and "mask".
      read: what another encoder has read in each unit, [b, t, d], added to the input.
      key: for dropout; there is none without it.
      rate: share of the features of the input that is dropped.
      gate_rate: share of the gates that is dropped, that is, half open.
    """
    mask, num_layers = batch["mask"][..., None], len(encoder.convolutions.weight)
    seeds: Any = None if key is None else jax.random.bits(key, (num_layers + 1, 2), jnp.uint32)
    x = embed(encoder, batch) if read is None else embed(encoder, batch) + read
    x = jnp.where(mask, x if seeds is None else dropout(seeds[-1], x, rate), 0)
    for number, dilation in enumerate(DILATIONS[:num_layers]):
        weights = Linear(encoder.convolutions.weight[number], encoder.convolutions.bias[number])
        gate, new = jnp.split(linear(weights, around(x, dilation)), 2, -1)
        gate = jax.nn.sigmoid(gate if seeds is None else dropout(seeds[number], gate, gate_rate))
        x = jnp.where(mask, gate * x + (1 - gate) * new, 0)
    return x
