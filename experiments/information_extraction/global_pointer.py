r"""The global pointer: one score for each pair of units, of which a span, and the two links of a triple, are cases.

.. math:: s(i, j) = \frac{(R_i q_i)^\top R_j k_j}{\sqrt{d}} + w_1^\top [q_i; k_i] + w_2^\top [q_j; k_j]

A triple is taken if its subject and object are entities, its predicate links their first units, and links their last
ones, all with scores above 0. The efficient form is used: one pair of q and k for all predicates, and the two last
terms for each; rotations R are for entities only.

The loss, for scores of which n are to be above 0 and the others below, with no threshold to choose:

.. math:: \log\Big(1 + \sum_{neg} e^{s}\Big) + \log\Big(1 + \sum_{pos} e^{-s}\Big)

Reference: Su, https://kexue.fm/archives/8373 and https://kexue.fm/archives/8877 (global pointer), 8888 (triples) and
7359 (loss), 2020 to 2022.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.information_extraction.candidates import Candidates
from experiments.information_extraction.dgcnn import dense, linear

HEAD_DIM = 64
#: How far below 0 scores begin: odds of one to a thousand.
FIRST_SCORE = 7.0
#: What is scored: spans as subjects and as objects; first units and last units of a predicate.
PARTS: dict[str, int | None] = {"entities": 2, "firsts": None, "lasts": None}


def initial(key: jax.Array, dim: int, num_predicates: int, prior: bool = False) -> dict[str, Any]:
    """Random weights; the biases are such that few pairs are taken at first.

    Args:
      key: of the weights.
      dim: features of a unit.
      num_predicates: how many there are.
      prior: whether triples of the training texts are an input; they begin at about even odds.
    """
    weights: dict[str, Any] = {}
    for (part, number), part_key in zip(PARTS.items(), jax.random.split(key, len(PARTS)), strict=True):
        first, second = jax.random.split(part_key)
        weights[part] = [
            dense(first, dim, 2 * HEAD_DIM),
            dense(second, 2 * HEAD_DIM, 2 * (number or num_predicates), -FIRST_SCORE),
        ]
    if prior:
        weights["known"] = {part: jnp.full((number or num_predicates,), FIRST_SCORE) for part, number in PARTS.items()}
    return weights


def rotated(x: jax.Array) -> jax.Array:
    """Pairs of features of [b, t, d] turned by angles that grow with the place."""
    d = x.shape[-1]
    rates = 10_000 ** (-np.arange(0, d, 2) / d)
    angles = np.arange(x.shape[1])[:, None] * rates[None]
    cosine, sine = (jnp.asarray(f(angles), x.dtype)[None] for f in (np.cos, np.sin))
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.concatenate([even * cosine - odd * sine, odd * cosine + even * sine], -1)


def scores(weights: dict[str, Any], features: jax.Array, part: str) -> jax.Array:
    """Scores of all pairs of units, [b, heads, t, t]."""
    first, second = weights[part]
    hidden = linear(first, features)
    query, key = jnp.split(hidden, 2, -1)
    if part == "entities":
        query, key = rotated(query), rotated(key)
    inner = query @ key.swapaxes(1, 2) / math.sqrt(HEAD_DIM)
    biases = linear(second, hidden).swapaxes(1, 2) / 2
    of_first, of_second = jnp.split(biases, 2, 1)
    return inner[:, None] + of_first[..., None] + of_second[:, :, None]


def logits(weights: dict[str, Any], features: jax.Array, batch: dict[str, jax.Array], part: str) -> jax.Array:
    """Scores with what is known of the pairs from the training texts, [b, heads, t, t]."""
    found = scores(weights, features, part)
    if "known" not in weights:
        return found
    known = weights["known"][part]
    pairs = pairs_of(batch["prior"], part, len(known), features.shape[1])
    return found + jnp.where(pairs, known.reshape(1, -1, 1, 1), 0)


def allowed_pairs(mask: jax.Array, part: str) -> jax.Array:
    """Which pairs of units count, [b, 1, t, t]: a span does not end before it begins."""
    pairs = mask[:, None, :, None] & mask[:, None, None, :]
    return pairs & jnp.triu(jnp.ones(pairs.shape[-2:], bool))[None, None] if part == "entities" else pairs


def pairs_of(triples: jax.Array, part: str, number: int, length: int) -> jax.Array:
    """1 at the pairs that are to have positive scores, [b, heads, t, t]; triples [b, m, 5] of -1 are none."""

    def of_text(entries: jax.Array) -> jax.Array:
        nothing = jnp.zeros((number, length, length), bool)
        valid = entries[:, 0] >= 0
        if part == "entities":
            heads = jnp.repeat(jnp.arange(2), len(entries))
            rows, columns = (jnp.concatenate([entries[:, a], entries[:, b]]) for a, b in ((0, 3), (1, 4)))
            valid = jnp.concatenate([valid, valid])
        else:
            side = 0 if part == "firsts" else 1
            heads, rows, columns = entries[:, 2], entries[:, side], entries[:, 3 + side]
        return nothing.at[jnp.where(valid, heads, number), rows, columns].set(True, mode="drop")

    return jax.vmap(of_text)(triples)


def multilabel_loss(found: jax.Array, positive: jax.Array, allowed: jax.Array) -> jax.Array:
    """The loss over the last two axes; what is not allowed does not count."""
    above = jnp.where(positive & allowed, -found, -1e9)
    below = jnp.where(~positive & allowed, found, -1e9)
    of_positive, of_negative = (jax.nn.softplus(jax.nn.logsumexp(x, (-2, -1))) for x in (above, below))
    return of_positive + of_negative


def losses(weights: dict[str, Any], features: jax.Array, batch: dict[str, jax.Array], num_predicates: int) -> jax.Array:
    """The sum over entities and predicates of each text's loss, [b]."""
    length, total = features.shape[1], jnp.zeros(features.shape[:1])
    for part, number in PARTS.items():
        positive = pairs_of(batch["triples"], part, number or num_predicates, length)
        found = logits(weights, features, batch, part)
        total = total + multilabel_loss(found, positive, allowed_pairs(batch["mask"], part)).sum(1)
    return total


def candidates(found: dict[str, np.ndarray], inside: np.ndarray, low: float) -> Candidates:
    """The triples of one text at any threshold of probability from ``low`` on, from scores [heads, t, t]."""
    least = math.log(low / (1 - low))
    number = len(inside)
    kept = {name: value[:, :number, :number] for name, value in found.items()}
    pairs = inside[:, None] & inside[None] & np.triu(np.ones((number, number), bool))
    subjects, things = (np.argwhere((kept["entities"][kind] > least) & pairs) for kind in range(2))
    places, values = [], []
    for first, last in subjects:
        for begin, end in things:
            of_first, of_last = kept["firsts"][:, first, begin], kept["lasts"][:, last, end]
            for predicate in np.nonzero((of_first > least) & (of_last > least))[0]:
                places.append((first, last, predicate, begin, end))
                entities = kept["entities"][0, first, last], kept["entities"][1, begin, end]
                values.append((entities[0], entities[1], -np.inf, of_first[predicate], of_last[predicate], -np.inf))
    chances = 1 / (1 + np.exp(-np.array(values, np.float64).reshape(-1, 6)))
    return Candidates(np.array(places, np.int32).reshape(-1, 5), chances.astype(np.float32))
