"""BERT as pure functions of a parameter pytree: encoder, heads, and the two ways to read a sentence from it.

    config, parameters = weights.load(directory)                     # or initial(key, config)
    hidden = encode(parameters.encoder, ids, mask, config=config)    # [b, t, d]; with a key, dropout is on
    classify(parameters, hidden, config=config)                      # [b, classes]

Shapes: b sentences of t tokens, d features. ``mask`` is true where there is a token; padding comes after the tokens,
and what it holds changes nothing before it. All layers are one array with a leading axis, over which ``encode`` scans:
one layer is compiled, whatever their number, and a rate by layer is an array to multiply with.

Reference: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019,
https://arxiv.org/abs/1810.04805; the variant of Liu et al., "RoBERTa", 2019, https://arxiv.org/abs/1907.11692.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from experiments.bert.dropout import dropout
from experiments.bert.products import attention, product, wide


def gelu(x: jax.Array) -> jax.Array:
    """``x`` times the normal distribution's function of it; ``jax.nn.gelu`` takes the slower ``erfc``."""
    return x * (0.5 + 0.5 * lax.erf(x * math.sqrt(0.5)))


#: By their names in Hugging Face's configurations.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
#: What the backward pass finds in memory, and what it computes again.
KEPT = {
    "everything": None,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "layers": jax.checkpoint_policies.nothing_saveable,
}


@dataclass(frozen=True)
class Config:
    """The sizes of a model, and what else its weights do not tell."""

    vocabulary_size: int
    hidden_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    num_positions: int = 512
    """Rows of the table of positions."""
    first_position: int = 0
    """Row of the first token: 0 for BERT, 2 for RoBERTa."""
    num_types: int = 2
    """Kinds of tokens: those of a first and of a second sentence."""
    epsilon: float = 1e-12
    """Added to variances."""
    activation: str = "gelu"
    """A name of ACTIVATIONS."""
    dropout: float = 0.1
    """Share of features dropped after the embedding and after each part of a layer."""
    attention_dropout: float = 0.1
    """Share of attention weights dropped."""
    keep: str = "products"
    """What is kept for the backward pass: everything, matrix products, or the inputs of layers alone (least memory)."""

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"Config: activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        if self.keep not in KEPT:
            raise ValueError(f"Config: keep must be one of {', '.join(KEPT)}; got {self.keep!r}")
        sizes = "vocabulary_size", "hidden_dim", "num_layers", "num_heads", "mlp_dim", "num_positions", "num_types"
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"Config: {name} must be at least 1; got {getattr(self, name)}")
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"Config: hidden_dim {self.hidden_dim} is not a multiple of num_heads {self.num_heads}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Config: {name} must be in [0, 1); got {getattr(self, name)}")

    @property
    def max_length(self) -> int:
        """The most tokens that a sentence may have."""
        return self.num_positions - self.first_position


class Linear(NamedTuple):
    """``x @ weight + bias``."""

    weight: jax.Array
    bias: jax.Array


class Norm(NamedTuple):
    """Scale and offset of a layer normalisation."""

    scale: jax.Array
    offset: jax.Array


class Layer(NamedTuple):
    """A layer, or all layers with a leading axis."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    norm: Norm


class Encoder(NamedTuple):
    """Tables [rows, d] and layers."""

    words: jax.Array
    positions: jax.Array
    types: jax.Array
    norm: Norm
    layers: Layer


class MaskedHead(NamedTuple):
    """From features to words; the last product is with the table of words."""

    dense: Linear
    norm: Norm
    bias: jax.Array


class Parameters(NamedTuple):
    """The encoder and the heads that there are."""

    encoder: Encoder
    pooler: Linear | None = None
    masked: MaskedHead | None = None
    head: Linear | None = None
    """Of the task: classes of sentences, classes of tokens, or starts and ends of spans."""


def initial(key: jax.Array, config: Config) -> Parameters:
    """Random weights of an encoder, a pooler and a head for masked words, as in the paper: normal, deviation 0.02."""
    d, keys = config.hidden_dim, iter(jax.random.split(key, 11))

    def normal(*shape: int) -> jax.Array:
        return 0.02 * jax.random.truncated_normal(next(keys), -2.0, 2.0, shape)

    def linear(*shape: int) -> Linear:
        return Linear(normal(*shape), jnp.zeros((*shape[:-2], shape[-1])))

    def norm(*shape: int) -> Norm:
        return Norm(jnp.ones(shape), jnp.zeros(shape))

    n = config.num_layers
    query, weight_key, value, output = (linear(n, d, d) for _ in range(4))
    layers = Layer(
        query,
        weight_key,
        value,
        output,
        norm(n, d),
        linear(n, d, config.mlp_dim),
        linear(n, config.mlp_dim, d),
        norm(n, d),
    )
    words, positions, types = (normal(n, d) for n in (config.vocabulary_size, config.num_positions, config.num_types))
    masked = MaskedHead(linear(d, d), norm(d), jnp.zeros((config.vocabulary_size,)))
    return Parameters(Encoder(words, positions, types, norm(d), layers), pooler=linear(d, d), masked=masked)


def initial_masked_head(key: jax.Array, config: Config) -> MaskedHead:
    """Random weights of a head for masked words, for an encoder that has none."""
    d = config.hidden_dim
    norm = Norm(jnp.ones((d,)), jnp.zeros((d,)))
    return MaskedHead(initial_head(key, config, d), norm, jnp.zeros((config.vocabulary_size,)))


def initial_head(key: jax.Array, config: Config, num_outputs: int) -> Linear:
    """Random weights of a task's head."""
    weight = 0.02 * jax.random.truncated_normal(key, -2.0, 2.0, (config.hidden_dim, num_outputs))
    return Linear(weight, jnp.zeros((num_outputs,)))


def linear(weights: Linear, x: jax.Array) -> jax.Array:
    """``x @ weight + bias`` in the type of ``x``."""
    return product(x, weights.weight.astype(x.dtype)) + expanded(weights.bias, x)


def expanded(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A vector of the type and rank of ``x``, to be added to its last axis."""
    return vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + vector.shape)


def normalized(weights: Norm, x: jax.Array, epsilon: float) -> jax.Array:
    """Layer normalisation over the last axis; mean and variance in float32."""
    exact = x.astype(wide(x.dtype))
    centred = exact - exact.mean(-1, keepdims=True)
    variance = jnp.mean(centred * centred, -1, keepdims=True)
    result = centred * lax.rsqrt(variance + epsilon) * expanded(weights.scale, exact) + expanded(weights.offset, exact)
    return result.astype(x.dtype)


def embed(
    encoder: Encoder,
    ids: jax.Array,
    types: jax.Array | None = None,
    *,
    config: Config,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Normalised sums of word, position and type, [b, t, d], before dropout.

    Raises:
      ValueError: if there are more tokens than positions.
    """
    length = ids.shape[-1]
    if length > config.max_length:
        raise ValueError(f"embed: a sentence has at most {config.max_length} tokens; got {length}")
    positions = encoder.positions[config.first_position : config.first_position + length]
    of_type = encoder.types[:1][None] if types is None else encoder.types[types]
    return normalized(encoder.norm, encoder.words[ids] + positions[None] + of_type, config.epsilon).astype(dtype)


def encode(
    encoder: Encoder,
    ids: jax.Array,
    mask: jax.Array,
    *,
    config: Config,
    types: jax.Array | None = None,
    key: jax.Array | None = None,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """The last layer's features.

    Args:
      encoder: weights, float32 whatever ``dtype`` is.
      ids: numbers of tokens, [b, t].
      mask: true where there is a token, [b, t].
      config: sizes, and what is kept for the backward pass.
      types: 0 for tokens of the first sentence, 1 for those of the second, [b, t]; all 0 without it.
      key: for dropout; there is none without it.
      dtype: of products and of the result; normalisation and softmax stay in float32.

    Returns:
      Features [b, t, d] of ``dtype``.
    """
    return transform(
        encoder.layers, embed(encoder, ids, types, config=config, dtype=dtype), mask, config=config, key=key
    )


def transform(
    layers: Layer, embedded: jax.Array, mask: jax.Array, *, config: Config, key: jax.Array | None = None
) -> jax.Array:
    """``encode`` from embeddings on: what is wanted to perturb, mix or quantize them."""
    body, xs, hidden = _scanned(layers, embedded, mask, config, key)
    return lax.scan(lambda hidden, x: (body(hidden, x), None), hidden, xs)[0]


def every_layer(
    layers: Layer, embedded: jax.Array, mask: jax.Array, *, config: Config, key: jax.Array | None = None
) -> jax.Array:
    """As ``transform``, the features before the first layer and after each, [layers + 1, b, t, d]."""
    body, xs, hidden = _scanned(layers, embedded, mask, config, key)

    def step(hidden, x):
        hidden = body(hidden, x)
        return hidden, hidden

    return jnp.concatenate([hidden[None], lax.scan(step, hidden, xs)[1]])


def _scanned(layers, embedded, mask, config: Config, key) -> tuple[Callable[..., Any], Any, Any]:
    """The body of the scan, what it scans over, and what it begins with."""
    seeds, hidden = None, embedded
    if key is not None:
        first, rest = jax.random.split(key)
        # One draw for the whole network: a pair of numbers is the seed of a mask.
        seeds = jax.random.bits(rest, (config.num_layers, 3, 2), jnp.uint32)
        hidden = dropout(jax.random.bits(first, (2,), jnp.uint32), embedded, config.dropout)
    body = functools.partial(_layer_of, config=config, bias=jnp.where(mask, 0.0, -1e9))
    if config.keep != "everything":
        body = jax.checkpoint(body, policy=KEPT[config.keep], prevent_cse=False)
    return body, (layers, seeds), hidden


def _layer_of(hidden, x, *, config, bias):
    return layer(x[0], hidden, bias, x[1], config)


def layer(weights: Layer, x: jax.Array, bias: jax.Array, seeds: jax.Array | None, config: Config) -> jax.Array:
    """Attention and a two-layer network, each added to its input and normalised.

    Args:
      weights: of one layer.
      x: features [b, t, d].
      bias: added to the logits of each token that is looked at, [b, t].
      seeds: of three dropout masks, [3, 2]; None is without dropout.
      config: sizes.
    """
    drop = (lambda _, x, rate: x) if seeds is None else (lambda site, x, rate: dropout(seeds[site], x, rate))
    seed = None if seeds is None else seeds[0]
    query, key, value = linear(weights.query, x), linear(weights.key, x), linear(weights.value, x)
    mixed = attention(query, key, value, bias, seed, num_heads=config.num_heads, rate=config.attention_dropout)
    x = normalized(weights.attention_norm, x + drop(1, linear(weights.output, mixed), config.dropout), config.epsilon)
    between = ACTIVATIONS[config.activation](linear(weights.up, x))
    return normalized(weights.norm, x + drop(2, linear(weights.down, between), config.dropout), config.epsilon)


def mean_pooled(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """The sentence as the mean of its tokens' features, of length 1, [b, d]."""
    inside = mask[..., None].astype(jnp.float32)
    total = jnp.sum(hidden.astype(jnp.float32) * inside, 1)
    mean = total / jnp.maximum(inside.sum(1), 1)
    return mean * lax.rsqrt(jnp.maximum(jnp.sum(mean * mean, -1, keepdims=True), 1e-24))


def pooled(parameters: Parameters, hidden: jax.Array) -> jax.Array:
    """The sentence as a function of its first token's features, in [-1, 1], [b, d]."""
    return jnp.tanh(linear(part(parameters, "pooler"), hidden[:, 0]))


def masked_words(parameters: Parameters, hidden: jax.Array, *, config: Config) -> jax.Array:
    """Logits of the words at every place, [b, t, words]."""
    head = part(parameters, "masked")
    features = ACTIVATIONS[config.activation](linear(head.dense, hidden))
    features = normalized(head.norm, features, config.epsilon)
    words = parameters.encoder.words.astype(features.dtype)
    logits = lax.dot_general(features, words, (((features.ndim - 1,), (1,)), ((), ())))
    return logits + expanded(head.bias, logits)


def classify(parameters: Parameters, hidden: jax.Array, *, config: Config, key: jax.Array | None = None) -> jax.Array:
    """Logits of the classes of sentences, [b, classes] in float32; the pooled sentence is dropped out with a key."""
    return outputs(parameters, pooled(parameters, hidden), config, key)


def label_tokens(
    parameters: Parameters, hidden: jax.Array, *, config: Config, key: jax.Array | None = None
) -> jax.Array:
    """Logits of the classes of tokens, [b, t, classes] in float32."""
    return outputs(parameters, hidden, config, key)


def point_at_spans(
    parameters: Parameters, hidden: jax.Array, *, config: Config, key: jax.Array | None = None
) -> jax.Array:
    """Logits of a span's start and of its end, for every label on its own, [b, t, labels, 2] in float32."""
    logits = outputs(parameters, hidden, config, key)
    return logits.reshape(*logits.shape[:-1], -1, 2)


def outputs(parameters: Parameters, features: jax.Array, config: Config, key: jax.Array | None) -> jax.Array:
    """The task's linear head on features that are dropped out with a key."""
    if key is not None:
        features = dropout(jax.random.bits(key, (2,), jnp.uint32), features, config.dropout)
    return linear(part(parameters, "head"), features).astype(jnp.float32)


def part(parameters: Parameters, name: str) -> Any:
    """A head.

    Raises:
      ValueError: if the parameters have none of this name.
    """
    found = getattr(parameters, name)
    if found is None:
        raise ValueError(f"the parameters have no {name}; they have {', '.join(parts(parameters))}")
    return found


def parts(parameters: Parameters) -> list[str]:
    """The names of what the parameters have."""
    return [name for name, value in parameters._asdict().items() if value is not None]
