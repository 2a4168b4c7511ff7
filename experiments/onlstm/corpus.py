"""Sentences to train language models on, with the constituents of those that come from a treebank.

A corpus is, in this order of preference: a directory of trees in bracket format (``*.ptb``, ``*.mrg``) with a
``splits.md`` as GUM has it; a directory with three text files, whose names have ``train``, ``valid`` and ``test`` in
them, one sentence a line; or, by default, generated propositional formulas without their brackets.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich
from rich.markup import escape

from experiments.onlstm import logic_data
from experiments.onlstm.sentences import lines_of

UNKNOWN, END = "<unk>", "<eos>"
# Penn Treebank tags of words, so not those of punctuation and of traces.
WORD_TAGS = frozenset(
    re.findall(
        r"\S+",
        "CC CD DT EX FW IN JJ JJR JJS LS MD NN NNS NNP NNPS PDT POS PRP PRP$ RB RBR RBS RP SYM TO UH VB VBD VBG VBN VBP"
        " VBZ WDT WP WP$ WRB",
    )
)
Span = tuple[int, int]


class Sentence(NamedTuple):
    """Words, and the constituents of two of them and more, as first and last word; none if they are not known."""

    words: tuple[str, ...]
    spans: frozenset[Span]


class Corpus(NamedTuple):
    """Sentences by use, and the words that have a number of their own."""

    train: list[Sentence]
    valid: list[Sentence]
    test: list[Sentence]
    vocabulary: tuple[str, ...]


def read_tree(text: str) -> Sentence:
    """One tree in bracket format, without punctuation and traces, in lower case and with N for digits.

    Raises:
      ValueError: if the brackets do not match, or there is a word without a tag.
    """
    tokens = re.findall(r"[()]|[^\s()]+", text)[::-1]
    words: list[str] = []
    spans: set[Span] = set()

    def node() -> None:
        """Reads a node after its opening bracket."""
        first = len(words)
        label = tokens.pop() if tokens and tokens[-1] not in "()" else ""
        if tokens and tokens[-1] not in "()":
            word = tokens.pop()
            if label in WORD_TAGS:
                words.append(re.sub(r"[0-9]+", "N", word.lower()))
        else:
            if not (tokens and tokens[-1] == "("):
                raise ValueError(f"a node {label[:80]!r} without children")
            while tokens and tokens[-1] == "(":
                tokens.pop()
                node()
        if not tokens or tokens.pop() != ")":
            raise ValueError("a bracket that is not closed, or two words with one tag")
        if len(words) - first >= 2:
            spans.add((first, len(words) - 1))

    if not tokens or tokens.pop() != "(":
        raise ValueError("no opening bracket")
    node()
    if tokens:
        raise ValueError("something after the last bracket")
    return Sentence(tuple(words), frozenset(spans))


def blocks(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The trees of a file with the number of the line each begins in: a bracket in the first column begins one."""
    block: list[str] = []
    start = 1
    for number, line in enumerate(lines, 1):
        if line.startswith("(") and block:
            yield start, "\n".join(block)
            block = []
        if line.strip():
            start = number if not block else start
            block.append(line)
    if block:
        yield start, "\n".join(block)


def read_treebank(paths: Iterable[Path]) -> tuple[list[Sentence], list[str]]:
    """The sentences of some files, and a line for each tree that does not parse, which is left out.

    A sentence without a word (all punctuation) is left out too; one of one word stays, and has no constituents.
    """
    sentences, errors = [], []
    for path in paths:
        for number, block in blocks(lines_of(path)):
            try:
                sentence = read_tree(block)
            except (ValueError, RecursionError) as error:
                errors.append(f"{path}, line {number}: {error}")
                continue
            if sentence.words:
                sentences.append(sentence)
    if errors:
        rich.print(f"[bold yellow]{len(errors)} trees do not parse and are left out; the first: {escape(errors[0])}")
    return sentences, errors


#: The splits of a treebank.
SPLITS = ("train", "dev", "test")


def read_splits(directory: Path) -> dict[str, list[Path]]:
    """The files of a treebank by split, as its ``splits.md`` names them; those that are not there are left out.

    Raises:
      ValueError: if a split has no files, or a name is none of a file in the directory.
    """
    found: dict[str, list[Path]] = {name: [] for name in SPLITS}
    path, split = directory / "splits.md", ""
    for number, line in enumerate(lines_of(path), 1):
        if line.startswith("## "):
            split = line[3:].strip()
        elif split in SPLITS and (match := re.match(r"\s*\* (\S+)", line)):
            if not re.fullmatch(r"[\w.-]{1,200}", match[1], re.ASCII):
                raise ValueError(f"{path}, line {number}: {match[1][:50]!r} is no name of a file of a split")
            files = [directory / f"{match[1]}{suffix}" for suffix in (".ptb", ".mrg")]
            found[split].extend(file for file in files if file.exists())
    if not all(found[name] for name in SPLITS):
        raise ValueError(f"{path}: no files for {', '.join(name for name in SPLITS if not found[name])}")
    return found


def read_text(path: Path, characters: bool) -> list[Sentence]:
    """The lines of a text file that are not empty, as words or as characters."""
    lines = (line.strip() for line in lines_of(path))
    return [Sentence(tuple(line if characters else line.split()), frozenset()) for line in lines if line]


def generated(num_draws: int) -> list[Sentence]:
    """Formulas without brackets, and their trees."""
    texts = [text for pair in logic_data.draw_pairs(0, num_draws) for text in (pair.first, pair.second)]
    return [formula_sentence(text) for text in dict.fromkeys(texts)]


def formula_sentence(text: str) -> Sentence:
    """``( a ( and b ) )`` as the words a, and, b with their constituents."""
    words: list[str] = []
    spans: set[Span] = set()
    open_at: list[int] = []
    for token in text.split():
        if token == "(":
            open_at.append(len(words))
        elif token == ")":
            spans.add((open_at.pop(), len(words) - 1))
        else:
            words.append(token)
    return Sentence(tuple(words), frozenset(spans))


def load(directory: Path | None, *, characters: bool = False, minimal_count: int = 2, num_draws: int = 5_000) -> Corpus:
    """The corpus in a directory, or the generated one; words seen fewer times in training are unknown ones."""
    if directory is None:
        rich.print("[bold yellow]no data given: training on generated formulas, not on language")
        sentences = generated(num_draws)
        one, two = int(0.8 * len(sentences)), int(0.9 * len(sentences))
        parts = [sentences[:one], sentences[one:two], sentences[two:]]
    elif (directory / "splits.md").exists():
        splits = read_splits(directory)
        parts = [read_treebank(splits[name])[0] for name in SPLITS]
    else:
        paths = [sorted(directory.glob(f"*{name}*")) for name in ("train", "valid", "test")]
        if not all(paths):
            raise ValueError(f"{directory} has neither splits.md nor files for train, valid and test")
        parts = [read_text(found[0], characters) for found in paths]
    counts = Counter(word for sentence in parts[0] for word in sentence.words)
    known = sorted((word for word, count in counts.items() if count >= minimal_count), key=lambda w: (-counts[w], w))
    vocabulary = (END, UNKNOWN, *[word for word in known if word not in (END, UNKNOWN)])
    train, valid, test = parts
    return Corpus(train, valid, test, vocabulary)


def numbers_of(words: Iterable[str], vocabulary: tuple[str, ...]) -> np.ndarray:
    """The numbers of words, 1 for those that are not in the vocabulary."""
    index = {word: number for number, word in enumerate(vocabulary)}
    return np.array([index.get(word, 1) for word in words], np.int32)


def stream(sentences: list[Sentence], vocabulary: tuple[str, ...], batch_size: int) -> np.ndarray:
    """All sentences one after the other, with the end of each, in columns: [steps, batch]."""
    flat = numbers_of((word for sentence in sentences for word in (*sentence.words, END)), vocabulary)
    steps = len(flat) // batch_size
    if steps < 2:
        raise ValueError(f"{len(flat)} words are too few for {batch_size} columns")
    return flat[: steps * batch_size].reshape(batch_size, steps).T


def padded(
    sentences: list[Sentence], vocabulary: tuple[str, ...], size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers [b, size] (0 is padding), lengths [b] and charts [b, size, size] of sentences of up to ``size`` words."""
    numbers = np.zeros((len(sentences), size), np.int32)
    charts = np.zeros((len(sentences), size, size), bool)
    for row, sentence in enumerate(sentences):
        numbers[row, : len(sentence.words)] = numbers_of(sentence.words, vocabulary)
        for first, last in sentence.spans:
            charts[row, first, last] = True
    return numbers, np.array([len(sentence.words) for sentence in sentences], np.int32), charts
