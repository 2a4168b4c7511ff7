"""Masked words: which are asked for, what stands in their place, and how well a model knows them.

Of the tokens of each text 15 percent, and at least one, are asked for. Of these 80 percent are replaced by ``[MASK]``,
10 percent by a token drawn from the whole vocabulary, and 10 percent stay as they are: so no token can be trusted.

Reference: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019, section 3.1 and appendix A.1,
https://arxiv.org/abs/1810.04805.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bert import model
from experiments.bert.data import DataError
from experiments.bert.tokens import TokenError, Tokenizer, Tokens
from jaxlab import gumbel

#: Of the tokens that are asked for; of those, replaced by the mask; by any other token.
SHARE, MASKED, REPLACED = 0.15, 0.8, 0.1


class Asked(NamedTuple):
    """Some texts with gaps, and what is to be found in them."""

    ids: jax.Array
    """Tokens with the gaps, [b, t]."""
    places: jax.Array
    """Of the tokens that are asked for, [b, k]."""
    words: jax.Array
    """What stood there, [b, k]."""
    used: jax.Array
    """Which of the places count, [b, k]: short texts have fewer."""


class Found(NamedTuple):
    """What a model makes of the gaps, [b, k] each."""

    nats: jax.Array
    """Minus the log-probability of the word that stood there."""
    right: jax.Array
    """Whether that word is the most probable one."""
    words: jax.Array
    used: jax.Array


def mask_id(tokenizer: Tokenizer) -> int:
    """The number of the token for a gap.

    Raises:
      TokenError: if the vocabulary has none.
    """
    for name in ("[MASK]", "<mask>"):
        if name in tokenizer.vocabulary:
            return tokenizer.vocabulary[name]
    raise TokenError(f"{tokenizer.source} has no [MASK], which masked words need")


def is_word(tokens: Tokens, length: int) -> np.ndarray:
    """1 for the tokens of a text, 0 for those around it and for what it is filled up with, [length]."""
    flags = np.zeros(length, np.int32)
    flags[: len(tokens.ids)] = [which is not None for which in tokens.texts]
    return flags


def asked(key: jax.Array, ids: jax.Array, words: jax.Array, *, mask: int, vocabulary_size: int) -> Asked:
    """Gaps in texts.

    Args:
      key: consumed.
      ids: tokens, [b, t].
      words: which of them may be asked for, [b, t].
      mask: the number of the token for a gap.
      vocabulary_size: how many tokens there are to draw from.
    """
    place_key, kind_key, other_key = jax.random.split(key, 3)
    most = max(1, math.ceil(SHARE * ids.shape[1]))
    equal = jnp.where(words > 0, 0.0, -1e9)
    places = gumbel.gumbel_top_k(place_key, equal, num_samples=most).codes
    count = words.sum(1).astype(jnp.float32)
    number = jnp.where(count > 0, jnp.maximum(jnp.round(SHARE * count), 1), 0)
    used = jnp.arange(most, dtype=jnp.float32)[None] < number[:, None]
    true = jnp.take_along_axis(ids, places, 1)
    kind = jax.random.uniform(kind_key, places.shape)
    other = jax.random.randint(other_key, places.shape, 0, vocabulary_size, ids.dtype)
    shown = jnp.where(kind < MASKED, jnp.asarray(mask, ids.dtype), jnp.where(kind < MASKED + REPLACED, other, true))
    rows = jnp.arange(len(ids))[:, None]
    return Asked(ids.at[rows, places].set(jnp.where(used, shown, true)), places, true, used)


def found(parameters: model.Parameters, features: jax.Array, gaps: Asked, config: model.Config) -> Found:
    """What a model makes of the gaps, from features [b, t, d] of the texts with them.

    Logits are of the places alone that are asked for: those of all would be the largest array of a training step.
    """
    at = jnp.take_along_axis(features, gaps.places[..., None], 1)
    logits = model.masked_words(parameters, at, config=config).astype(jnp.float32)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, gaps.words)
    return Found(nats, logits.argmax(-1) == gaps.words, gaps.words, gaps.used)


def scores(batches: Sequence[Found], by_frequency: np.ndarray) -> dict[str, float]:
    """Means over the words of all batches, and that of ``frequencies``: what a model must be better than."""
    used = [np.asarray(batch.used) for batch in batches]
    nats, right, words = (
        np.concatenate([np.asarray(batch[part])[where] for batch, where in zip(batches, used, strict=True)])
        for part in range(3)
    )
    if not len(nats):
        raise DataError("no text has a word that can be masked")
    mean = float(nats.astype(np.float64).mean())
    return {
        "nats": mean,
        "perplexity": math.exp(min(mean, 700.0)),
        "accuracy": float(right.mean()),
        "nats_by_frequency": float(by_frequency[words].mean()),
        "words": len(nats),
    }


def frequencies(rows: list[Tokens], vocabulary_size: int) -> np.ndarray:
    """Nats of each token by how often the training has it, one more than it does: what needs no context, [tokens]."""
    counts = np.ones(vocabulary_size)
    for row in rows:
        np.add.at(counts, np.array(row.ids)[is_word(row, len(row.ids)) > 0], 1)
    return -np.log(counts / counts.sum())
