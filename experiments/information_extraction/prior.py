"""Remote supervision: the triples of the training texts whose subject and object both stand in a text.

As a prediction it is a table to look things up in, which learns nothing; as two maps over the units it is an input of
the model. For a training text the triples that it alone has are left out: else the input would hold the answer.

Reference: Su, https://kexue.fm/archives/6671, 2019 (its section on prior features).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from experiments.information_extraction.data import Triple
from experiments.information_extraction.units import Row

#: Of a text, at most: those whose parts stand nearest to each other.
MOST = 64


class Table(NamedTuple):
    """How many training texts have each triple."""

    counts: dict[tuple[str, str], dict[str, int]]
    """By subject and object, then by predicate."""
    names: frozenset[str]
    """Subjects and objects."""

    @classmethod
    def of(cls, texts: Iterable[Iterable[Triple]]) -> "Table":
        """The table of the triples of some texts."""
        counts: dict[tuple[str, str], dict[str, int]] = defaultdict(Counter)
        for triples in texts:
            for subject, predicate, thing in set(triples):
                counts[subject, thing][predicate] += 1
        return cls(dict(counts), frozenset(name for pair in counts for name in pair))

    def look_up(self, text: str, row: Row, without: Iterable[Triple] = ()) -> list[tuple[int, int, str, int, int]]:
        """The known triples of a text: units of the subject, predicate, units of the object.

        Args:
          text: where their parts are to stand.
          row: its units; a part must begin and end with one.
          without: triples of this text that are counted in the table, each once.
        """
        longest = max(map(len, self.names), default=0)
        excluded = set(without)
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for first in np.nonzero(row.inside)[0].tolist():
            for last in range(first, len(row.offsets)):
                start, end = row.offsets[first][0], row.offsets[last][1]
                if not row.inside[last] or end - start > longest:
                    break
                if text[start:end] in self.names:
                    found[text[start:end]].append((first, last))
        entries = []
        for subject in found:
            for thing in found:
                for predicate, count in self.counts.get((subject, thing), {}).items():
                    if count > ((subject, predicate, thing) in excluded):
                        entries += [(a, b, predicate, c, d) for a, b in found[subject] for c, d in found[thing]]
        return sorted(entries, key=lambda entry: (abs(entry[0] - entry[3]), entry))[:MOST]
