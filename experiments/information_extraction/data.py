r"""Texts with their triples: files in the shapes that are about, or sentences of a small grammar.

    DuIE, SKE         {"text": ..., "spo_list": [{"subject": ..., "predicate": ..., "object": ...}]}, perhaps "postag"
    PRGC, CasRel      {"text": ..., "triple_list": [[subject, predicate, object]]}
    JointER           {"tokens": [...], "spo_list": [...], "spo_details": [[s, e, type, predicate, s, e, type]]}
    open triples      {text: [[subject, predicate, object]]}
    CoNLL04           columns number, token, BIO tag, [predicates], [heads]; "#doc" between texts

One record a line (``.jsonl``), or all of them in one JSON array or object (``.json``); CoNLL04's files end in
``.txt``. A record that cannot be used is left out, counted, and listed with its number and the reason. Spaces around
subjects and objects are taken off. A triple without places in the text is looked for there, at all places where
subject and object stand; one that is not found stays among those to be found, and so counts against recall.
"""

import bisect
import random
import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich

from experiments.bert.data import DataError, Problem, reason_of
from experiments.information_extraction.records import array_problem, conll, json_records

Place = tuple[int, int]
"""First character and the one after the last."""
Triple = tuple[str, str, str]
"""Subject, predicate, object."""


class Mention(NamedTuple):
    """A triple at its place in the text."""

    subject: Place
    predicate: str
    object: Place
    kinds: tuple[str, str] = ("", "")
    """Of the two entities, where they are given."""


class Example(NamedTuple):
    """A text and its triples."""

    line: int
    text: str
    triples: tuple[Triple, ...]
    """As strings, each once."""
    mentions: tuple[Mention, ...]
    """Those whose places are given."""
    tokens: tuple[Place, ...] | None = None
    """The units of the text, where they are given."""
    words: tuple[Place, ...] | None = None
    """Words whose characters are the units, where they are given."""


class Split(NamedTuple):
    """Examples to train on, to choose by, and to report on; and what could not be used of their files."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    problems: dict[str, list[Problem]]


def read(path: Path) -> tuple[list[Example], list[Problem]]:
    """The examples of a file, and the records that are none.

    Raises:
      DataError: if there is no such file, it is of neither kind, or no record can be used.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if path.suffix not in (".json", ".jsonl", ".txt"):
        raise DataError(f"{path}: the name must end in .jsonl, .json or .txt")
    records = conll(content) if path.suffix == ".txt" else json_records(content)
    examples: list[Example] = []
    problems: list[Problem] = []
    for number, record in records:
        try:
            examples.append(parsed(number, record()))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            problems.append(Problem(number, reason_of(error)))
    if not examples:
        first = f"; {problems[0].line}: {problems[0].reason}" if problems else ""
        raise DataError(f"{path}: no record can be used{array_problem(content) or first}")
    return examples, problems


def parsed(number: int, record: Any) -> Example:
    """An example from a record of any of the shapes."""
    if not isinstance(record, dict):
        raise ValueError(f"a record must be an object; got {type(record).__name__}")
    if "tokens" in record:
        return of_tokens(number, record)
    text = record["text"]
    if not isinstance(text, str):
        raise ValueError(f"text must be text; got {type(text).__name__}")
    if not text.strip():
        raise ValueError("text is empty")
    return Example(number, text, triples_of(record), (), None, words_of(text, record))


def triples_of(record: dict[str, Any]) -> tuple[Triple, ...]:
    """The triples of a record as strings, each once."""
    entries = record["spo_list"] if "spo_list" in record else record.get("triple_list", [])
    if not isinstance(entries, list):
        raise ValueError(f"spo_list must be a list; got {type(entries).__name__}")
    found = []
    for entry in entries:
        parts = [entry[name] for name in ("subject", "predicate", "object")] if isinstance(entry, dict) else entry
        if len(parts) != 3:
            raise ValueError(f"a triple has {len(parts)} parts: {parts}")
        # DuIE 2.0 has several objects of a predicate by name, the main one under "@value".
        names = (
            {"": parts[2]} if isinstance(parts[2], str) else {k.removeprefix("@value"): v for k, v in parts[2].items()}
        )
        for name, thing in names.items():
            triple = (parts[0], f"{parts[1]}/{name}" if name else parts[1], thing)
            if not all(isinstance(part, str) and part.strip() for part in triple):
                raise ValueError(f"a triple must be three texts with something in them; got {triple}")
            found.append((triple[0].strip(), triple[1], triple[2].strip()))
    return tuple(dict.fromkeys(found))


def words_of(text: str, record: dict[str, Any]) -> tuple[Place, ...] | None:
    """The places of the words of SKE's ``postag``, as far as they are found."""
    if "postag" not in record:
        return None
    places, start = [], 0
    for entry in record["postag"]:
        at = text.find(entry["word"], start)
        if at >= 0 and entry["word"]:
            start = at + len(entry["word"])
            places.append((at, start))
    return tuple(places)


def of_tokens(number: int, record: dict[str, Any]) -> Example:
    """An example whose units are given: its text is the tokens with spaces between them."""
    tokens = record["tokens"]
    if not isinstance(tokens, list) or not tokens:
        raise ValueError("tokens must be a list with something in it")
    if not all(isinstance(token, str) and token.strip() for token in tokens):
        raise ValueError("a token is empty, or no text")
    places, start = [], 0
    for token in tokens:
        places.append((start, start + len(token)))
        start += len(token) + 1
    text = " ".join(tokens)
    if "spo_details" not in record:
        return Example(number, text, triples_of(record), (), tuple(places))
    mentions = []
    for first, end, kind, predicate, other, other_end, other_kind in record["spo_details"]:
        if not (0 <= first < end <= len(tokens) and 0 <= other < other_end <= len(tokens)):
            raise ValueError(f"tokens {first} to {end} or {other} to {other_end} are not within the {len(tokens)}")
        subject, thing = ((places[a][0], places[b - 1][1]) for a, b in ((first, end), (other, other_end)))
        mentions.append(Mention(subject, predicate, thing, (kind, other_kind)))
    strings = [(text[slice(*m.subject)], m.predicate, text[slice(*m.object)]) for m in mentions]
    return Example(number, text, tuple(dict.fromkeys(strings)), tuple(dict.fromkeys(mentions)), tuple(places))


def places_of(text: str, phrase: str) -> list[Place]:
    """Everywhere that a phrase stands in a text, overlapping or not."""
    places, start = [], text.find(phrase)
    while start >= 0:
        places.append((start, start + len(phrase)))
        start = text.find(phrase, start + 1)
    return places


def nearest(first: Sequence[Place], second: Sequence[Place]) -> tuple[Place, Place] | None:
    """The pair of places that begin nearest to each other, of equally near ones the first; None if there is none.

    Two parts that are the same words are not the same place, if there are two. Both lists increase, so that only the
    neighbours of each place are looked at: a text may repeat a word as often as it likes.
    """
    pairs = []
    for place in first:
        at = bisect.bisect_left(second, place)
        pairs += [(place, other) for other in second[max(0, at - 1) : at + 2]]
    return min(pairs, key=lambda pair: (pair[0] == pair[1], abs(pair[0][0] - pair[1][0]), pair), default=None)


def located(example: Example, starts: Container[int], ends: Container[int]) -> tuple[list[Mention], list[str]]:
    """The triples at their places, and why others have none.

    Args:
      example: its given places are taken; else a triple's nearest pair of subject and object is.
      starts: characters at which a unit begins.
      ends: characters before which one ends: what begins or ends within a unit is not found.
    """
    if example.mentions:
        inside = [m for m in example.mentions if all(p[0] in starts and p[1] in ends for p in (m.subject, m.object))]
        kept = set(inside)
        lost = [m for m in example.mentions if m not in kept]
        texts = [(example.text[slice(*m.subject)], m.predicate, example.text[slice(*m.object)]) for m in lost]
        return inside, [f"{triple} is cut off or within a unit" for triple in texts]
    found, lost = [], []
    for subject, predicate, thing in example.triples:
        first, second = (
            [place for place in places_of(example.text, phrase) if place[0] in starts and place[1] in ends]
            for phrase in (subject, thing)
        )
        pair = nearest(first, second)
        if pair is not None:
            found.append(Mention(pair[0], predicate, pair[1]))
        else:
            missing = subject if not first else thing
            lost.append(f"{missing!r} of {(subject, predicate, thing)} is not in the text as whole units")
    return found, lost


#: The predicates of pairs that an open triple is made of.
PAIRS = ("subject and predicate", "predicate and object", "subject and object")


def opened(example: Example) -> Example:
    """A text whose predicates are words of it: each triple as three pairs of places."""
    pairs = []
    for subject, predicate, thing in example.triples:
        parts = (subject, predicate), (predicate, thing), (subject, thing)
        pairs += [(first, name, second) for name, (first, second) in zip(PAIRS, parts, strict=True)]
    return example._replace(triples=tuple(dict.fromkeys(pairs)))


def closed(pairs: Iterable[Triple]) -> list[Triple]:
    """Open triples from pairs: those whose three pairs are all there. ``closed(opened(x))`` has all of x."""
    by_name: dict[str, set[tuple[str, str]]] = {name: set() for name in PAIRS}
    for first, name, second in pairs:
        by_name[name].add((first, second))
    return [
        (subject, predicate, thing)
        for subject, predicate in sorted(by_name[PAIRS[0]])
        for other, thing in sorted(by_name[PAIRS[1]])
        if other == predicate and (subject, thing) in by_name[PAIRS[2]]
    ]


def load(train: Path | None, valid: Path | None, test: Path | None, seed: int, tiny: bool) -> Split:
    """The examples of the given files; tenths of the training are kept back for what has no file.

    A directory as ``train`` has train, dev (or valid) and test in it. Without one, sentences are generated.
    """
    if train is None:
        if valid is not None or test is not None:
            raise DataError("load: valid and test need train")
        rich.print("[bold yellow]no data given: training on GENERATED sentences, which say nothing about language")
        return generated_split(seed, (64, 16, 16) if tiny else (2_000, 300, 300))
    if train.is_dir():
        if valid is not None or test is not None:
            raise DataError(f"load: train is the directory {train}, which is to hold valid and test too")
        train, valid, test = (file_in(train, names) for names in (("train",), ("dev", "valid"), ("test",)))
    problems: dict[str, list[Problem]] = {}
    parts: dict[str, list[Example]] = {}
    for name, path in {"train": train, "valid": valid, "test": test}.items():
        if path is not None:
            parts[name], problems[name] = read(path)
            rich.print(f"{path}: {len(parts[name]):,} texts, {sum(len(e.triples) for e in parts[name]):,} triples")
    for name in ("valid", "test"):
        if name not in parts:
            order = np.random.default_rng([0, 1]).permutation(len(parts["train"]))  # the same for all seeds
            number, whole = max(1, len(order) // 10), parts["train"]
            parts[name] = [whole[i] for i in order[:number]]
            parts["train"] = [whole[i] for i in order[number:]]
            rich.print(f"{number:,} of them are kept back as {name}")
    if not parts["train"]:
        raise DataError(f"{train}: too few texts")
    return Split(parts["train"], parts["valid"], parts["test"], problems)


def file_in(directory: Path, names: Sequence[str]) -> Path:
    """The file of a part."""
    for name in names:
        for suffix in (".jsonl", ".json", ".txt"):
            if (directory / f"{name}{suffix}").is_file():
                return directory / f"{name}{suffix}"
    raise DataError(f"{directory} has no {names[0]}.jsonl, {names[0]}.json or {names[0]}.txt")


PEOPLE = ("Ada Lovelace", "Alan Turing", "Grace Hopper", "Emmy Noether", "Kurt Gödel", "Sofia Kovalevskaya")
TOWNS = ("London", "New York", "Vienna", "Göttingen", "Paris", "Stockholm")
FIRMS = ("Blue Star Mills", "Acme", "Harbour Works", "Lighthouse Press")


def generated(number: int, source: random.Random) -> Example:
    """One or two clauses of a small grammar, with one or two triples that may share subject or object."""
    person, other = source.sample(PEOPLE, 2)
    town, firm = source.choice(TOWNS), source.choice(FIRMS)
    clauses = [
        (f"{person} was born in {town}", [(person, "birthplace", town)]),
        (f"{person} founded {firm} in {town}", [(person, "founded", firm), (firm, "seat", town)]),
        (f"{firm} is led by {person} and {other}", [(firm, "leader", person), (firm, "leader", other)]),
        (f"{other} never met {person}", []),
    ]
    text, triples = source.choice(clauses)
    return Example(number, f"{text} .", tuple(triples), ())


def generated_split(seed: int, sizes: tuple[int, int, int]) -> Split:
    """Generated sentences of three sizes."""
    source = random.Random(seed)
    train, valid, test = ([generated(number, source) for number in range(1, size + 1)] for size in sizes)
    return Split(train, valid, test, {})


#: A Chinese character, a run of letters or of digits, or one other character that is no space.
UNIT = re.compile(
    r"[\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W\d_\u2e80-\u9fff\uac00-\ud7ff]+|\d+|\S"
)


def units_of(text: str) -> list[Place]:
    """The units of a text for which none are given."""
    return [match.span() for match in UNIT.finditer(text)]
