"""CRC-32C, the checksum of TensorFlow's checkpoints, many bytes at a time.

A checksum is linear over bits: that of a file is the sum (exclusive or) of those of its parts, each carried over the
zeros that stand for the parts after it. So the file is cut into lanes of one length, whose checksums are computed side
by side, and then joined in pairs.
"""

import numpy as np

POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
MASK_DELTA = 0xA282EAD8


def _table() -> np.ndarray:
    """What a byte adds to the checksum, for every byte."""
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ np.uint32(POLYNOMIAL), values >> 1)
    return values


TABLE = _table()
TABLE_LIST = TABLE.tolist()


def _apply(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A linear map of 32 bits, given by what it makes of each bit, on many numbers."""
    result = np.zeros_like(values)
    for bit, column in enumerate(columns):
        result ^= np.where(values >> np.uint32(bit) & 1, column, np.uint32(0))
    return result


def _zeros(num_bytes: int) -> np.ndarray:
    """The linear map of ``num_bytes`` zero bytes, as what it makes of each bit."""
    power = np.uint32(1) << np.arange(32, dtype=np.uint32)
    result, power = power, TABLE[power & 255] ^ power >> 8
    while num_bytes:
        if num_bytes & 1:
            result = _apply(power, result)
        power, num_bytes = _apply(power, power), num_bytes >> 1
    return result


def crc32c(content: bytes) -> int:
    """The CRC-32C of some bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    lanes = 2 ** ((len(content) // 64).bit_length() // 2)
    length = len(content) // lanes
    value = 0xFFFFFFFF
    if lanes > 1:
        rows = np.frombuffer(content, np.uint8, lanes * length).reshape(lanes, length)
        columns = np.ascontiguousarray(rows.T)
        values = np.zeros(lanes, np.uint32)
        values[0] = value
        for column in columns:
            values = TABLE[(values ^ column) & 255] ^ values >> 8
        zeros = _zeros(length)
        while len(values) > 1:
            values = _apply(zeros, values[::2]) ^ values[1::2]
            zeros = _apply(zeros, zeros)
        value = int(values[0])
    for byte in content[lanes * length if lanes > 1 else 0 :]:
        value = TABLE_LIST[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF


def masked(value: int) -> int:
    """A checksum as it is stored: rotated and shifted, so that no checksum of checksums is trivial."""
    return ((value >> 15 | value << 17) + MASK_DELTA) & 0xFFFFFFFF
