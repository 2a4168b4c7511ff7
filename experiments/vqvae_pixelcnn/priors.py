"""Priors over grids of codes: a gated PixelCNN and a causal transformer, given the class of the image.

Both are read in raster order and are two functions of the same parameters. Called on whole grids, ``prior(codes,
labels)`` gives the logits of every code at once, for training. ``prior.step(cache, position, code, labels)`` gives
those of one position from the code before it and from cached activations, for sampling and for coding: what it computes
at a position, it computes once.
"""

import math
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

PriorName = Literal["pixelcnn", "transformer"]
Cache: TypeAlias = Any

NUM_CLASSES = 10


def gate(x: jax.Array) -> jax.Array:
    """tanh(a) * sigmoid(b) of two halves of the features."""
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


def window(x: jax.Array, rows: int, columns: int, *, causal_columns: bool) -> jax.Array:
    """For each place of [b, h, w, c], the features of ``rows`` rows down to its own and of ``columns`` columns.

    The columns end at the place itself if ``causal_columns``, and else lie around it. Outside there are zeros.
    """
    left = columns - 1 if causal_columns else columns // 2
    padded = jnp.pad(x, ((0, 0), (rows - 1, 0), (left, columns - 1 - left), (0, 0)))
    height, width = x.shape[1:3]
    parts = [padded[:, row : row + height, column : column + width] for row in range(rows) for column in range(columns)]
    return jnp.concatenate(parts, -1)


class GatedLayer(nn.Module):
    """A layer of both stacks: the vertical one sees all above, the horizontal one what is left in the row and it."""

    hidden: int
    rows: int
    columns: int

    def setup(self):
        self.vertical = nn.Dense(2 * self.hidden)
        self.down = nn.Dense(2 * self.hidden)
        self.horizontal = nn.Dense(2 * self.hidden)
        self.out = nn.Dense(self.hidden)
        self.vertical_class = nn.Embed(NUM_CLASSES, 2 * self.hidden)
        self.horizontal_class = nn.Embed(NUM_CLASSES, 2 * self.hidden)

    def go_down(self, around: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """From windows of the vertical stack: its next features, and what the horizontal one gets of it."""
        x = self.vertical(around)
        by_class = self.vertical_class(labels).reshape(-1, *(1,) * (x.ndim - 2), x.shape[-1])
        return gate(x + by_class), self.down(x)

    def go_right(self, before: jax.Array, own: jax.Array, above: jax.Array, labels: jax.Array) -> jax.Array:
        """From windows of the horizontal stack, its features at the place, and what comes from above."""
        x = self.horizontal(before) + above
        by_class = self.horizontal_class(labels).reshape(-1, *(1,) * (x.ndim - 2), x.shape[-1])
        return own + self.out(gate(x + by_class))


class GatedPixelCNN(nn.Module):
    """The gated PixelCNN without masks: its input is shifted by a row (vertical) or a column (horizontal) instead.

    van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016, section 2.
    """

    num_codes: int
    height: int
    width: int
    hidden: int = 64
    num_layers: int = 6

    def setup(self):
        self.embed = nn.Embed(self.num_codes, self.hidden)
        # The first layer looks wider.
        sizes = [(4, 7)] + [(2, 3)] * (self.num_layers - 1)
        self.layers = [GatedLayer(self.hidden, rows, columns) for rows, columns in sizes]
        self.readout = [nn.Dense(2 * self.hidden), nn.Dense(self.num_codes)]

    def logits(self, x: jax.Array) -> jax.Array:
        return self.readout[1](nn.relu(self.readout[0](nn.relu(x))))

    def __call__(self, codes: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [b, h, w, k] of codes [b, h, w], each given the class and the codes before it."""
        x = self.embed(codes)
        vertical = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        horizontal = jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        for layer in self.layers:
            around = window(vertical, layer.rows, layer.columns, causal_columns=False)
            before = window(horizontal, 1, layer.columns // 2 + 1, causal_columns=True)
            vertical, above = layer.go_down(around, labels)
            horizontal = layer.go_right(before, horizontal, above, labels)
        return self.logits(horizontal)

    def start(self, batch: int) -> Cache:
        """For each layer, the features of both stacks over the whole grid, none computed yet; and what goes across."""
        shape = (batch, self.height, self.width)
        one = (jnp.zeros((*shape, self.hidden)), jnp.zeros((*shape, self.hidden)), jnp.zeros((*shape, 2 * self.hidden)))
        return [one for _ in range(self.num_layers)]

    def step(self, cache: Cache, position: jax.Array, code: jax.Array, labels: jax.Array) -> tuple[jax.Array, Cache]:
        """Logits [b, k] at a position of the raster, given the code [b] at the one before it, and the new cache."""
        row, column = position // self.width, position % self.width
        before_row, before_column = (position - 1) // self.width, (position - 1) % self.width
        embedded = jnp.where(position > 0, self.embed(code), 0)
        vertical, horizontal, _ = cache[0]
        # The code goes into the row below its own, of the vertical stack, and right of its place of the horizontal one.
        below = vertical.at[:, before_row + 1, before_column].set(embedded, mode="drop")
        vertical = jnp.where(position > 0, below, vertical)
        own = jnp.where(column > 0, embedded, 0)
        horizontal = horizontal.at[:, row, column].set(own)
        inputs, new_cache = (vertical, horizontal), []
        for number, layer in enumerate(self.layers):
            vertical, horizontal = inputs
            across = cache[number][2]
            stored = cache[number + 1][:2] if number + 1 < self.num_layers else (jnp.zeros_like(vertical), horizontal)

            def new_row(arrays, layer=layer, vertical=vertical):
                """The vertical stack moves once a row, when all the codes above are there."""
                next_vertical, across = arrays
                rows = lax.dynamic_slice_in_dim(
                    jnp.pad(vertical, ((0, 0), (layer.rows - 1, 0), (0, 0), (0, 0))), row, layer.rows, 1
                )
                around = window(rows, layer.rows, layer.columns, causal_columns=False)[:, -1]
                features, above = layer.go_down(around, labels)
                return next_vertical.at[:, row].set(features), across.at[:, row].set(above)

            next_vertical, across = lax.cond(column == 0, new_row, lambda arrays: arrays, (stored[0], across))
            size = layer.columns // 2 + 1
            padded = jnp.pad(horizontal[:, row], ((0, 0), (size - 1, 0), (0, 0)))
            before = lax.dynamic_slice_in_dim(padded, column, size, 1).reshape(len(code), -1)
            own = layer.go_right(before, horizontal[:, row, column], across[:, row, column], labels)
            new_cache.append((vertical, horizontal, across))
            inputs = (next_vertical, stored[1].at[:, row, column].set(own))
        return self.logits(own), new_cache


class Block(nn.Module):
    """Causal self-attention and a perceptron, each behind a layer norm and added to what comes in."""

    hidden: int
    num_heads: int

    def setup(self):
        self.norms = [nn.LayerNorm(), nn.LayerNorm()]
        self.project = nn.DenseGeneral((3, self.num_heads, self.hidden // self.num_heads))
        self.merge = nn.DenseGeneral(self.hidden, axis=(-2, -1))
        self.inner = [nn.Dense(4 * self.hidden), nn.Dense(self.hidden)]

    def queries_keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        projected = self.project(self.norms[0](x))
        return projected[..., 0, :, :], projected[..., 1, :, :], projected[..., 2, :, :]

    def attend(
        self, x: jax.Array, queries: jax.Array, keys: jax.Array, values: jax.Array, seen: jax.Array
    ) -> jax.Array:
        """The output at some positions [b, q, hidden], whose queries see those [q, t] of the keys."""
        scores = jnp.einsum("bqhd,bthd->bhqt", queries, keys) / math.sqrt(queries.shape[-1])
        weights = jax.nn.softmax(jnp.where(seen[None, None], scores, -jnp.inf))
        x = x + self.merge(jnp.einsum("bhqt,bthd->bqhd", weights, values))
        return x + self.inner[1](nn.gelu(self.inner[0](self.norms[1](x))))


class CausalTransformer(nn.Module):
    """A small transformer over the raster, with embeddings of row, column and class; Su, kexue.fm 6760, 2019."""

    num_codes: int
    height: int
    width: int
    hidden: int = 128
    num_layers: int = 4
    num_heads: int = 4

    def setup(self):
        self.embed = nn.Embed(self.num_codes, self.hidden)
        self.row_embed = nn.Embed(self.height, self.hidden)
        self.column_embed = nn.Embed(self.width, self.hidden)
        self.class_embed = nn.Embed(NUM_CLASSES, self.hidden)
        self.blocks = [Block(self.hidden, self.num_heads) for _ in range(self.num_layers)]
        self.norm = nn.LayerNorm()
        self.readout = nn.Dense(self.num_codes)

    def placed(self, x: jax.Array, positions: jax.Array, labels: jax.Array) -> jax.Array:
        """Embeddings [b, t, hidden] of what comes before these positions, with where they are and the class."""
        place = self.row_embed(positions // self.width) + self.column_embed(positions % self.width)
        return x + place[None] + self.class_embed(labels)[:, None]

    def __call__(self, codes: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [b, h, w, k] of codes [b, h, w], each given the class and the codes before it."""
        length = self.height * self.width
        x = self.embed(codes.reshape(-1, length))
        x = self.placed(jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1], jnp.arange(length), labels)
        seen = jnp.tril(jnp.ones((length, length), bool))
        for block in self.blocks:
            x = block.attend(x, *block.queries_keys_values(x), seen)
        return self.readout(self.norm(x)).reshape(*codes.shape, self.num_codes)

    def start(self, batch: int) -> Cache:
        """Keys and values of each layer, none computed yet."""
        shape = (batch, self.height * self.width, self.num_heads, self.hidden // self.num_heads)
        return [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(self.num_layers)]

    def step(self, cache: Cache, position: jax.Array, code: jax.Array, labels: jax.Array) -> tuple[jax.Array, Cache]:
        """Logits [b, k] at a position of the raster, given the code [b] at the one before it, and the new cache."""
        embedded = jnp.where(position > 0, self.embed(code), 0)[:, None]
        x = self.placed(embedded, position[None], labels)
        seen = (jnp.arange(self.height * self.width) <= position)[None]
        new_cache = []
        for block, (keys, values) in zip(self.blocks, cache, strict=True):
            queries, key, value = block.queries_keys_values(x)
            keys = lax.dynamic_update_slice_in_dim(keys, key, position, 1)
            values = lax.dynamic_update_slice_in_dim(values, value, position, 1)
            new_cache.append((keys, values))
            x = block.attend(x, queries, keys, values, seen)
        return self.readout(self.norm(x))[:, 0], new_cache


PRIORS: dict[str, type[GatedPixelCNN] | type[CausalTransformer]] = {
    "pixelcnn": GatedPixelCNN,
    "transformer": CausalTransformer,
}


def log_prob(logits: jax.Array, codes: jax.Array) -> jax.Array:
    """Log-probability in nats of grids of codes [b, h, w]: [b]."""
    each = jnp.take_along_axis(jax.nn.log_softmax(logits), codes[..., None], -1)
    return each.sum((1, 2, 3))


def draw(prior: Any, params: Any, key: jax.Array, labels: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Grids of codes [b, h, w] for these classes, position by position with cached activations."""

    def step(carry, position):
        cache, code = carry
        logits, cache = prior.apply(params, cache, position, code, labels, method="step")
        code = jax.random.categorical(jax.random.fold_in(key, position), logits / temperature)
        return (cache, code), code

    start = prior.start(len(labels)), jnp.zeros(len(labels), jnp.int32)
    _, codes = lax.scan(step, start, jnp.arange(prior.height * prior.width))
    return codes.T.reshape(-1, prior.height, prior.width)
