"""How texts become batches, and what is found in them becomes triples: what training and prediction share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.bert.train import batch_rows
from experiments.information_extraction import data, model, prior, protocols, units
from experiments.information_extraction.candidates import Candidates
from experiments.information_extraction.data import Example, Mention
from experiments.information_extraction.model import Extractor
from experiments.information_extraction.protocols import Truth
from experiments.information_extraction.units import Placed, Row


class Encoded(NamedTuple):
    """Texts in units."""

    examples: Sequence[Example]
    rows: list[Row]
    placed: list[Placed]
    prior: list[np.ndarray]
    """Known triples of each text, [n, 5]."""
    looked_up: list[list[Mention]]
    """The same at their places in characters: what the look-up table finds."""
    buckets: np.ndarray
    """To how many units each is filled up."""
    most: int
    """To how many triples."""

    def truths(self) -> list[Truth]:
        """What is to be found."""
        return [Truth(example, placed.mentions) for example, placed in zip(self.examples, self.placed, strict=True)]


def bucket_sizes(max_length: int) -> list[int]:
    """To how many units texts are filled up: few sizes, for each is compiled."""
    return [size for size in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384) if size < max_length] + [max_length]


def padded(entries: np.ndarray, number: int) -> np.ndarray:
    """Rows of 5 filled up with -1, [number, 5]."""
    return np.concatenate([entries, np.full((number - len(entries), 5), -1, np.int32)]).astype(np.int32)


def place_of(row: Row, first: int, last: int) -> data.Place:
    """The characters from one unit to another."""
    return row.offsets[first][0], row.offsets[last][1]


class Reader:
    """How texts become batches and what is found becomes mentions: all that training and prediction share.

    Args:
      extractor: whose ``parameters`` are not used.
    """

    def __init__(self, extractor: Extractor):
        self.extractor = extractor
        self.encode = extractor.encoder()
        self.index = {name: number for number, name in enumerate(extractor.predicates)}
        self.sizes = bucket_sizes(extractor.max_length)

    def encoded(self, examples: Sequence[Example], training: bool = False) -> Encoded:
        """Texts in units; those of the training do not see what they alone have."""
        rows, places, known_triples, looked_up = [], [], [], []
        for example in examples:
            shown = data.opened(example) if self.extractor.open_predicates else example
            row = self.encode(shown)
            entries, mentions = self.known(example.text, row, shown.triples if training else ())
            rows.append(row)
            places.append(units.placed(shown, row, self.index))
            known_triples.append(entries)
            looked_up.append(mentions)
        lengths = np.array([next(size for size in self.sizes if size >= row.length) for row in rows])
        most = 8 * -(-max([1, *(len(found.triples) for found in places)]) // 8)
        return Encoded(examples, rows, places, known_triples, looked_up, lengths, most)

    def known(self, text: str, row: Row, without: Sequence[data.Triple]) -> tuple[np.ndarray, list[Mention]]:
        """What a look-up in the training's triples finds: by units [n, 5], and at places in the text."""
        known = [] if self.extractor.prior is None else self.extractor.prior.look_up(text, row, without)
        entries = [(a, b, self.index[p], c, d) for a, b, p, c, d in known if p in self.index]
        mentions = [Mention(place_of(row, a, b), p, place_of(row, c, d)) for a, b, p, c, d in known]
        return np.array(entries, np.int32).reshape(-1, 5), mentions

    def batch(self, part: Encoded, rows: np.ndarray, size: int) -> dict[str, np.ndarray]:
        """The arrays of some texts, filled up to a whole batch by the first of them, which then do not count."""
        length = int(part.buckets[rows[0]])
        filled = np.concatenate([rows, np.full(size - len(rows), rows[0], rows.dtype)])
        width = part.rows[rows[0]].pieces.shape[1]
        arrays: dict[str, np.ndarray] = {
            name: np.zeros((size, length, *rest), kind)
            for name, kind, rest in (
                ("ids", np.int32, ()),
                ("pieces", np.int32, (width,)),
                ("words", np.int32, ()),
                ("mask", bool, ()),
                ("inside", bool, ()),
            )
        }
        for place, number in enumerate(filled):
            row = part.rows[number]
            count = len(row.ids)
            for name in ("ids", "pieces", "words", "inside"):
                arrays[name][place, :count] = getattr(row, name)
            arrays["mask"][place, :count] = True
        if len(part.rows[rows[0]].tokens):
            arrays |= self.tokens(part, filled, length)
        arrays["triples"] = np.stack([padded(part.placed[number].triples, part.most) for number in filled])
        arrays["prior"] = np.stack([padded(part.prior[number], prior.MOST) for number in filled])
        arrays["counts"] = (np.arange(size) < len(rows)).astype(np.float32)
        return arrays

    @staticmethod
    def tokens(part: Encoded, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The tokens of some texts, and which of them each unit is made of."""
        tokens, spans = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length, 2), np.int32)
        mask = np.zeros(tokens.shape, bool)
        for place, number in enumerate(rows):
            row = part.rows[number]
            tokens[place, : len(row.tokens)], mask[place, : len(row.tokens)] = row.tokens, True
            spans[place, : len(row.spans)] = row.spans
        return {"tokens": tokens, "token_mask": mask, "spans": spans}

    def candidates(self, parameters: Any, part: Encoded, size: int) -> list[Candidates]:
        """What each text may have."""
        found: dict[int, Candidates] = {}
        for rows in batch_rows(part.buckets, size, None):
            batch = self.batch(part, rows, size)
            for number, of_text in zip(rows, model.candidates(parameters, batch, self.extractor.sizes), strict=False):
                found[int(number)] = of_text
        return [found[number] for number in range(len(part.rows))]

    def mentions(
        self, part: Encoded, found: Sequence[Candidates], thresholds: tuple[float, float]
    ) -> list[list[tuple[Mention, float]]]:
        """The triples of each text with their probabilities."""
        return [
            self.mentions_of(example, row, candidates, thresholds)
            for example, row, candidates in zip(part.examples, part.rows, found, strict=True)
        ]

    def mentions_of(
        self, example: Example, row: Row, candidates: Candidates, thresholds: tuple[float, float]
    ) -> list[tuple[Mention, float]]:
        """The triples of a text with their probabilities, each once."""
        taken = candidates.taken(*thresholds)
        best: dict[Mention, float] = {}
        for (a, b, p, c, d), score in zip(candidates.triples[taken].tolist(), candidates.scores()[taken], strict=True):
            mention = Mention(place_of(row, a, b), self.extractor.predicates[p], place_of(row, c, d))
            best[mention] = max(best.get(mention, 0.0), float(score))
        return self.joined(example.text, best) if self.extractor.open_predicates else list(best.items())

    @staticmethod
    def joined(text: str, pairs: dict[Mention, float]) -> list[tuple[Mention, float]]:
        """Open triples of pairs; a triple is as probable as the least probable of its pairs."""
        by_string = {protocols.as_triple(text, m): (m, score) for m, score in pairs.items()}
        found = []
        for subject, predicate, thing in data.closed(by_string):
            parts = (subject, predicate), (predicate, thing), (subject, thing)
            of_pairs = [by_string[a, name, b] for name, (a, b) in zip(data.PAIRS, parts, strict=True)]
            mention = Mention(of_pairs[2][0].subject, predicate, of_pairs[2][0].object)
            found.append((mention, min(score for _, score in of_pairs)))
        return found
