"""Protobuf's wire format, as far as a trace needs it: messages one by one, and equal ones at once.

A trace has millions of events of a dozen shapes. So each shape is built as one table of bytes, a row for each
event; numbers that differ are varints of one width (a varint may have leading zeros). Left out: reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

VARINT, FIXED64, BYTES = 0, 1, 2  # wire types
SEVEN = 0x7F
MORE = 0x80
Rows = np.ndarray[Any, np.dtype[np.uint8]]


def varint(value: int) -> bytes:
    """Give a whole number, not negative."""
    found = bytearray()
    while value > SEVEN:
        found.append(value & SEVEN | MORE)
        value >>= 7
    return bytes([*found, value])


def number(field: int, value: int) -> bytes:
    """Give a field with a whole number."""
    return varint(field << 3 | VARINT) + varint(value)


def message(field: int, *content: bytes) -> bytes:
    """Give a field with a message that consists of these fields."""
    data = b"".join(content)
    return varint(field << 3 | BYTES) + varint(len(data)) + data


def text(field: int, value: str) -> bytes:
    """Give a field with a text."""
    return message(field, value.encode())


def width(values: np.ndarray) -> int:
    """Give how many bytes the largest of these numbers takes as a varint."""
    return len(varint(int(values.max(initial=0))))


def column(field: int, values: np.ndarray) -> Rows:
    """Give a field with a whole number for each row."""
    tag, bytes_each = varint(field << 3 | VARINT), width(values)
    found = np.empty((len(values), len(tag) + bytes_each), np.uint8)
    found[:, : len(tag)] = list(tag)
    for i in range(bytes_each):
        more = MORE if i + 1 < bytes_each else 0
        found[:, len(tag) + i] = (values >> (7 * i)) & SEVEN | more
    return found


def fixed_columns(field: int, values: np.ndarray) -> Rows:
    """Give, for each row of a table, a field with 64 bits for each of its columns."""
    rows, columns = values.shape
    tag = varint(field << 3 | FIXED64)
    found = np.empty((rows, columns, len(tag) + 8), np.uint8)
    found[:, :, : len(tag)] = list(tag)
    found[:, :, len(tag) :] = np.ascontiguousarray(values, "<u8").view(np.uint8).reshape(rows, columns, 8)
    return found.reshape(rows, -1)


def constant(count: int, data: bytes) -> Rows:
    """Give the same bytes for so many rows."""
    return np.broadcast_to(np.frombuffer(data, np.uint8), (count, len(data)))


def messages(field: int, count: int, *columns: Rows) -> Rows:
    """Give a field with a message for each row, which consists of these columns."""
    size = sum(one.shape[1] for one in columns)
    return np.hstack([constant(count, varint(field << 3 | BYTES) + varint(size)), *columns])


def interleaved(pieces: Sequence[tuple[np.ndarray, Rows]], count: int) -> bytes:
    """Give tables as one run of bytes: each has, for its rows, their places among all `count` of them."""
    sizes = np.zeros(count, np.int64)
    for places, rows in pieces:
        sizes[places] = rows.shape[1]
    starts = np.cumsum(sizes) - sizes
    found = np.empty(int(sizes.sum()), np.uint8)
    for places, rows in pieces:
        for i in range(rows.shape[1]):
            found[starts[places] + i] = rows[:, i]
    return found.tobytes()
