"""Priors over grids of codes: a gated PixelCNN and a causal transformer, given the class of the image.

Both are read in raster order and are two functions of the same parameters. Called on whole grids, ``prior(codes,
labels)`` gives the logits of every code at once, for training. ``prior.step(cache, position, code, labels)`` gives
those of one position from the code before it and from cached activations, for sampling and for coding: what it computes
at a position, it computes once. Layers of one kind run in a compiled loop, so compiling does not take longer for more.
"""

import math
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from experiments.vqvae_pixelcnn.convolutions import windows

PriorName = Literal["pixelcnn", "transformer"]
Cache: TypeAlias = Any

NUM_CLASSES = 10


def gate(x: jax.Array) -> jax.Array:
    """tanh(a) * sigmoid(b) of two halves of the features."""
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


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

    def whole(self, features: Any, cache: Any, labels: jax.Array, position: Any) -> tuple[Any, Any]:
        """Features of both stacks [b, h, w, c] after this layer. No cache, no position."""
        vertical, horizontal = features
        beside = self.columns // 2
        around = windows(vertical, (self.rows, self.columns), (self.rows - 1, beside), (0, self.columns - 1 - beside))
        vertical, above = self.go_down(around, labels)
        before = windows(horizontal, (1, beside + 1), (0, beside))
        return (vertical, self.go_right(before, horizontal, above, labels)), cache

    def at(self, features: Any, cache: Any, labels: jax.Array, position: jax.Array) -> tuple[Any, Any]:
        """The same at one position: of the vertical stack its row [b, w, c], of the horizontal one its place [b, c].

        The cache has what came into this layer so far, of both stacks, and what goes across; it gets what comes now.
        """
        (new_row, own), (vertical, horizontal, across) = features, cache
        row, column = position // vertical.shape[2], position % vertical.shape[2]
        horizontal = horizontal.at[:, column].set(own)  # of this row; what an earlier row left is to the right of it
        beside = self.columns // 2

        def move(vertical, across):
            """The vertical stack moves once a row, when all the codes above are there."""
            vertical = lax.dynamic_update_slice_in_dim(vertical, new_row[:, None], row, 1)
            padded = jnp.pad(vertical, ((0, 0), (self.rows - 1, 0), (0, 0), (0, 0)))
            rows = lax.dynamic_slice_in_dim(padded, row, self.rows, 1)
            around = windows(rows, (self.rows, self.columns), (0, beside), (0, self.columns - 1 - beside))
            below, across = self.go_down(around, labels)
            return below[:, 0], vertical, across[:, 0]

        def stay(vertical, across):
            return jnp.zeros_like(new_row), vertical, across

        below, vertical, across = lax.cond(column == 0, move, stay, vertical, across)
        padded = jnp.pad(horizontal, ((0, 0), (beside, 0), (0, 0)))
        before = lax.dynamic_slice_in_dim(padded, column, beside + 1, 1).reshape(len(own), -1)
        own = self.go_right(before, own, across[:, column], labels)
        return (below, own), (vertical, horizontal, across)


def stacked(layer: Any, length: int) -> Any:
    """Layers of one kind, one after another in a compiled loop, with a leading axis of parameters and caches."""
    in_axes: Any = (0, nn.broadcast, nn.broadcast)  # of the arguments after the features: cache, ...
    return nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=length,
        methods=["whole", "at"],
    )


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
        self.first = GatedLayer(self.hidden, 4, 7)
        self.rest = stacked(GatedLayer, self.num_layers - 1)(self.hidden, 2, 3)
        self.readout = [nn.Dense(2 * self.hidden), nn.Dense(self.num_codes)]

    def logits(self, x: jax.Array) -> jax.Array:
        return self.readout[1](nn.relu(self.readout[0](nn.relu(x))))

    def __call__(self, codes: jax.Array, labels: jax.Array) -> jax.Array:
        """Logits [b, h, w, k] of codes [b, h, w], each given the class and the codes before it."""
        x = self.embed(codes)
        vertical = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        horizontal = jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        features, _ = self.first.whole((vertical, horizontal), None, labels, None)
        (_, horizontal), _ = self.rest.whole(features, None, labels, None)
        return self.logits(horizontal)

    def start(self, batch: int) -> Cache:
        """For the first layer and for the others: what came into both stacks, the horizontal one's row only, and what
        goes across in this row; and the codes' features of the row, for the row below. Nothing is there yet.
        """
        row = jnp.zeros((batch, self.width, self.hidden))
        one = (jnp.zeros((batch, self.height, self.width, self.hidden)), row, jnp.concatenate([row, row], -1))
        return row, one, jax.tree.map(lambda leaf: jnp.stack([leaf] * (self.num_layers - 1)), one)

    def step(self, cache: Cache, position: jax.Array, code: jax.Array, labels: jax.Array) -> tuple[jax.Array, Cache]:
        """Logits [b, k] at a position of the raster, given the code [b] at the one before it, and the new cache."""
        embedded = jnp.where(position > 0, self.embed(code), 0)
        codes_of_row, first, rest = cache
        codes_of_row = codes_of_row.at[:, (position - 1) % self.width].set(embedded)
        # A row of the vertical stack is that of the codes above; the horizontal one gets the code to the left.
        own = jnp.where(position % self.width > 0, embedded, 0)
        features, first = self.first.at((codes_of_row, own), first, labels, position)
        (_, own), rest = self.rest.at(features, rest, labels, position)
        return self.logits(own), (codes_of_row, first, rest)


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

    def whole(self, x: jax.Array, cache: Any, seen: jax.Array, position: Any) -> tuple[jax.Array, Any]:
        """The features of all positions [b, t, hidden] after this layer. No cache, no position."""
        return self.attend(x, *self.queries_keys_values(x), seen), cache

    def at(self, x: jax.Array, cache: Any, seen: jax.Array, position: jax.Array) -> tuple[jax.Array, Any]:
        """Those of one position [b, 1, hidden], whose key and value the cache gets."""
        queries, *new = self.queries_keys_values(x)
        keys, values = (
            lax.dynamic_update_slice_in_dim(old, one, position, 1) for old, one in zip(cache, new, strict=True)
        )
        return self.attend(x, queries, keys, values, seen), (keys, values)


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
        self.blocks = stacked(Block, self.num_layers)(self.hidden, self.num_heads)
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
        x, _ = self.blocks.whole(x, None, jnp.tril(jnp.ones((length, length), bool)), None)
        return self.readout(self.norm(x)).reshape(*codes.shape, self.num_codes)

    def start(self, batch: int) -> Cache:
        """Keys and values of each layer, none computed yet."""
        shape = (self.num_layers, batch, self.height * self.width, self.num_heads, self.hidden // self.num_heads)
        return jnp.zeros(shape), jnp.zeros(shape)

    def step(self, cache: Cache, position: jax.Array, code: jax.Array, labels: jax.Array) -> tuple[jax.Array, Cache]:
        """Logits [b, k] at a position of the raster, given the code [b] at the one before it, and the new cache."""
        embedded = jnp.where(position > 0, self.embed(code), 0)[:, None]
        x = self.placed(embedded, position[None], labels)
        seen = (jnp.arange(self.height * self.width) <= position)[None]
        x, cache = self.blocks.at(x, cache, seen, position)
        return self.readout(self.norm(x))[:, 0], cache


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
