"""Logical inference of Bowman et al. (2015): pairs of propositional formulas and how they stand to each other.

    python -m experiments.onlstm.logic_data --out directory    # writes train0 ... train12, test0 ... test12

A formula is drawn over four of six variables: with probability 4/9 an ``and`` or ``or`` of two smaller ones (half the
size, which starts at 12 and must be 2 at least), else a variable; each part is negated with probability 1/3. Pairs of
which one formula is always or never true are left out. Their relation is read off the 64 truth assignments.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tyro

from experiments.files import errors_told, write_atomically
from experiments.onlstm import sentences
from experiments.onlstm.sentences import Examples

RELATIONS = "=<>^|v#"
VARIABLES = "abcdef"
TOKENS = ("<pad>", "(", ")", "and", "or", "not", *VARIABLES)
TOKEN_SET = frozenset(TOKENS[1:])
OPERATORS = {"and", "or", "not"}
MAXIMAL_BIN = 12
TRUE = 2**64 - 1
# Bit w of a variable's truth table: whether it is true in assignment w.
TRUTH = {name: sum(1 << world for world in range(64) if world >> bit & 1) for bit, name in enumerate(VARIABLES)}
TRAIN_SHARE = 0.85

Formula = str | tuple["Formula", ...]


class Pair(NamedTuple):
    """Two formulas as token strings, and their relation."""

    relation: str
    first: str
    second: str

    def num_operators(self) -> int:
        """Operators of the formula that has more, but at most 12: the length that pairs are sorted by."""
        counts = (sum(token in OPERATORS for token in side.split()) for side in (self.first, self.second))
        return min(max(counts), MAXIMAL_BIN)


def draw_formula(source: random.Random, variables: list[str], size: int) -> Formula:
    """A random formula; see above."""
    operator = source.choice(("and", "or", "and", "or", None, None, None, None, None))
    if operator is None or size < 2:
        formula: Formula = source.choice(variables)
    else:
        left, right = (draw_formula(source, variables, size // 2) for _ in range(2))
        formula = (left, operator, right)
    return ("not", formula) if source.random() < 1 / 3 else formula


def text_of(formula: Formula) -> str:
    """The formula with all its brackets, as the original data has it: ``( a ( and ( not b ) ) )``."""
    if isinstance(formula, str):
        return formula
    if len(formula) == 2:
        return f"( not {text_of(formula[1])} )"
    left, operator, right = formula
    return f"( {text_of(left)} ( {operator} {text_of(right)} ) )"


def truth_of(text: str) -> int:
    """The truth table of a formula: bit w is its value in assignment w.

    Raises:
      ValueError: if the text is no formula.
    """
    tokens = text.split()[::-1]

    def formula() -> int:
        token = tokens.pop()
        if token != "(":
            return TRUTH[token]
        if tokens[-1] == "not":
            tokens.pop()
            value = TRUE ^ formula()
        else:
            left = formula()
            if tokens.pop() != "(":
                raise ValueError
            operator = tokens.pop()
            right = formula()
            value = {"and": left & right, "or": left | right}[operator]
            close()
        close()
        return value

    def close() -> None:
        if tokens.pop() != ")":
            raise ValueError

    try:
        value = formula()
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"no formula: {text!r}") from error
    if tokens:
        raise ValueError(f"no formula: {text!r} goes on after its end")
    return value


def relation_of(first: int, second: int) -> str:
    """How two truth tables stand to each other: one of ``RELATIONS``.

    Equivalence, forward and backward entailment, negation, alternation, cover; independence where none of them holds.
    """
    both, neither = bool(first & second), bool(TRUE & ~(first | second))
    only_first, only_second = bool(first & ~second), bool(second & ~first)
    table = {
        (True, False, False, True): "=",
        (True, False, True, True): "<",
        (True, True, False, True): ">",
        (False, True, True, False): "^",
        (False, True, True, True): "|",
        (True, True, True, False): "v",
    }
    return table.get((both, only_first, only_second, neither), "#")


def draw_pairs(seed: int, num_draws: int) -> Iterator[Pair]:
    """Pairs in the order they are drawn, repetitions included."""
    source = random.Random(seed)
    drawn = 0
    while drawn < num_draws:
        variables = source.sample(VARIABLES, 4)
        texts = [text_of(draw_formula(source, variables, 12)) for _ in range(2)]
        truths = [truth_of(text) for text in texts]
        if all(0 < truth < TRUE for truth in truths):
            drawn += 1
            yield Pair(relation_of(*truths), *texts)


def generate(seed: int, num_draws: int) -> tuple[list[Pair], list[Pair]]:
    """Training and test pairs, all different, 85 to 15 in each bin of operators."""
    bins: list[dict[Pair, None]] = [{} for _ in range(MAXIMAL_BIN + 1)]
    for pair in draw_pairs(seed, num_draws):
        bins[pair.num_operators()][pair] = None
    train, test = [], []
    for pairs in map(list, bins):
        split = int(TRAIN_SHARE * len(pairs))
        train += pairs[:split]
        test += pairs[split:]
    return train, test


def read(path: Path) -> list[Pair]:
    """The pairs of one file of the original format: relation, first, second, separated by tabs."""
    pairs = []
    for number, line in enumerate(sentences.lines_of(path), 1):
        fields = line.split("\t")
        if len(fields) != 3 or fields[0] not in tuple(RELATIONS):
            raise ValueError(f"{path}, line {number}: a relation and two formulas are wanted; got {line[:80]!r}")
        if not all(side.split() and TOKEN_SET.issuperset(side.split()) for side in fields[1:]):
            allowed = " ".join(TOKENS[1:])
            raise ValueError(f"{path}, line {number}: formulas are made of {allowed}; got {line[:80]!r}")
        pairs.append(Pair(*fields))
    return pairs


def load(directory: Path) -> tuple[list[Pair], list[Pair]]:
    """Training and test pairs of the files ``train0`` ... ``test12`` of a directory."""
    return tuple(
        [pair for number in range(MAXIMAL_BIN + 1) for pair in read(directory / f"{part}{number}")]
        for part in ("train", "test")
    )  # pyright: ignore[reportReturnType]


def encode(pairs: list[Pair]) -> Examples:
    """The arrays of some pairs: the label is the relation, the bin the number of operators."""
    return sentences.encode(
        [(pair.first, pair.second) for pair in pairs],
        [RELATIONS.index(pair.relation) for pair in pairs],
        [pair.num_operators() for pair in pairs],
        TOKENS,
    )


@dataclass(frozen=True)
class Config:
    """Settings of the generator."""

    out: Path
    """Directory for the files."""
    seed: int = 0
    """Of the draws."""
    num_draws: int = 500_000
    """Pairs that are drawn, before repetitions are left out."""


def main(config: Config) -> None:
    """Writes the files."""
    for part, pairs in zip(("train", "test"), generate(config.seed, config.num_draws), strict=True):
        for number in range(MAXIMAL_BIN + 1):
            lines = ["\t".join(pair) + "\n" for pair in pairs if pair.num_operators() == number]
            write_atomically(config.out / f"{part}{number}", "".join(lines).encode())


if __name__ == "__main__":
    with errors_told():
        main(tyro.cli(Config, description=__doc__))
