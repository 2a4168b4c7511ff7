"""Texts as numbers of tokens, each with the place in the text that it stands for.

Offsets count characters of the text as it was given, so what a model finds is cut out of the text,
``text[start:end]``, and never put together from tokens: a vocabulary lacks characters, lower case loses capitals, and
``0.8807`` becomes ``0 . 880 ##7``.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from experiments.checkpoints import model_within
from experiments.files import write_atomically

BERT_WORDS = pre_tokenizers.BertPreTokenizer()
SPECIAL = {"pad": "[PAD]", "unknown": "[UNK]", "first": "[CLS]", "last": "[SEP]"}


class TokenError(ValueError):
    """A vocabulary that cannot be used; the message says where and why."""


class Tokens(NamedTuple):
    """A text, or two, in tokens."""

    ids: list[int]
    types: list[int]
    """0 for the first text and what surrounds it, 1 for the second."""
    offsets: list[tuple[int, int]]
    """First character and the one after the last, in the token's own text."""
    texts: list[int | None]
    """0 or 1: which text the token is from; None for those that are from none."""
    truncated: bool
    """Whether tokens were left out to keep to a length."""

    def span(self, start: int, end: int, text: int = 0) -> tuple[int, int] | None:
        """The first and the last token of the characters from ``start`` to before ``end``.

        None if they are cut off, or if no tokens begin and end exactly there.
        """
        inside = [i for i, which in enumerate(self.texts) if which == text and self.offsets[i][0] < self.offsets[i][1]]
        first = next((i for i in inside if self.offsets[i][0] == start), None)
        last = next((i for i in reversed(inside) if self.offsets[i][1] == end), None)
        return None if first is None or last is None or first > last else (first, last)


class Batch(NamedTuple):
    """Sentences of one length, filled up."""

    ids: np.ndarray
    mask: np.ndarray
    types: np.ndarray


class Tokenizer:
    """A vocabulary and how to cut texts into its tokens.

    Args:
      fast: a tokenizer of the package ``tokenizers``; truncation and padding are switched off.
      source: where it is from, for messages.
    """

    def __init__(self, fast: Fast, source: Path):
        fast.no_truncation()
        fast.no_padding()
        self._fast = fast
        self.source = source
        padding = [fast.token_to_id(token) for token in (SPECIAL["pad"], "<pad>")]
        self.padding_id = next((number for number in padding if number is not None), 0)

    @property
    def size(self) -> int:
        """One more than the greatest number of a token."""
        return 1 + max(self.vocabulary.values())

    @property
    def vocabulary(self) -> dict[str, int]:
        """The tokens with their numbers."""
        return self._fast.get_vocab(with_added_tokens=True)

    def encode(self, text: str, second: str | None = None, *, max_length: int | None = None) -> Tokens:
        """The tokens of a text, or of two, with those that the model wants around them.

        Args:
          text: may be empty: nothing is left but the surrounding tokens.
          second: a second text.
          max_length: how many tokens there may be; the longer text is cut first.

        Raises:
          ValueError: if those around the text are more than that.
        """
        if max_length is None:
            self._fast.no_truncation()
        else:
            least = self._fast.num_special_tokens_to_add(second is not None)
            if max_length < least:  # tokenizers would cut nothing at all
                raise ValueError(f"encode: max_length must be at least {least} here; got {max_length}")
            self._fast.enable_truncation(max_length)
        found = self._fast.encode(text) if second is None else self._fast.encode(text, second)
        return Tokens(found.ids, found.type_ids, found.offsets, found.sequence_ids, bool(found.overflowing))

    def batch(self, rows: Iterable[Tokens], length: int | None = None) -> Batch:
        """Arrays [b, t] of several texts, t being ``length`` or that of the longest."""
        rows = list(rows)
        length = max(len(row.ids) for row in rows) if length is None else length
        ids = np.full((len(rows), length), self.padding_id, np.int32)
        mask, types = np.zeros(ids.shape, bool), np.zeros(ids.shape, np.int32)
        for number, row in enumerate(rows):
            count = len(row.ids)
            ids[number, :count], types[number, :count], mask[number, :count] = row.ids, row.types, True
        return Batch(ids, mask, types)

    def save(self, directory: Path) -> None:
        """Writes ``tokenizer.json``, and ``vocab.txt`` if it is a vocabulary of pieces of words."""
        self._fast.no_truncation()
        write_atomically(directory / "tokenizer.json", lambda file: self._fast.save(str(file)))
        if isinstance(self._fast.model, models.WordPiece):
            ordered = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
            write_atomically(directory / "vocab.txt", "".join(token + "\n" for token in ordered).encode())

    def keep(self, tokens: list[str]) -> "Tokenizer":
        """The tokenizer of a smaller vocabulary, whose numbers are the places in ``tokens``."""
        state: dict[str, Any] = json.loads(self._fast.to_str())
        if state["model"]["type"] != "WordPiece":
            raise TokenError(f"{self.source}: only a vocabulary of pieces of words can be made smaller")
        check_tokens(tokens, self.source)
        state["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
        special = {SPECIAL[name]: tokens.index(SPECIAL[name]) for name in ("first", "last")}
        state["added_tokens"] = [
            token | {"id": tokens.index(token["content"])}
            for token in state["added_tokens"]
            if token["content"] in tokens
        ]
        for name, number in special.items():
            state["post_processor"]["special_tokens"][name]["ids"] = [number]
        return Tokenizer(Fast.from_str(json.dumps(state)), self.source)


def load(directory: Path) -> Tokenizer:
    """The tokenizer of a model's directory: of ``tokenizer.json``, else of ``vocab.txt``.

    Raises:
      TokenError: if neither is there, or what is there cannot be read.
    """
    whole, pieces = directory / "tokenizer.json", directory / "vocab.txt"
    if whole.is_file():
        try:
            found = Tokenizer(Fast.from_str(whole.read_text(encoding="utf-8")), whole)
            # Parts that name what is not there are found out by their use alone.
            found.encode("a")
            found.encode("a", "b")
            found.size  # noqa: B018
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # tokenizers raises Exception itself, and BaseException where it panics
            raise TokenError(f"{whole}: {error}") from error
        return found
    if not pieces.is_file():
        missing = "has neither tokenizer.json nor vocab.txt" if directory.is_dir() else "is no directory"
        raise TokenError(
            f"{directory} {missing}{model_within(directory)}: a model's directory has its tokenizer beside its weights"
        )
    options, settings = {}, directory / "tokenizer_config.json"
    if settings.is_file():
        try:
            options = dict(json.loads(settings.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise TokenError(f"{settings}: {error}") from error
    lower = options.get("do_lower_case", True)
    return from_vocabulary(pieces, lower_case=lower, strip_accents=options.get("strip_accents"))


def from_vocabulary(path: Path, *, lower_case: bool = True, strip_accents: bool | None = None) -> Tokenizer:
    """BERT's tokenizer from ``vocab.txt``, one token a line: Chinese characters one by one, pieces of other words.

    Args:
      path: the file, in UTF-8.
      lower_case: whether the vocabulary has no capitals.
      strip_accents: whether it has no accents; as ``lower_case`` by default.

    Raises:
      TokenError: if it is not UTF-8, a token is there twice, or one of ``[PAD] [UNK] [CLS] [SEP]`` is missing.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"{path}: {error}") from error
    tokens = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    return from_tokens(tokens, path, lower_case=lower_case, strip_accents=strip_accents)


def from_texts(texts: Iterable[str], source: Path) -> Tokenizer:
    """A tokenizer whose vocabulary is the words and the characters of some texts: for models that begin at random."""
    words = {word for text in texts for word, _ in BERT_WORDS.pre_tokenize_str(text.lower())}
    characters = {character for word in words for character in word}
    pieces = sorted(words | characters) + sorted("##" + character for character in characters)
    return from_tokens([*SPECIAL.values(), "[MASK]", *pieces], source)


def from_tokens(
    tokens: list[str], path: Path, *, lower_case: bool = True, strip_accents: bool | None = None
) -> Tokenizer:
    """As ``from_vocabulary``, from the tokens themselves; ``path`` is for messages."""
    check_tokens(tokens, path)
    numbers = {token: number for number, token in enumerate(tokens)}
    fast = Fast(models.WordPiece(numbers, unk_token=SPECIAL["unknown"], max_input_chars_per_word=100))
    fast.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lower_case
    )
    fast.pre_tokenizer = BERT_WORDS
    first, last = SPECIAL["first"], SPECIAL["last"]
    fast.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(token, numbers[token]) for token in (first, last)],
    )
    fast.decoder = decoders.WordPiece()
    fast.add_special_tokens([token for token in (*SPECIAL.values(), "[MASK]") if token in numbers])
    return Tokenizer(fast, path)


def check_tokens(tokens: list[str], source: Path) -> None:
    """Refuses a vocabulary with a token twice, or without one that every text needs."""
    seen: dict[str, int] = {}
    for number, token in enumerate(tokens, 1):
        if token in seen:
            raise TokenError(f"{source}: line {number} has {token!r} again, which line {seen[token]} has")
        seen[token] = number
    missing = [token for token in SPECIAL.values() if token not in seen]
    if missing:
        raise TokenError(f"{source} has no {', '.join(missing)}")
