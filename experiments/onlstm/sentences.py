"""Examples of one or two sentences as arrays, their batches, and how the sentences of a batch are packed.

Sentences of a batch differ in length by far: padded to the longest one, most of the steps of a scan would be padding.
Here they stand end to end in rows, and the scan starts anew where one begins (``reset``).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Rows are added to a multiple of this, so that few shapes, and few compiled programs, occur.
ROWS = 8


def lines_of(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
      ValueError: if it is not UTF-8, naming the file.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 from byte {error.start} on") from error


class Examples(NamedTuple):
    """Sentences of each example as token numbers, its label, and its bin: how long or deep it is."""

    tokens: np.ndarray  # int8 [n, sentences, t], padded with 0
    lengths: np.ndarray  # int32 [n, sentences]
    labels: np.ndarray  # int32 [n]
    bins: np.ndarray  # int32 [n]

    def take(self, rows: np.ndarray) -> "Examples":
        return Examples(*[array[rows] for array in self])


class Split(NamedTuple):
    """Examples to train on, to choose by, and to test."""

    train: Examples
    valid: Examples
    test: Examples


class Packed(NamedTuple):
    """Sentences end to end in rows; what is left at the end of a row is padding."""

    tokens: np.ndarray  # int32 [t, rows]
    sentences: np.ndarray  # int32 [t, rows]: the number of the sentence, that of all of them for padding
    positions: np.ndarray  # int32 [t, rows]: steps since the sentence began, 0 for padding
    ends: np.ndarray  # int32 [sentences, 2]: step and row of the last token of each


def encode(
    sentences: Sequence[Sequence[str]], labels: Sequence[int], bins: Sequence[int], vocabulary: tuple[str, ...]
) -> Examples:
    """The arrays of some examples, each of them a number of sentences whose tokens are separated by blanks."""
    number = {token: index for index, token in enumerate(vocabulary)}
    encoded = [[[number[token] for token in sentence.split()] for sentence in example] for example in sentences]
    num_sentences = len(encoded[0]) if encoded else 1
    lengths = np.array([[len(sentence) for sentence in example] for example in encoded], np.int32)
    lengths = lengths.reshape(-1, num_sentences)
    tokens = np.zeros((*lengths.shape, max(1, lengths.max(initial=0))), np.int8)
    for row, example in enumerate(encoded):
        for column, sentence in enumerate(example):
            tokens[row, column, : len(sentence)] = sentence
    return Examples(tokens, lengths, np.array(labels, np.int32), np.array(bins, np.int32))


def split_examples(train: Examples, test: Examples, maximal_bin: int) -> Split:
    """Training examples of the lower bins, every tenth of them for validation, and test examples of all bins."""
    short = train.take(train.bins <= maximal_bin)
    rows = np.arange(len(short.bins))
    return Split(short.take(rows[rows % 10 != 0]), short.take(rows[rows % 10 == 0]), test)


def batches(data: Examples, batch_size: int, seed: tuple[int, ...] | None) -> np.ndarray:
    """The rows of each batch, [batches, batch_size].

    Args:
      data: the examples.
      batch_size: rows of a batch.
      seed: for a random order, of which the last rows, too few for a batch, stand out; None for an order that is
        always the same, in which all rows come, the first ones again to fill the last batch.
    """
    count = len(data.bins)
    rows = np.random.default_rng(0 if seed is None else seed).permutation(count)
    if seed is None or count < batch_size:
        return np.resize(rows, (-(-count // batch_size), batch_size))
    return rows[: count // batch_size * batch_size].reshape(-1, batch_size)


def pack(tokens: np.ndarray, lengths: np.ndarray, num_steps: int, multiple: int = 1) -> Packed:
    """Packs sentences [n, t] of these lengths into rows of ``num_steps``: the longest first, each where it fits best.

    The number of rows is a multiple of ``ROWS`` and of ``multiple``, the devices that share them.

    Raises:
      ValueError: if a sentence is empty or longer than a row.
    """
    if lengths.min(initial=1) < 1 or lengths.max(initial=1) > num_steps:
        raise ValueError(f"pack: lengths must be 1 ... {num_steps}; got {lengths.min()} ... {lengths.max()}")
    rows_with: list[list[int]] = [[] for _ in range(num_steps + 1)]  # rows by the steps that are free in them
    row, start = np.zeros(len(lengths), np.int32), np.zeros(len(lengths), np.int32)
    num_rows = 0
    for sentence in np.argsort(-lengths, kind="stable"):
        length = int(lengths[sentence])
        free = next((free for free in range(length, num_steps) if rows_with[free]), num_steps)
        if free == num_steps:
            row[sentence], num_rows = num_rows, num_rows + 1
        else:
            row[sentence] = rows_with[free].pop()
        start[sentence] = num_steps - free
        rows_with[free - length].append(int(row[sentence]))
    unit = math.lcm(ROWS, multiple)
    shape = (num_steps, -(-num_rows // unit) * unit)
    packed = Packed(
        np.zeros(shape, np.int32),
        np.full(shape, len(lengths), np.int32),
        np.zeros(shape, np.int32),
        np.stack([start + lengths - 1, row], 1).astype(np.int32),
    )
    sentence, position = np.nonzero(np.arange(tokens.shape[1])[None] < lengths[:, None])
    place = start[sentence] + position, row[sentence]
    for grid, values in zip(packed[:3], (tokens[sentence, position], sentence, position), strict=True):
        grid[place] = values
    return packed


def packed_batch(data: Examples, rows: np.ndarray, num_steps: int, multiple: int = 1) -> tuple[Packed, np.ndarray]:
    """The packed sentences of some examples, all first ones before all second ones, and the labels."""
    flat = data.tokens[rows].swapaxes(0, 1).reshape(-1, data.tokens.shape[2])
    return pack(flat, data.lengths[rows].T.reshape(-1), num_steps, multiple), data.labels[rows]


def steps_for(data: Examples) -> int:
    """The length of a row that every sentence fits in, rounded up to a multiple of 8."""
    return -(-int(data.lengths.max()) // 8) * 8
