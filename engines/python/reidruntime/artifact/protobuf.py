"""Protobuf's wire format, read field by field without a schema or a package."""

import mmap
from collections.abc import Iterator

Data = mmap.mmap | bytes
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class MalformedError(Exception):
    """The bytes are not protobuf, or end in the middle of a field."""


def text_of(data: Data, value: int | range) -> str:
    """A string field's text; raises UnicodeDecodeError where it is not UTF-8."""
    span = span_of(value)
    return data[span.start : span.stop].decode()


def span_of(value: int | range) -> range:
    """Where the bytes of a field are; raises MalformedError for a number."""
    if isinstance(value, int):
        raise MalformedError("a number where a message is expected")
    return value


def fields(data: Data, span: range) -> Iterator[tuple[int, int | range]]:
    """Field number and value of every field of a message: a number, or where its bytes are.

    Raises:
        MalformedError: the bytes are not a message.
    """
    position, end = span.start, span.stop
    while position < end:
        key, position = varint(data, position, end)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = varint(data, position, end)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, position = varint(data, position, end)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise MalformedError(f"byte {position} is not the start of a field")
        if size > end - position:
            raise MalformedError(f"it ends within a field, at byte {end}")
        yield number, range(position, position + size)
        position += size


def varint(data: Data, position: int, end: int) -> tuple[int, int]:
    """A number, unsigned, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise MalformedError(f"it ends within a number, at byte {end}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedError(f"byte {position} is not part of a number")
