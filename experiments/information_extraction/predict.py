"""Triples of any texts, as JSON lines, by a model that was trained and saved."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.files import write_atomically
from experiments.information_extraction import model
from experiments.information_extraction.data import DataError, Example
from experiments.information_extraction.reader import Reader
from experiments.information_extraction.report import described


@dataclass(frozen=True)
class Prediction:
    """Finds triples in texts."""

    model: Path
    """Directory of a trained model: ``model`` in that of its run."""
    text: tuple[str, ...] = ()
    """Texts; those of ``input`` without them."""
    input: Path | None = None
    """A file with one text a line, in UTF-8; standard input without it."""
    output: Path | None = None
    """Where to write; to standard output without it."""
    batch_size: int = 32
    """Texts that are read at once."""


def lines_of(config: Prediction) -> Iterator[tuple[int, bytes]]:
    """The texts with their numbers."""
    if config.text:
        yield from enumerate((text.encode("utf-8", "surrogateescape") for text in config.text), 1)
        return
    try:
        content = sys.stdin.buffer.read() if config.input is None else config.input.read_bytes()
    except OSError as error:
        raise DataError(f"{config.input}: {error.strerror}") from error
    yield from ((n, line.rstrip(b"\r")) for n, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1))


def predict(config: Prediction) -> dict[str, int]:
    """Writes a line for each text: its triples, or why it cannot be read. Returns how many there are of each."""
    if config.batch_size < 1:
        raise ValueError(f"predict: batch_size must be at least 1; got {config.batch_size}")
    extractor = model.load(config.model)
    records = list(found_in(extractor, lines_of(config), config.batch_size))
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if config.output is None:
        print(content, end="")
    else:
        write_atomically(config.output, content.encode())
    errors = sum("error" in record for record in records)
    return {
        "texts": len(records) - errors,
        "errors": errors,
        "triples": sum(len(record.get("triples", ())) for record in records),
        "cut": sum(record.get("cut", False) for record in records),
    }


def found_in(
    extractor: model.Extractor, lines: Iterable[tuple[int, bytes]], batch_size: int
) -> Iterator[dict[str, Any]]:
    """A record for each text, in order."""
    reader = Reader(extractor)
    examples: list[Example] = []
    errors: dict[int, str] = {}
    for number, line in lines:
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            errors[number] = f"not UTF-8 from byte {error.start} on"
            text = ""
        if number not in errors and not text.strip():
            errors[number] = "empty"
        examples.append(Example(number, text, (), ()))
    usable = [example for example in examples if example.line not in errors]
    found: dict[int, dict[str, Any]] = {}
    if usable:
        part = reader.encoded(usable)
        candidates = reader.candidates(extractor.parameters, part, min(batch_size, len(usable)))
        mentions = reader.mentions(part, candidates, extractor.thresholds)
        for example, row, of_text in zip(usable, part.rows, mentions, strict=True):
            triples = [described(example.text, mention, score) for mention, score in of_text]
            found[example.line] = {"line": example.line, "text": example.text, "triples": triples}
            if row.truncated:  # what comes after the model's length was not read
                found[example.line]["cut"] = True
    for example in examples:
        yield found.get(example.line) or {"line": example.line, "error": errors[example.line]}


def extract(directory: Path, texts: Iterable[str]) -> list[dict[str, Any]]:
    """``predict`` as a function of texts."""
    lines = enumerate((text.encode("utf-8", "surrogatepass") for text in texts), 1)
    return list(found_in(model.load(directory), lines, 32))
