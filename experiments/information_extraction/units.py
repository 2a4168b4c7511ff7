"""Texts as numbers: the units that spans are made of, what is known of each, and where it stands in the text.

A unit is a word or a Chinese character for the convolutional encoder, and a token for BERT; where both read a text, a
word, with the tokens that it is made of. What is found is cut out of the text by the units' offsets, and never put
together from units.
"""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.bert.tokens import Tokenizer
from experiments.files import write_atomically
from experiments.information_extraction.data import DataError, Example, Mention, Place, located, units_of

#: Hashed parts of a unit: beginnings and ends of up to 3 characters, the whole without capitals, and its shape.
NUM_PIECES = 8
NUM_BUCKETS = 8192
PADDING, UNKNOWN = 0, 1


class Row(NamedTuple):
    """A text in units."""

    ids: np.ndarray
    """Number of each unit, [t]."""
    pieces: np.ndarray
    """Numbers of its parts, [t, pieces]."""
    words: np.ndarray
    """Number of the word around it, [t]; 0 is none."""
    offsets: Sequence[Place]
    inside: np.ndarray
    """Whether a unit is part of the text, and not one that the model wants around it, [t]."""
    truncated: bool
    tokens: np.ndarray
    """Numbers of BERT's tokens where they are not the units, [n]; else [0]."""
    spans: np.ndarray
    """First and last of the tokens of each unit, [t, 2]; the first of all for a unit that has none."""

    @property
    def length(self) -> int:
        """How many places a batch needs for it."""
        return max(len(self.ids), len(self.tokens))


#: Of a text whose units are all that is read.
NO_TOKENS, NO_SPANS = np.zeros(0, np.int32), np.zeros((0, 2), np.int32)
Encode = Callable[[Example], Row]


def pieces_of(unit: str) -> list[int]:
    """The buckets of a unit's parts, from 1 on: the same on every machine."""
    lower = unit.lower()
    shape = "".join("X" if c.isupper() else "x" if c.isalpha() else "0" if c.isdigit() else c for c in unit)
    parts = (
        [f"^{lower[:n]}" for n in (1, 2, 3)] + [f"{lower[-n:]}$" for n in (1, 2, 3)] + [f"^{lower}$", f"shape {shape}"]
    )
    return [1 + zlib.crc32(part.encode()) % (NUM_BUCKETS - 1) for part in parts]


class Vocabulary(NamedTuple):
    """Units and words that occur at least twice in the training, by number from 2 on."""

    units: dict[str, int]
    words: dict[str, int]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Vocabulary":
        """That of some texts."""
        units, words = Counter[str](), Counter[str]()
        for example in examples:
            units.update(example.text[slice(*place)] for place in example.tokens or units_of(example.text))
            words.update(example.text[slice(*place)] for place in example.words or ())
        kept = [sorted(name for name, count in found.items() if count > 1) for found in (units, words)]
        return cls(*({name: number for number, name in enumerate(names, 2)} for names in kept))

    def encoder(self, max_length: int) -> Encode:
        """What makes rows of texts: units beyond ``max_length`` are cut off."""

        def encode(example: Example) -> Row:
            every = example.tokens or units_of(example.text)
            places = every[:max_length]
            texts = [example.text[slice(*place)] for place in places]
            ids = np.array([self.units.get(unit, UNKNOWN) for unit in texts], np.int32)
            pieces = np.array([pieces_of(unit) for unit in texts], np.int32).reshape(-1, NUM_PIECES)
            words = np.zeros(len(ids), np.int32)
            around = list(example.words or ())
            for place, (start, end) in enumerate(places):
                while around and around[0][1] <= start:
                    around.pop(0)
                if around and around[0][0] <= start and end <= around[0][1]:
                    words[place] = self.words.get(example.text[slice(*around[0])], UNKNOWN)
            return Row(
                ids, pieces, words, places, np.ones(len(ids), bool), len(every) > max_length, NO_TOKENS, NO_SPANS
            )

        return encode

    def save(self, path: Path) -> None:
        """Writes the units and words in their order."""
        content = json.dumps({"units": [*self.units], "words": [*self.words]}, ensure_ascii=False)
        write_atomically(path, (content + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads them again."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(*({name: n for n, name in enumerate(found[part], 2)} for part in ("units", "words")))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: no vocabulary: {error}") from error


def bert_encoder(tokenizer: Tokenizer, max_length: int) -> Encode:
    """What makes rows of texts by a tokenizer of BERT's."""

    def encode(example: Example) -> Row:
        found = tokenizer.encode(example.text, max_length=max_length)
        ids = np.array(found.ids, np.int32)
        inside = np.array(
            [which == 0 and a < b for which, (a, b) in zip(found.texts, found.offsets, strict=True)], bool
        )
        nothing = np.zeros((len(ids), 0), np.int32)
        return Row(
            ids, nothing, np.zeros(len(ids), np.int32), found.offsets, inside, found.truncated, NO_TOKENS, NO_SPANS
        )

    return encode


def joint_encoder(vocabulary: Vocabulary, tokenizer: Tokenizer, max_length: int) -> Encode:
    """What makes rows of texts in words, each with its tokens: cut before the first word whose tokens are cut off."""
    in_words = vocabulary.encoder(max_length)

    def encode(example: Example) -> Row:
        row, found = in_words(example), tokenizer.encode(example.text, max_length=max_length)
        own = [
            n for n, (which, (a, b)) in enumerate(zip(found.texts, found.offsets, strict=True)) if which == 0 and a < b
        ]
        starts, ends = (np.array([found.offsets[n][side] for n in own], np.int32) for side in (0, 1))
        units = np.array(row.offsets, np.int32).reshape(-1, 2)
        first = np.searchsorted(ends, units[:, 0], side="right")
        last = np.searchsorted(starts, units[:, 1], side="left") - 1
        number = len(units)
        if found.truncated:
            number = int(np.sum(units[:, 1] <= (ends[-1] if own else 0)))
        # Tokenizers drop some characters: a unit that is left without a token is read as the one before the text.
        places = np.array([*own, 0], np.int32)
        spans = np.where((first <= last)[:, None], places[np.stack([first, np.minimum(last, len(own))], 1)], 0)
        cut = row.truncated or number < len(units)
        ids, pieces, words, inside = (part[:number] for part in (row.ids, row.pieces, row.words, row.inside))
        tokens = np.array(found.ids, np.int32)
        return Row(ids, pieces, words, row.offsets[:number], inside, cut, tokens, spans[:number].astype(np.int32))

    return encode


class Placed(NamedTuple):
    """The triples of a text by the numbers of their units."""

    triples: np.ndarray
    """First and last unit of the subject, predicate, first and last unit of the object, [m, 5]."""
    mentions: tuple[Mention, ...]
    """Those that were found, in characters, whether or not their predicate is known."""
    lost: list[str]
    """Why others are not there."""


def placed(example: Example, row: Row, predicates: dict[str, int]) -> Placed:
    """The triples of a text that can be trained on, and what was lost."""
    starts = {a: place for place, ((a, _), inside) in enumerate(zip(row.offsets, row.inside, strict=True)) if inside}
    ends = {b: place for place, ((_, b), inside) in enumerate(zip(row.offsets, row.inside, strict=True)) if inside}
    mentions, lost = located(example, set(starts), set(ends))
    triples = []
    for mention in mentions:
        (a, b), (c, d) = mention.subject, mention.object
        if mention.predicate not in predicates:
            lost.append(f"the predicate {mention.predicate!r} is not in the training")
        elif starts[a] <= ends[b] and starts[c] <= ends[d]:
            triples.append((starts[a], ends[b], predicates[mention.predicate], starts[c], ends[d]))
    array = np.array(sorted(set(triples)), np.int32).reshape(-1, 5)
    return Placed(array, tuple(mentions), lost)
