"""The three tasks: classes of sentences, classes of words, labelled spans. Each is its head, targets, loss and reading.

A text is cut at the model's length. What is cut off with it counts against the result: a word gets no label, a span
is not found. The same holds for labels that are not among those of the training.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bert import model
from experiments.bert.data import Example
from experiments.bert.tokens import Tokens

Prediction = list[tuple[int, int, str, float]]
"""First character, the one after the last, label and its probability; the text as a whole for classes of sentences."""


class Task(NamedTuple):
    """What differs between the tasks."""

    forward: Callable[..., jax.Array]
    """Logits from features; the last axis is of labels, or before the last for spans."""
    num_outputs: Callable[[int], int]
    """Of the head, from the number of labels."""
    targets: Callable[[Example, Tokens, dict[str, int], int], np.ndarray]
    """What the loss compares with, for one example filled up to a length; -1 is for nothing."""
    loss: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    """Of each example, [b], from logits, targets and mask."""
    decode: Callable[[np.ndarray, Example, Tokens, Sequence[str]], Prediction]
    """From the logits of one example."""


def class_targets(example: Example, tokens: Tokens, index: dict[str, int], length: int) -> np.ndarray:
    """The number of the label."""
    del tokens, length
    return np.array(index.get(example.labels[0], -1), np.int32)


def class_loss(logits: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """Cross entropy; 0 for unknown labels."""
    del mask
    return masked_entropy(logits, targets)


def masked_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross entropy where there is a label, 0 elsewhere."""
    known = targets >= 0
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, targets, 0))
    return jnp.where(known, entropy, 0)


def decode_class(logits: np.ndarray, example: Example, tokens: Tokens, labels: Sequence[str]) -> Prediction:
    """The most probable class."""
    del tokens
    probabilities = softmax(logits)
    best = int(probabilities.argmax())
    return [(0, len(example.text), labels[best], float(probabilities[best]))]


def word_targets(example: Example, tokens: Tokens, index: dict[str, int], length: int) -> np.ndarray:
    """The number of each word's label, at its first token."""
    targets = np.full(length, -1, np.int32)
    for start, end, label in example.spans:
        found = first_token(tokens, start, end)
        if found is not None:
            targets[found] = index.get(label, -1)
    return targets


def first_token(tokens: Tokens, start: int, end: int) -> int | None:
    """The first token within some characters; a character that is dropped (a control character) has none."""
    inside = range(len(tokens.ids))
    return next(
        (i for i in inside if tokens.texts[i] == 0 and start <= tokens.offsets[i][0] < tokens.offsets[i][1] <= end),
        None,
    )


def word_loss(logits: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean cross entropy of the words."""
    del mask
    return masked_entropy(logits, targets).sum(1) / jnp.maximum((targets >= 0).sum(1), 1).astype(jnp.float32)


def decode_words(logits: np.ndarray, example: Example, tokens: Tokens, labels: Sequence[str]) -> Prediction:
    """The most probable class of each word that is not cut off."""
    found = []
    for start, end, _ in example.spans:
        token = first_token(tokens, start, end)
        if token is not None:
            probabilities = softmax(logits[token])
            best = int(probabilities.argmax())
            found.append((start, end, labels[best], float(probabilities[best])))
    return found


def span_targets(example: Example, tokens: Tokens, index: dict[str, int], length: int) -> np.ndarray:
    """1 where a span of a label starts, and where it ends, [t, labels, 2]."""
    targets = np.zeros((length, len(index), 2), np.int32)
    for start, end, label in example.spans:
        found = tokens.span(start, end)
        if found is not None and label in index:
            targets[found[0], index[label], 0] = targets[found[1], index[label], 1] = 1
    return targets


def span_loss(logits: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """Binary cross entropy, summed over labels and mean over tokens."""
    entropy = optax.sigmoid_binary_cross_entropy(logits, targets.astype(logits.dtype)).sum((2, 3))
    return jnp.sum(jnp.where(mask, entropy, 0), 1) / jnp.maximum(mask.sum(1), 1).astype(logits.dtype)


def decode_spans(logits: np.ndarray, example: Example, tokens: Tokens, labels: Sequence[str]) -> Prediction:
    """From each probable start of a label to the first probable end that follows it."""
    del example
    probabilities = 1 / (1 + np.exp(-logits[: len(tokens.ids)].astype(np.float64)))
    inside = np.array([which == 0 for which in tokens.texts])
    probabilities = np.where(inside[:, None, None], probabilities, 0)
    found = []
    for first, label in zip(*np.nonzero(probabilities[..., 0] > 0.5), strict=True):
        ends = np.nonzero(probabilities[first:, label, 1] > 0.5)[0]
        if len(ends):
            last = first + ends[0]
            probability = float(probabilities[first, label, 0] * probabilities[last, label, 1])
            found.append((tokens.offsets[first][0], tokens.offsets[last][1], labels[label], probability))
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


TASKS = {
    "classification": Task(model.classify, lambda labels: labels, class_targets, class_loss, decode_class),
    "tokens": Task(model.label_tokens, lambda labels: labels, word_targets, word_loss, decode_words),
    "spans": Task(model.point_at_spans, lambda labels: 2 * labels, span_targets, span_loss, decode_spans),
}


def gold(example: Example, task: str) -> set[tuple[int, int, str]]:
    """What should be predicted."""
    if task == "classification":
        return {(0, len(example.text), example.labels[0])}
    return set(example.spans)


def scores(examples: Sequence[Example], predictions: Sequence[Prediction], task: str) -> dict[str, float]:
    """Accuracy of classes and words; precision, recall and F1 of spans (whole spans with their labels).

    The standard error of an accuracy is over examples, the words of one being no independent draws.
    """
    pairs = [
        (gold(example, task), {item[:3] for item in found})
        for example, found in zip(examples, predictions, strict=True)
    ]
    right = np.array([len(wanted & found) for wanted, found in pairs], float)
    wanted = np.array([len(wanted) for wanted, _ in pairs], float)
    if task == "spans":
        found = np.array([len(found) for _, found in pairs], float)
        precision, recall = right.sum() / max(found.sum(), 1), right.sum() / max(wanted.sum(), 1)
        f1 = 2 * right.sum() / max(wanted.sum() + found.sum(), 1)
        return {"f1": float(f1), "precision": float(precision), "recall": float(recall)}
    accuracy = right.sum() / wanted.sum()
    error = np.sqrt(np.sum((right - accuracy * wanted) ** 2)) / wanted.sum()
    return {"accuracy": float(accuracy), "standard_error": float(error)}


def as_record(example: Example, found: Prediction, task: str) -> dict[str, Any]:
    """A line of the file of predictions; what is found is cut out of the text."""
    record: dict[str, Any] = {"line": example.line, "text": example.text}
    if task == "classification":
        [(_, _, label, probability)] = found
        return record | {"label": example.labels[0], "predicted": label, "probability": round(probability, 6)}
    record["labels"] = [[start, end, label] for start, end, label in example.spans]
    record["predicted"] = [
        {"start": start, "end": end, "text": example.text[start:end], "label": label, "probability": round(p, 6)}
        for start, end, label, p in found
    ]
    return record
