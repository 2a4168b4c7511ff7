"""Codes as bits, and back: a range coder (constriction) under a prior, or under how often each code is taken.

A decoder must find the probabilities that the encoder used, to the last bit. So both get them from one compiled
function, position by position, from the codes before: nothing is computed on whole grids here.
"""

import functools
from collections.abc import Callable
from typing import Any

import constriction
import jax
import jax.numpy as jnp
import numpy as np

stream: Any = getattr(constriction, "stream")  # noqa: B009 (made by its binary part, which has no types)

#: Probabilities [b, k] at a position, from (position, code before [b]) and what the function keeps.
NextProbabilities = Callable[[int, np.ndarray], np.ndarray]


@functools.cache
def compiled_step(prior: Any) -> Callable:
    """Probabilities at a position and the new cache, of both sides by the same compiled program."""

    def step(params, cache, position, code, labels):
        logits, cache = prior.apply(params, cache, position, code, labels, method="step")
        return jax.nn.softmax(logits), cache

    return jax.jit(step)


def by_prior(prior: Any, params: Any, labels: np.ndarray) -> NextProbabilities:
    """The probabilities of a prior, position after position from the first one on."""
    cache = prior.start(len(labels))

    def next_probabilities(position: int, code: np.ndarray) -> np.ndarray:
        nonlocal cache
        probabilities, cache = compiled_step(prior)(params, cache, jnp.asarray(position), jnp.asarray(code), labels)
        return np.asarray(probabilities)

    return next_probabilities


def by_frequency(counts: np.ndarray, batch: int) -> NextProbabilities:
    """The same probabilities everywhere: how often codes were taken, none of them never."""
    probabilities = (counts + 1) / (counts.sum() + len(counts))
    row = np.broadcast_to(probabilities.astype(np.float32), (batch, len(counts)))
    return lambda position, code: row


def model_of() -> Any:
    """Any probabilities, rounded as both sides round them."""
    return stream.model.Categorical(perfect=False)


def encoded(codes: np.ndarray, next_probabilities: NextProbabilities) -> np.ndarray:
    """The bits of grids of codes [b, h, w], as 32-bit words."""
    rows = codes.reshape(len(codes), -1).astype(np.int32)
    encoder = stream.queue.RangeEncoder()
    before = np.zeros(len(rows), np.int32)
    for position in range(rows.shape[1]):
        probabilities = np.ascontiguousarray(next_probabilities(position, before))
        before = np.ascontiguousarray(rows[:, position])
        encoder.encode(before, model_of(), probabilities)
    return encoder.get_compressed()


def decoded(words: np.ndarray, shape: tuple[int, ...], next_probabilities: NextProbabilities) -> np.ndarray:
    """The grids of codes of this shape [b, h, w] from their bits."""
    decoder = stream.queue.RangeDecoder(words)
    before, columns = np.zeros(shape[0], np.int32), []
    for position in range(shape[1] * shape[2]):
        probabilities = np.ascontiguousarray(next_probabilities(position, before))
        before = np.asarray(decoder.decode(model_of(), probabilities), np.int32)
        columns.append(before)
    return np.stack(columns, 1).reshape(shape)
