"""What can go wrong with a file: with its bytes, or with the values of JSON in it."""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Damage = Callable[[bytes], bytes]
Inside = Callable[[Damage, random.Random], bytes]


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of file."""

    name: str
    file: str
    content: Callable[[], bytes]
    """One that is right."""
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...]
    """What the reader documents."""
    others: Callable[[], dict[str, bytes]] = dict
    """Files that must stand beside it."""
    inside: Inside | None = None
    """The file after damage behind its checksums or its compression, or to what it says rather than to its bytes."""

    def prepare(self, directory: Path) -> None:
        """Writes the file that is right, and those beside it."""
        for name, content in {**self.others(), self.file: self.content()}.items():
            (directory / name).write_bytes(content)


NUMBERS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
PIECES = (b"\0", b"\xff", b"\xed\xa0\x80", b"\n", b"\r\n", b"\t", b" ", b'"', b"'", b"\\", b"\\ud800", b"-1", b"1e999")
PIECES += (b"[/b]", b"NaN", b"null", b"true", b"9" * 5_000, b"{}", b"[]", b"()", b"[UNK]", b"\xef\xbb\xbf")
OPENING = (b"[", b"(", b'{"a":', b"-", b"( a ( and ", b"not ")


def once(content: bytes, source: random.Random) -> bytes:
    """The content with one thing wrong, mostly a small one."""
    at = source.randrange(len(content) + 1)
    end = min(len(content), at + source.choice((1, 1, 2, 4, 8, 64, len(content))))
    before, part, after = content[:at], content[at:end], content[end:]
    match source.randrange(9):
        case 0:
            return before + bytes(byte ^ 1 << source.randrange(8) for byte in part[:1]) + content[at + 1 :]
        case 1:
            return before + source.randbytes(len(part)) + after
        case 2:
            return before + after
        case 3:
            return before + part + part + after
        case 4:
            other = source.randrange(len(after) + 1)
            return before + after[:other] + part + after[other:]
        case 5:
            return before if source.random() < 0.2 else content[:-1]
        case 6:
            return before + source.choice(PIECES) + source.choice((after, part + after))
        case 7:
            size, order = source.choice("BHIQ"), source.choice("<>")
            number = source.choice(NUMBERS) % 2 ** (8 * struct.calcsize(size))
            return before + struct.pack(order + size, number) + content[at + struct.calcsize(size) :]
        case _:
            return before + source.choice(OPENING) * source.choice((1, 30, 2_000)) + content[at:]


VALUES = (None, True, 0, -1, 1.5, 2**31, 2**63, 10**400, 1e308, float("nan"), "", " ", "cat", "[/b]", "\0", "\ud800")
VALUES += ("x" * 9_000,)
VALUES += ([], {}, [[]], [0], [None] * 3, ["cat", "of", "dog"], {"": ""}, {"@value": "dog"}, {"text": None})


def changed(value: Any, source: random.Random) -> Any:
    """A value of JSON with one place in it taken away, doubled, or given another value."""
    inner = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    if not inner or source.random() < 0.15:
        return source.choice(VALUES)
    place: Any = source.choice(inner)
    copy: Any = value.copy()
    match source.randrange(8):
        case 0:
            del copy[place]
        case 1 if isinstance(copy, list):
            copy.append(copy[place])
        case 1:
            copy[source.choice([*copy, "text", "tokens", "spo_list"])] = copy.pop(place)
        case _:
            copy[place] = changed(copy[place], source)
    return copy


def damaged(kind: Kind, source: random.Random) -> bytes:
    """The file with one to four things wrong."""

    def damage(content: bytes) -> bytes:
        for _ in range(source.choice((1, 1, 1, 2, 3, 4))):
            content = once(content, source)
        return content

    if kind.inside is not None and source.random() < 0.6:
        return kind.inside(damage, source)
    return damage(kind.content())


def json_inside(*records: Any) -> Inside:
    """Lines of JSON with other values in them."""

    def lines(_: Damage, source: random.Random) -> bytes:
        which = source.randrange(len(records))
        return b"".join(
            json.dumps(changed(record, source) if number == which else record).encode() + b"\n"
            for number, record in enumerate(records)
        )

    return lines
