"""Triples that a text may have, with what each depends on: from them any threshold's triples follow without the model.

A span begins where a start is probable enough, and ends at the first end from there on that is. So it is taken if its
start and its end are above the threshold, and no end between them is.
"""

from typing import NamedTuple

import numpy as np


class Candidates(NamedTuple):
    """Of one text."""

    triples: np.ndarray
    """First and last unit of the subject, predicate, first and last unit of the object, [n, 5]."""
    probabilities: np.ndarray
    """Of the subject's start, of its end, the largest of an end before that; the same of the object, [n, 6]."""

    def taken(self, subject: float, thing: float) -> np.ndarray:
        """Which are triples if probabilities of subjects and of objects must be above these, [n]."""
        bounds = np.array([subject, subject, subject, thing, thing, thing])
        above = self.probabilities > bounds
        return above[:, 0] & above[:, 1] & ~above[:, 2] & above[:, 3] & above[:, 4] & ~above[:, 5]

    def scores(self) -> np.ndarray:
        """The probability of each triple: the product of those of its four bounds, [n]."""
        return self.probabilities[:, [0, 1, 3, 4]].prod(1)


def first_ends(probabilities: np.ndarray, start: int, low: float) -> list[tuple[int, int, list[float]]]:
    """The spans from ``start`` whose end is the first one above some threshold from ``low`` on.

    Args:
      probabilities: of starts and of ends, [t, 2].
      start: the first unit.
      low: the lowest threshold.

    Returns:
      First and last unit, and three probabilities: of start, of end, and the largest of an end before it.
    """
    found, before = [], 0.0
    for end in range(start, len(probabilities)):
        chance = float(probabilities[end, 1])
        if chance > max(before, low):
            found.append((start, end, [float(probabilities[start, 0]), chance, before]))
        before = max(before, chance)
    return found
