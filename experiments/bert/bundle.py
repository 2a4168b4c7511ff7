"""TensorFlow's checkpoints (``name.index`` and ``name.data-00000-of-00001``) read and written without TensorFlow.

The index is a sorted table in LevelDB's format: blocks of keys that share prefixes, each with a checksum, and a footer
that tells where the block of blocks is. Its values are small protocol buffers: a header under the empty key, and for
each tensor its type, shape, file, place and checksum. The data files hold the bytes, little-endian.

What is read may come from anywhere: every length is checked against what there is before it is used, and whatever is
wrong is a ``CheckpointError`` that names the file.

Reference: ``tensorflow/core/protobuf/tensor_bundle.proto`` and LevelDB's ``doc/table_format.md``.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.bert.checksum import crc32c, masked
from experiments.files import write_atomically

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two places of up to 20, filled up, and the magic number
TRAILER = 5  # bytes: how the block is compressed, and its checksum
RESTART = 16  # keys between two that are written whole
#: TensorFlow's numbers of types; strings, and what no weight has, are left out.
TYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    14: np.dtype(jnp.bfloat16),
    19: np.dtype("<f2"),
}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or not into this model; the message says where and why."""


class Entry(NamedTuple):
    """Where a tensor is."""

    type_number: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


class Bundle:
    """The tensors of a checkpoint, by name.

    Args:
      prefix: the path of its files up to ``.index``, such as ``chinese_L-12_H-768_A-12/bert_model.ckpt``.

    Raises:
      CheckpointError: if the index is not there, cut off or damaged.
    """

    def __init__(self, prefix: Path):
        self.prefix = prefix
        self._index = prefix.with_name(prefix.name + ".index")
        try:
            content = self._index.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{self._index}: {error.strerror}") from error
        try:
            items = dict(table_items(content))
            self._num_shards = header_shards(items.pop(b"", None))
            self.entries = {name.decode(): parse_entry(value) for name, value in items.items()}
        except (CheckpointError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self._index}: {error}") from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor, its checksum verified.

        Raises:
          CheckpointError: if it is not there, of a type that no array has, in slices, cut off or damaged.
        """
        if name not in self.entries:
            raise CheckpointError(f"{self._index}: no tensor {name!r}")
        entry = self.entries[name]
        path = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self._num_shards:05d}")
        where = f"{path}: tensor {name!r}"
        if entry.sliced:
            raise CheckpointError(f"{where} is stored in slices, which are not supported")
        dtype = TYPES.get(entry.type_number)
        if dtype is None:
            raise CheckpointError(f"{where} has TensorFlow's type {entry.type_number}; allowed: {sorted(TYPES)}")
        if math.prod(entry.shape) * dtype.itemsize != entry.size:
            raise CheckpointError(f"{where} has shape {list(entry.shape)} of {dtype}, but {entry.size} bytes")
        if entry.shard >= self._num_shards:
            raise CheckpointError(f"{where} is in file {entry.shard} of {self._num_shards}")
        try:
            with path.open("rb") as file:
                available = file.seek(0, 2)
                if entry.offset + entry.size > available:
                    end = entry.offset + entry.size
                    raise CheckpointError(f"{where} ends at byte {end}, and the file has {available}")
                file.seek(entry.offset)
                content = file.read(entry.size)
        except OSError as error:
            raise CheckpointError(f"{where}: {error.strerror}") from error
        if masked(crc32c(content)) != entry.checksum:
            raise CheckpointError(f"{where} has another checksum than the index says: the file is damaged")
        return np.frombuffer(content, dtype).reshape(entry.shape)


def table_items(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a sorted table."""
    if len(content) < FOOTER:
        raise CheckpointError(f"{len(content)} bytes are too few for a checkpoint's index: the file is cut off")
    footer = content[-FOOTER:]
    if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise CheckpointError("the last bytes are not those of a checkpoint's index: it is another file, or cut off")
    _, start = read_place(footer, 0)
    index, _ = read_place(footer, start)
    previous = None
    for _, value in block_items(block(content, *index)):
        place, _ = read_place(value, 0)
        for key, item in block_items(block(content, *place)):
            if previous is not None and key <= previous:
                raise CheckpointError(f"key {key!r} comes after {previous!r}: the keys must increase")
            previous = key
            yield key, item


def block(content: bytes, offset: int, size: int) -> bytes:
    """The block at a place of a table, its checksum verified."""
    if offset + size + TRAILER > len(content) - FOOTER:
        raise CheckpointError(f"a block of {size} bytes at byte {offset} reaches beyond the end")
    body = content[offset : offset + size]
    kind, checksum = struct.unpack("<BI", content[offset + size : offset + size + TRAILER])
    if masked(crc32c(content[offset : offset + size + 1])) != checksum:
        raise CheckpointError(f"the block at byte {offset} has another checksum than it says: the file is damaged")
    if kind != 0:
        name = "Snappy, which is not supported" if kind == 1 else f"an unknown method ({kind})"
        raise CheckpointError(f"the block at byte {offset} is compressed by {name}")
    return body


def block_items(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block: each key as far as it differs from the one before."""
    if len(body) < 4:
        raise CheckpointError("a block without an end")
    end = len(body) - 4 - 4 * struct.unpack("<I", body[-4:])[0]
    if end < 0:
        raise CheckpointError("a block with more restarts than bytes")
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(body, position)
        rest, position = read_varint(body, position)
        size, position = read_varint(body, position)
        if shared > len(key) or position + rest + size > end:
            raise CheckpointError("an entry of a block reaches beyond its end")
        key = key[:shared] + body[position : position + rest]
        position += rest
        yield key, body[position : position + size]
        position += size


def read_varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            raise CheckpointError("a number is cut off")
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise CheckpointError("a number of more than 64 bits")


def read_place(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where they end."""
    offset, position = read_varint(content, position)
    size, position = read_varint(content, position)
    return (offset, size), position


def message_fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer: numbers, or bytes."""
    position = 0
    while position < len(content):
        tag, position = read_varint(content, position)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = read_varint(content, position)
        else:
            if kind == 2:
                size, position = read_varint(content, position)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise CheckpointError(f"field {field} of a message is of unknown kind {kind}")
            if position + size > len(content):
                raise CheckpointError(f"field {field} of a message is cut off")
            value = content[position : position + size]
            position += size
            if kind != 2:
                value = int.from_bytes(value, "little")
        yield field, value


def header_shards(content: bytes | None) -> int:
    """The number of data files, from the header."""
    if content is None:
        raise CheckpointError("no header")
    fields = dict(message_fields(content))
    num_shards = number(fields.get(1, 0))
    if number(fields.get(2, 0)) != 0:
        raise CheckpointError("the tensors are big-endian, which is not supported")
    if not 1 <= num_shards <= 99_999:
        raise CheckpointError(f"{num_shards} data files; allowed: 1 to 99,999")
    return num_shards


def parse_entry(content: bytes) -> Entry:
    """Where a tensor is, from its entry in the index."""
    values: dict[int, Any] = {}
    for field, value in message_fields(content):
        values[field] = value
    shape = []
    for field, value in message_fields(text(values.get(2, b""))):
        if field == 3 and value:
            raise CheckpointError("a tensor of unknown rank")
        if field == 2:
            size = number(dict(message_fields(text(value))).get(1, 0))
            if size >= 2**63:
                raise CheckpointError("a tensor of negative size")
            shape.append(size)
    if len(shape) > 32:
        raise CheckpointError(f"a tensor of {len(shape)} axes")
    type_number, shard, offset, size, checksum = (number(values.get(field, 0)) for field in (1, 3, 4, 5, 6))
    return Entry(type_number, tuple(shape), shard, offset, size, checksum, 7 in values)


def number(value: Any) -> int:
    """A field that must be a number."""
    if not isinstance(value, int):
        raise CheckpointError("bytes where a number must be")
    return value


def text(value: Any) -> bytes:
    """A field that must be bytes."""
    if not isinstance(value, bytes):
        raise CheckpointError("a number where bytes must be")
    return value


def write(prefix: Path, tensors: Mapping[str, np.ndarray], *, block_bytes: int = 4096) -> None:
    """Writes a checkpoint that this module and TensorFlow read.

    Args:
      prefix: the path of its files up to ``.index``.
      tensors: arrays of a type of TYPES, by name.
      block_bytes: how full a block of the index gets.
    """
    numbers = {dtype: type_number for type_number, dtype in TYPES.items()}
    # One data file, little-endian, and version 1 of the format.
    items = [(b"", write_field(1, 1) + write_field(3, write_field(1, 1)))]

    def write_data(path: Path) -> None:
        with path.open("wb") as data:
            for name in sorted(tensors, key=str.encode):
                array = np.ascontiguousarray(tensors[name])
                if array.dtype.newbyteorder("<") not in numbers and array.dtype not in numbers:
                    raise ValueError(f"write: {name} has type {array.dtype}; allowed: {', '.join(map(str, numbers))}")
                shape = b"".join(write_field(2, write_field(1, size)) for size in tensors[name].shape)
                content = array.tobytes()
                entry = write_field(1, numbers[array.dtype]) + write_field(2, shape)
                entry += write_field(4, data.tell()) + write_field(5, len(content))
                entry += bytes([6 << 3 | 5]) + struct.pack("<I", masked(crc32c(content)))
                data.write(content)
                items.append((name.encode(), entry))

    write_atomically(prefix.with_name(prefix.name + ".data-00000-of-00001"), write_data)
    write_atomically(prefix.with_name(prefix.name + ".index"), write_table(items, block_bytes))


def write_table(items: list[tuple[bytes, bytes]], block_bytes: int) -> bytes:
    """A sorted table of keys and values that increase."""
    content, places, group = b"", [], []
    for position, item in enumerate(items):
        group.append(item)
        full = sum(len(key) + len(value) for key, value in group) >= block_bytes
        if full or position == len(items) - 1:
            content, place = append_block(content, write_block(group))
            places.append((group[-1][0], place))
            group = []
    content, empty = append_block(content, write_block([]))
    content, index = append_block(content, write_block(places))
    return content + (empty + index).ljust(FOOTER - 8, b"\0") + struct.pack("<Q", MAGIC)


def append_block(content: bytes, body: bytes) -> tuple[bytes, bytes]:
    """A table with one more block, and the place of that block."""
    place = write_varint(len(content)) + write_varint(len(body))
    body += b"\0"  # not compressed
    return content + body + struct.pack("<I", masked(crc32c(body))), place


def write_block(items: list[tuple[bytes, bytes]]) -> bytes:
    """A block: keys as far as they differ from the one before, whole at every restart."""
    content, restarts, previous = b"", [], b""
    for position, (key, value) in enumerate(items):
        shared = 0
        if position % RESTART == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        sizes = b"".join(write_varint(size) for size in (shared, len(key) - shared, len(value)))
        content += sizes + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def write_varint(value: int) -> bytes:
    """A number, seven bits a byte."""
    parts = []
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def write_field(field: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return write_varint(field << 3) + write_varint(value)
    return write_varint(field << 3 | 2) + write_varint(len(value)) + value
