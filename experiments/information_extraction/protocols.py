"""How good triples are: F1 by four protocols, that of a look-up table, and that of triples which no training text has.

    string    subject, predicate and object as texts (of DuIE and of JointER)
    partial   only the first word of subject and object (of CasRel's WebNLG* and NYT*)
    span      their places in the text
    strict    places, and the kinds of both entities (of SpERT); of a prediction, the kinds that its predicate has most
              often in training

All are micro averages over texts, each triple of a text once. Most published test sets have most of their triples in
the training set too, so that an F1 alone says little: a table of the training's triples, which learns nothing, is
scored beside it, and what is left of both sides when the training's triples are taken away.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.information_extraction.data import Example, Mention, Triple
from jaxlab import metrics, moments

PROTOCOLS = ("string", "partial", "span", "strict")
F1 = metrics.set_f1(temperature=0.0)


class Counts(NamedTuple):
    """Of each text: triples that are found and true, found, true; [n]."""

    both: np.ndarray
    found: np.ndarray
    true: np.ndarray


class Truth(NamedTuple):
    """What is to be found in a text: places where they are known, and all triples as strings."""

    example: Example
    mentions: tuple[Mention, ...]


def as_triple(text: str, mention: Mention) -> Triple:
    """The strings of a mention."""
    return text[slice(*mention.subject)], mention.predicate, text[slice(*mention.object)]


def first_words(triple: Triple) -> Triple:
    """A triple with one word of its subject and of its object."""
    # A tokenizer of bytes may find what Python takes for a space, such as "\x1c".
    subject, thing = ((part.split() or [part])[0] for part in (triple[0], triple[2]))
    return subject, triple[1], thing


def keys_of_truth(truth: Truth, protocol: str) -> dict[Any, Triple]:
    """What must be found, each with its strings; a triple without a place cannot be found by place."""
    if protocol in ("string", "partial"):
        return {(t if protocol == "string" else first_words(t)): t for t in truth.example.triples}
    text = truth.example.text
    keys: dict[Any, Triple] = {}
    for m in truth.mentions:
        keys[(m.subject, m.predicate, m.object, *(m.kinds if protocol == "strict" else ()))] = as_triple(text, m)
    placed = set(keys.values())
    return keys | {("nowhere", t): t for t in truth.example.triples if t not in placed}


def keys_of_found(text: str, found: Iterable[Mention], protocol: str, kinds: dict[str, Any]) -> dict[Any, Triple]:
    """What was found, each with its strings."""
    keys: dict[Any, Triple] = {}
    for m in found:
        triple = as_triple(text, m)
        if protocol == "string":
            keys[triple] = triple
        elif protocol == "partial":
            keys[first_words(triple)] = triple
        else:
            of_predicate = kinds.get(m.predicate, ("", "")) if protocol == "strict" else ()
            keys[(m.subject, m.predicate, m.object, *of_predicate)] = triple
    return keys


def usual_kinds(truths: Iterable[Truth]) -> dict[str, tuple[str, str]]:
    """The kinds of entities that each predicate has most often."""
    counts: dict[str, Counter] = {}
    for truth in truths:
        for mention in truth.mentions:
            counts.setdefault(mention.predicate, Counter())[mention.kinds] += 1
    return {predicate: count.most_common(1)[0][0] for predicate, count in counts.items()}


def counted(
    truths: Sequence[Truth],
    found: Sequence[Iterable[Mention]],
    protocol: str,
    kinds: dict[str, Any],
    counts_for: Callable[[Triple], bool] = lambda _: True,
) -> Counts:
    """Counts of each text, of the triples that count."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"counted: protocol must be one of {', '.join(PROTOCOLS)}; got {protocol!r}")
    rows = []
    for truth, mentions in zip(truths, found, strict=True):
        wanted, taken = keys_of_truth(truth, protocol), keys_of_found(truth.example.text, mentions, protocol, kinds)
        keep = [{key for key, triple in keys.items() if counts_for(triple)} for keys in (wanted, taken)]
        rows.append((len(keep[0] & keep[1]), len(keep[1]), len(keep[0])))
    return Counts(*np.array(rows, np.int32).reshape(-1, 3).T)


@functools.partial(jax.jit, static_argnums=1)
def f1_interval(rows: jax.Array, num_resamples: int) -> Any:
    """F1 of counts [n, 3] and its 95% interval by resampling texts."""

    def f1(sample: jax.Array) -> jax.Array:
        return F1.final(dict(zip(("both", "decided", "true"), sample.mean(0), strict=True)))

    return moments.bootstrap(f1, num_resamples=num_resamples)(jax.random.key(0), rows)


def scores(counts: Counts, *, num_resamples: int = 1_000) -> dict[str, float]:
    """F1, precision and recall, the counts, and a 95% interval of F1 by resampling texts (percentiles)."""
    both, found, true = (int(part.sum()) for part in counts)
    rows = np.stack(counts, 1).astype(np.float32)
    # One text alone has no interval; two of the same have one of no width.
    interval = f1_interval(jnp.asarray(rows if len(rows) > 1 else np.repeat(rows, 2, 0)), num_resamples)
    low, high = (float(bound) for bound in interval.percentile)
    return {
        "f1": float(interval.value),
        "precision": both / max(found, 1),
        "recall": both / max(true, 1),
        "low": low,
        "high": high,
        "right": both,
        "found": found,
        "true": true,
    }


def report(
    truths: Sequence[Truth],
    found: Sequence[Iterable[Mention]],
    looked_up: Sequence[Iterable[Mention]],
    training: Sequence[Truth],
    protocol: str,
) -> dict[str, dict[str, float]]:
    """F1 of what was found and of the look-up table, each of all triples and of those that no training text has."""
    kinds = usual_kinds(training)
    shorten = first_words if protocol == "partial" else (lambda triple: triple)
    seen = {shorten(triple) for truth in training for triple in truth.example.triples}

    def unseen(triple: Triple) -> bool:
        return shorten(triple) not in seen

    return {
        "all": scores(counted(truths, found, protocol, kinds)),
        "look_up": scores(counted(truths, looked_up, protocol, kinds)),
        "unseen": scores(counted(truths, found, protocol, kinds, unseen)),
    }
