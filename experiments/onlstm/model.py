"""The networks of the experiments, in flax: one recurrent layer over our scan, and stacks of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.onlstm.sentences import Packed
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
    def __call__(
        self,
        inputs: jax.Array,
        carry: LSTMCarry,
        *,
        reset: jax.Array | None = None,
        recurrent_mask: Any = None,
        table: jax.Array | None = None,
    ):
        """The carry after the last step, and :class:`OrderedOutputs` of all steps.

        Args:
          inputs: features [t, b, d], or with a ``table`` one-hot token numbers.
          carry: before the first step.
          reset: where to start from zeros.
          recurrent_mask: makes a mask for the recurrent weights of their shape.
          table: the features of each token. Where there are few tokens, their products with the input weights cost
            less than those of all inputs.
        """
        options = CELLS[self.cell]
        weights = self.param("weights", partial(self._initial, (inputs if table is None else table).shape[-1]))
        if recurrent_mask is not None:
            weights = weights._replace(recurrent=weights.recurrent * recurrent_mask(weights.recurrent.shape))
        if table is not None:
            weights = weights._replace(input=table @ weights.input)
        cell = lstm_with_distance if options is None else self._ordered(options.get("inclusive", False))
        return recurrent.scan_affine(cell, weights, inputs, carry, reset=reset)

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
    vocabulary_size: int
    embedding_dim: int
    hidden_dim: int
    chunk_size: int
    num_layers: int = 2
    num_heads: int = 4

    @nn.compact
    def __call__(self, packed: Packed) -> jax.Array:
        """From packed sentences to vectors [sentences, h]."""
        packed = jax.tree.map(jnp.asarray, packed)
        table = nn.Embed(self.vocabulary_size, self.embedding_dim, name="embedding").embedding
        if self.kind == "transformer":
            return self._transformer(table, packed)
        layer = RecurrentLayer(self.kind, self.hidden_dim, self.chunk_size, name="layer")
        carry = zero_carry(packed.tokens.shape[1], self.hidden_dim)
        one_hot = jax.nn.one_hot(packed.tokens, self.vocabulary_size)
        _, outputs = layer(one_hot, carry, reset=packed.positions == 0, table=table)
        return outputs.hidden[packed.ends[:, 0], packed.ends[:, 1]]

    def _transformer(self, table: jax.Array, packed: Packed) -> jax.Array:
        tokens, sentences, positions = (grid.T for grid in packed[:3])
        hidden = nn.Dense(self.hidden_dim)(table[tokens]) + sinusoids(tokens.shape[1], self.hidden_dim)[positions]
        # Rows hold many sentences, and each attends to itself alone.
        attend = (sentences[:, :, None] == sentences[:, None, :])[:, None]
        for _ in range(self.num_layers):
            attention = nn.MultiHeadDotProductAttention(num_heads=self.num_heads)
            hidden = hidden + attention(nn.LayerNorm()(hidden), mask=attend)
            wide = jax.nn.gelu(nn.Dense(2 * self.hidden_dim)(nn.LayerNorm()(hidden)))
            hidden = hidden + nn.Dense(self.hidden_dim)(wide)
        flat, numbers = nn.LayerNorm()(hidden).reshape(-1, self.hidden_dim), sentences.reshape(-1)
        count = packed.ends.shape[0]
        sums = jax.ops.segment_sum(flat, numbers, count + 1)
        lengths = jnp.bincount(numbers, length=count + 1).astype(flat.dtype)
        return sums[:count] / lengths[:count, None]


def sinusoids(num_steps: int, dim: int) -> jax.Array:
    """The fixed position encodings of Vaswani et al. (2017)."""
    rates = 10_000.0 ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    angles = jnp.arange(num_steps, dtype=jnp.float32)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], 1)[:, :dim]


class Classifier(nn.Module):
    """The label of an example from the vector of its sentence; of two, from vectors, product and difference.

    As Bowman et al. (2015) and Shen et al. (2019) do it.
    """

    encoder: Encoder
    num_sentences: int
    num_labels: int
    dropout: float

    @nn.compact
    def __call__(self, packed: Packed, *, key: jax.Array | None = None) -> jax.Array:
        """Logits [examples, labels] of packed sentences, first ones before second ones; a key for dropout."""
        vectors = jnp.split(self.encoder(packed), self.num_sentences)
        if self.num_sentences == 2:
            first, second = vectors
            vectors += [first * second, jnp.abs(first - second)]
        keys = None if key is None else jax.random.split(key)
        features = dropped(keys, 0, jnp.concatenate(vectors, -1), self.dropout)
        hidden = jax.nn.relu(nn.Dense(self.encoder.hidden_dim)(features))
        return nn.Dense(self.num_labels)(dropped(keys, 1, hidden, self.dropout))


def dropped(keys: jax.Array | None, number: int, x: jax.Array, rate: float) -> jax.Array:
    """Dropout with one of the keys; the identity without keys."""
    if keys is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(keys[number], 1 - rate, x.shape), x / (1 - rate), 0)
