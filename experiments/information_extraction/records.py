"""The records of a file, before anything is asked of them: JSON lines, one JSON array or object, CoNLL04's columns.

A record is read when it is asked for, so that a bad one is an error of its own.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from experiments.bert.data import encodable, json_of, reason_of

NEWLINE, BYTE_ORDER_MARK = b"\n", b"\xef\xbb\xbf"


def array_problem(content: bytes) -> str:
    """Why a file that begins as one JSON array is none, and in which line; nothing for other files."""
    if not content.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"["):
        return ""
    try:
        json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"; its JSON array is not UTF-8 in line {1 + content.count(NEWLINE, 0, error.start)}"
    except (ValueError, RecursionError) as error:
        return f"; its JSON array ends early: {reason_of(error)}"
    return ""


Records = Iterable[tuple[int, Callable[[], Any]]]
"""Numbers from 1 on, and what reads the record."""


def json_records(content: bytes) -> Records:
    """The entries of one JSON array or object; else the lines, each with a record."""
    whole = None
    with contextlib.suppress(ValueError, RecursionError):  # lines, or a file with a bad one
        whole = json.loads(content.decode("utf-8-sig"))
    if isinstance(whole, list):
        return [(number, lambda entry=entry: encodable(entry)) for number, entry in enumerate(whole, 1)]
    if isinstance(whole, dict) and not whole.keys() & {"text", "tokens"}:
        pairs = enumerate(whole.items(), 1)
        return [
            (n, lambda pair=pair: encodable(dict(zip(("text", "spo_list"), pair, strict=True)))) for n, pair in pairs
        ]
    lines = content.split(b"\n")
    return [
        (number, lambda line=line, number=number: json_line(line, number))
        for number, line in enumerate(lines, 1)
        if line.strip() or number < len(lines)  # the end of the last line is no line
    ]


def json_line(line: bytes, number: int) -> Any:
    """The record of a line."""
    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    if not text.strip():
        raise ValueError("empty")
    return json_of(text)


def conll(content: bytes) -> Records:
    """The texts of CoNLL04's columns; the number is that of the first line."""
    texts: list[tuple[int, list[bytes]]] = []
    for number, line in enumerate(content.removeprefix(BYTE_ORDER_MARK).split(b"\n"), 1):
        if line.startswith(b"#doc"):
            texts.append((number, []))
        elif line.strip():
            if not texts:
                texts.append((number, []))
            texts[-1][1].append(line)
    return [(number, lambda lines=lines: from_columns(lines)) for number, lines in texts]


#: In CoNLL04's columns: a number, or a word in quotation marks of either kind.
ENTRY = re.compile(r"""\s*(?:(-?\d{1,9})|'([^']*)'|"([^"]*)")\s*""")


def entries_of(text: str) -> list[str]:
    """The entries of a list as Python writes it, ``['Kill', 'Live_In']`` or ``[3, 12]``: nothing is evaluated."""
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f"predicates and heads must be lists in brackets; got {text[:80]!r}")
    found = [ENTRY.fullmatch(entry) for entry in text[1:-1].split(",")] if text[1:-1].strip() else []
    if not all(found):
        raise ValueError(f"a list must have numbers, or words in quotation marks; got {text[:80]!r}")
    return [next(part for part in match.groups() if part is not None) for match in found if match]


def from_columns(lines: list[bytes]) -> dict[str, Any]:
    """A record in JointER's shape from a text in columns: an entity is pointed at by any of its tokens."""
    rows = [line.decode("utf-8").rstrip("\r").split("\t") for line in lines]
    if any(len(row) != 5 for row in rows):
        raise ValueError("a row must have number, token, tag, predicates and heads, with tabs between them")
    entities: list[tuple[int, int, str]] = []
    for place, row in enumerate(rows):
        if row[2].startswith("I-") and entities and entities[-1][1] == place:
            entities[-1] = (entities[-1][0], place + 1, entities[-1][2])
        elif row[2] != "O":
            entities.append((place, place + 1, row[2][2:]))
    at = {place: entity for entity in entities for place in range(*entity[:2])}
    details = []
    for place, row in enumerate(rows):
        for predicate, head in zip(entries_of(row[3]), entries_of(row[4]), strict=True):
            if predicate != "N":
                if place not in at or int(head) not in at:
                    raise ValueError(f"{predicate} of tokens {place} and {head}, one of which is in no entity")
                details.append([*at[place], predicate, *at[int(head)]])
    return {"tokens": [row[1] for row in rows], "spo_details": details}
