"""The networks of the experiments, in flax: one recurrent layer over our scan, and stacks of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxlab import ordered, recurrent
from jaxlab.ordered import OrderedOutputs
from jaxlab.recurrent import LSTMCarry

# What each kind of cell is, as options of the ordered LSTM; None is the plain one.
CELLS: dict[str, dict[str, bool] | None] = {
    "lstm": None,
    "ordered": {},
    "inclusive": {"inclusive": True},
    "input_only": {"input_only": True},
}


class RecurrentLayer(nn.Module):
    """A layer of plain or ordered LSTM cells over time (the first axis), with the distances of each step.

    The distance of a step of a plain LSTM is one minus the mean of its forget gate, the proxy of Dyer et al. (2019).
    """

    cell: str
    hidden_dim: int
    chunk_size: int
    temperature: float = 1.0
    """That the logits of the master gates are divided by."""
    master_bias: float = 0.0
    """How much the initial bias of the forget gate's master logits rises from the first level to the last."""

    @nn.compact
    def __call__(self, inputs: jax.Array, carry: LSTMCarry, mask: jax.Array | None = None, recurrent_mask: Any = None):
        options = CELLS[self.cell]
        weights = self.param("weights", partial(self._initial, inputs.shape[-1]))
        if recurrent_mask is not None:
            weights = weights._replace(recurrent=weights.recurrent * recurrent_mask(weights.recurrent.shape))
        cell = lstm_with_distance if options is None else self._ordered(options.get("inclusive", False))
        return recurrent.scan_affine(cell, weights, inputs, carry, mask=mask)

    def _ordered(self, inclusive: bool) -> Callable:
        step = partial(ordered.ordered_lstm, chunk_size=self.chunk_size, inclusive=inclusive)
        if self.temperature == 1:
            return step
        masters = 2 * self.hidden_dim // self.chunk_size

        def tempered(carry, preactivations):
            divisor = jnp.where(jnp.arange(preactivations.shape[-1]) < masters, self.temperature, 1.0)
            return step(carry, preactivations / divisor[None])

        return tempered

    def _initial(self, input_dim: int, key: jax.Array) -> recurrent.Affine:
        options, sizes = CELLS[self.cell], {"input_dim": input_dim, "hidden_dim": self.hidden_dim}
        if options is None:
            return recurrent.uniform_affine(key, num_preactivations=4 * self.hidden_dim, **sizes)
        input_only = options.get("input_only", False)
        weights = ordered.initial_ordered_lstm(key, chunk_size=self.chunk_size, input_only=input_only, **sizes)
        levels = self.hidden_dim // self.chunk_size
        rise = jnp.linspace(0.0, self.master_bias, levels)
        return weights._replace(bias=weights.bias.at[levels : 2 * levels].add(rise))


def lstm_with_distance(carry: LSTMCarry, preactivations: jax.Array) -> tuple[LSTMCarry, OrderedOutputs]:
    """The plain LSTM with the outputs of an ordered one: the means of its gates in place of the levels."""
    hidden_dim = carry.hidden.shape[-1]
    after, hidden = recurrent.lstm(carry, preactivations)
    write, forget = (
        jax.nn.sigmoid(preactivations[..., block * hidden_dim : (block + 1) * hidden_dim]).mean(-1) for block in (0, 1)
    )
    return after, OrderedOutputs(hidden, 1 - forget, write)


def zero_carry(batch_size: int, hidden_dim: int) -> LSTMCarry:
    """The state before the first step."""
    return LSTMCarry(*[jnp.zeros((batch_size, hidden_dim))] * 2)


class Encoder(nn.Module):
    """A sentence as one vector: the last hidden state of a recurrent layer, or the mean of a Transformer's outputs."""

    kind: str
    vocabulary: int
    embedding_dim: int
    hidden_dim: int
    chunk_size: int
    num_layers: int = 2
    num_heads: int = 4

    @nn.compact
    def __call__(self, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        """From tokens [b, t] to vectors [b, h]."""
        embedded = nn.Embed(self.vocabulary, self.embedding_dim, name="embedding")(tokens)
        inside = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
        if self.kind == "transformer":
            return self._transformer(embedded, inside, lengths)
        layer = RecurrentLayer(self.kind, self.hidden_dim, self.chunk_size, name="layer")
        last, _ = layer(embedded.swapaxes(0, 1), zero_carry(tokens.shape[0], self.hidden_dim), inside.T)
        return last.hidden

    def _transformer(self, hidden, inside, lengths):
        hidden = nn.Dense(self.hidden_dim)(hidden) + sinusoids(hidden.shape[1], self.hidden_dim)[None]
        attend = inside[:, None, None, :]
        for _ in range(self.num_layers):
            attention = nn.MultiHeadDotProductAttention(num_heads=self.num_heads)
            hidden = hidden + attention(nn.LayerNorm()(hidden), mask=attend)
            wide = jax.nn.gelu(nn.Dense(2 * self.hidden_dim)(nn.LayerNorm()(hidden)))
            hidden = hidden + nn.Dense(self.hidden_dim)(wide)
        hidden = jnp.where(inside[..., None], nn.LayerNorm()(hidden), 0)
        return hidden.sum(1) / lengths[:, None].astype(hidden.dtype)


def sinusoids(num_steps: int, dim: int) -> jax.Array:
    """The fixed position encodings of Vaswani et al. (2017)."""
    rates = 10_000.0 ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    angles = jnp.arange(num_steps, dtype=jnp.float32)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], 1)[:, :dim]


class PairClassifier(nn.Module):
    """The relation of two sentences from their vectors, products and differences (Bowman et al., 2015)."""

    encoder: Encoder
    num_relations: int
    dropout: float

    @nn.compact
    def __call__(self, tokens: jax.Array, lengths: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Logits [b, relations] from tokens [b, 2, t] and lengths [b, 2]; with dropout if there is a key."""
        batch_size = tokens.shape[0]
        # Both sides are one batch: first all first sentences, then all second ones.
        flat, flat_lengths = (x.swapaxes(0, 1).reshape(2 * batch_size, *x.shape[2:]) for x in (tokens, lengths))
        first, second = jnp.split(self.encoder(flat, flat_lengths), 2)
        features = jnp.concatenate([first, second, first * second, jnp.abs(first - second)], -1)
        keys = None if key is None else jax.random.split(key)
        features = dropped(keys, 0, features, self.dropout)
        hidden = jax.nn.relu(nn.Dense(self.encoder.hidden_dim)(features))
        return nn.Dense(self.num_relations)(dropped(keys, 1, hidden, self.dropout))


def dropped(keys: jax.Array | None, number: int, x: jax.Array, rate: float) -> jax.Array:
    """Dropout with one of the keys; the identity without keys."""
    if keys is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(keys[number], 1 - rate, x.shape), x / (1 - rate), 0)
