"""ListOps of Nangia and Bowman (2018): nested lists of digits, and what their operators make of them.

An expression is with probability 1/4 an operator with 2 to 5 arguments, which are expressions, else a digit; the
outermost one is always an operator. The operators are the minimum, the maximum, the median (of an even number of
arguments the mean of the two in the middle, rounded down) and the sum modulo 10. A sentence is the list of tokens,
``[MAX 2 9 [MIN 4 7 ] 0 ]``, and its label the digit that it stands for. Expressions of more than 20 levels or 100
tokens are left out, and so are repetitions.

Reference: Nangia, Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", 2018, section 2.
https://arxiv.org/abs/1804.06028
"""

import random
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.onlstm import sentences
from experiments.onlstm.sentences import Examples

OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
END = "]"
DIGITS = tuple(map(str, range(10)))
TOKENS = ("<pad>", *DIGITS, *OPERATORS, END)
OPERATOR_SHARE = 1 / 4
MAXIMAL_ARGUMENTS = 5
MAXIMAL_LEVELS = 20
MAXIMAL_TOKENS = 100
# Levels are counted up to this: deeper expressions are in its bin.
MAXIMAL_BIN = 10
TRAIN_SHARE = 0.85


class Expression(NamedTuple):
    """A list as tokens separated by blanks, its value, and how many operators stand in one another at most."""

    text: str
    value: int
    levels: int


class TooLong(Exception):  # noqa: N818 (no error: such an expression is left out)
    """The expression has more levels or tokens than are wanted."""


def draw_expression(source: random.Random) -> Expression:
    """A random expression; see above.

    Raises:
      TooLong: if it is one of those that are left out.
    """
    tokens: list[str] = []

    def operation(level: int) -> tuple[int, int]:
        """Appends the tokens of an operator and its arguments; returns its value and its levels."""
        if level > MAXIMAL_LEVELS:
            raise TooLong
        operator = source.choice(tuple(OPERATORS))
        tokens.append(operator)
        values, below = [], 0
        for _ in range(source.randint(2, MAXIMAL_ARGUMENTS)):
            if source.random() < OPERATOR_SHARE:
                value, levels = operation(level + 1)
                below = max(below, levels)
            else:
                value = source.randrange(10)
                tokens.append(DIGITS[value])
            values.append(value)
        tokens.append(END)
        if len(tokens) > MAXIMAL_TOKENS:
            raise TooLong
        return OPERATORS[operator](values), below + 1

    value, levels = operation(1)
    return Expression(" ".join(tokens), value, levels)


def value_of(text: str) -> int:
    """The value of an expression, from its tokens.

    Raises:
      ValueError: if the text is no expression.
    """
    open_lists: list[tuple[str, list[int]]] = [("", [])]
    for token in text.split():
        if token in OPERATORS:
            open_lists.append((token, []))
        elif token in DIGITS:
            open_lists[-1][1].append(int(token))
        elif token == END and len(open_lists) > 1 and open_lists[-1][1]:
            operator, values = open_lists.pop()
            open_lists[-1][1].append(OPERATORS[operator](values))
        else:
            raise ValueError(f"no expression: {text!r}, for its {token!r}")
    if len(open_lists) != 1 or len(open_lists[0][1]) != 1:
        raise ValueError(f"no expression: {text!r}, which does not end as one")
    return open_lists[0][1][0]


def generate(seed: int, num_draws: int) -> tuple[list[Expression], list[Expression]]:
    """Training and test expressions, all different, 85 to 15 in each bin of levels."""
    source = random.Random(seed)
    bins: dict[int, dict[Expression, None]] = {}
    for _ in range(num_draws):
        try:
            expression = draw_expression(source)
        except TooLong:
            continue
        bins.setdefault(bin_of(expression), {})[expression] = None
    train, test = [], []
    for number in sorted(bins):
        expressions = list(bins[number])
        split = int(TRAIN_SHARE * len(expressions))
        train += expressions[:split]
        test += expressions[split:]
    return train, test


def bin_of(expression: Expression) -> int:
    """The levels of an expression, up to ``MAXIMAL_BIN``."""
    return min(expression.levels, MAXIMAL_BIN)


def encode(expressions: list[Expression]) -> Examples:
    """The arrays of some expressions: the label is the value, the bin the number of levels."""
    return sentences.encode(
        [(expression.text,) for expression in expressions],
        [expression.value for expression in expressions],
        [bin_of(expression) for expression in expressions],
        TOKENS,
    )
