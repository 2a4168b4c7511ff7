"""More texts of those there are: the subject and object of a triple exchanged for another pair of the same predicate.

What the new sentence says may be nonsense, but its triples are known, and their words are new to the sentence: so the
model learns from the words around a pair, and not only which words it has seen together.

Reference: Su, https://kexue.fm/archives/6671, 2019 (its section on data augmentation).
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from experiments.information_extraction.data import Example, Mention, Place, Triple

Pairs = dict[str, list[tuple[str, str]]]


def pairs_of(texts: Iterable[Iterable[Triple]]) -> Pairs:
    """The pairs of subject and object of each predicate, as often as they occur."""
    pairs: Pairs = defaultdict(list)
    for triples in texts:
        for subject, predicate, thing in triples:
            pairs[predicate].append((subject, thing))
    return dict(pairs)


def swapped(example: Example, mentions: Sequence[Mention], pairs: Pairs, source: np.random.Generator) -> Example | None:
    """The text with another pair in the place of a triple's.

    Args:
      example: a text.
      mentions: its triples with their places.
      pairs: of ``pairs_of``.
      source: of the choice.

    Returns:
      A text with places of all triples; None if it has no triple, or if one part lies within another, so that it
      cannot be exchanged alone.
    """
    if not mentions:
        return None
    chosen = mentions[int(source.integers(len(mentions)))]
    new = pairs[chosen.predicate][int(source.integers(len(pairs[chosen.predicate])))]
    text = example.text
    replaced = {text[slice(*chosen.subject)]: new[0], text[slice(*chosen.object)]: new[1]}
    places = {place for mention in mentions for place in (mention.subject, mention.object)}
    ordered = sorted(places)
    if any(right[0] < left[1] for left, right in itertools.pairwise(ordered)):
        return None
    parts, moved, end = [], dict[Place, Place](), 0
    length = 0
    for place in ordered:
        between, old = text[end : place[0]], text[slice(*place)]
        now = replaced.get(old, old)
        start = length + len(between)
        moved[place] = (start, start + len(now))
        parts += [between, now]
        length, end = start + len(now), place[1]
    whole = "".join([*parts, text[end:]])
    kept = tuple(m._replace(subject=moved[m.subject], object=moved[m.object]) for m in mentions)
    triples = tuple(dict.fromkeys((whole[slice(*m.subject)], m.predicate, whole[slice(*m.object)]) for m in kept))
    tokens = None
    if example.tokens is not None:
        ends = np.cumsum([len(token) + 1 for token in whole.split(" ")]) - 1
        tokens = tuple((int(last) - len(token), int(last)) for token, last in zip(whole.split(" "), ends, strict=True))
    words = None if example.words is None else moved_words(text, example.words, ordered, replaced)
    return Example(example.line, whole, triples, kept, tokens, words)


def moved_words(
    text: str, words: Sequence[Place], places: Sequence[Place], replaced: dict[str, str]
) -> tuple[Place, ...]:
    """The words that nothing of is exchanged, where they stand now; of what comes in, no words are known."""
    changed = [
        place for place in places if replaced.get(text[slice(*place)], text[slice(*place)]) != text[slice(*place)]
    ]
    found = []
    for start, end in words:
        if all(end <= first or last <= start for first, last in changed):
            by = sum(len(replaced[text[slice(*p)]]) - (p[1] - p[0]) for p in changed if p[1] <= start)
            found.append((start + by, end + by))
    return tuple(found)
