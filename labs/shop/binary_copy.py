"""Rows in the binary format of PostgreSQL's COPY, made by numpy without a Python loop over them.

A row is the number of its fields (int16) and, for each, the length (int32) and the bytes, all big-endian.
Source: https://www.postgresql.org/docs/18/sql-copy.html, "Binary Format".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # the signature, no flags, no extension
TRAILER = b"\xff\xff"
EPOCH = 946_684_800  # PostgreSQL counts time from 2000-01-01; this is that moment in Unix seconds

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Field:
    """One column: `data` holds a row of bytes for each value, of which the first `lengths` count."""

    data: Bytes
    lengths: Integers


def _fixed(data: Bytes) -> Field:
    return Field(data, np.full(len(data), data.shape[1], dtype=np.int64))


def _big_endian(values: Integers, size: int) -> Bytes:
    return values.astype(f">i{size}").view(np.uint8).reshape(-1, size)


def bigints(values: Integers) -> Field:
    """A column of type bigint."""
    return _fixed(_big_endian(values, 8))


def integers(values: Integers) -> Field:
    """A column of type integer."""
    return _fixed(_big_endian(values, 4))


def timestamps(seconds: Integers) -> Field:
    """A column of type timestamptz, from Unix seconds."""
    return bigints((seconds - EPOCH) * 1_000_000)


def uuids(random: Bytes) -> Field:
    """A column of type uuid: 16 random bytes a row, marked as version 4 (RFC 9562, section 5.4)."""
    marked = random.copy()
    marked[:, 6] = marked[:, 6] & 0x0F | 0x40
    marked[:, 8] = marked[:, 8] & 0x3F | 0x80
    return _fixed(marked)


def words(vocabulary: Sequence[str], choice: Integers) -> Field:
    """A column of type text whose values are `vocabulary[choice]`."""
    encoded = [word.encode() for word in vocabulary]
    padded = np.array(encoded).view(np.uint8).reshape(len(encoded), -1)
    lengths = np.array([len(word) for word in encoded])
    return Field(padded[choice], lengths[choice])


def hexadecimal(prefix: str, random: Bytes) -> Field:
    """A column of type text: the prefix, then the random bytes in hexadecimal."""
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    halves = np.stack([random >> 4, random & 0x0F], axis=2).reshape(len(random), -1)
    heads = np.tile(np.frombuffer(prefix.encode(), dtype=np.uint8), (len(random), 1))
    return _fixed(np.hstack([heads, digits[halves]]))


def nulls(count: int) -> Field:
    """A column of any type, with nothing in it."""
    return Field(np.zeros((count, 0), dtype=np.uint8), np.full(count, -1, dtype=np.int64))


def rows(*fields: Field) -> bytes:
    """The rows made of these columns, all of the same number of values."""
    count = len(fields[0].data)
    blocks = [_big_endian(np.full(count, len(fields)), 2)]
    kept = [np.ones((count, 2), dtype=bool)]
    for field in fields:
        blocks += [_big_endian(field.lengths, 4), field.data]
        kept += [np.ones((count, 4), dtype=bool), np.arange(field.data.shape[1]) < field.lengths[:, None]]
    kept_bytes: Bytes = np.hstack(blocks)[np.hstack(kept)]
    return kept_bytes.tobytes()
