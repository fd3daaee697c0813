"""Protobuf's wire format, read field by field without a schema or a package."""

import mmap
import struct
from collections import defaultdict
from collections.abc import Iterator

Data = mmap.mmap | bytes
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class MalformedError(Exception):
    """The bytes are not protobuf, or end in the middle of a field."""


Values = list[int | range]
Fields = defaultdict[int, Values]


def fields(data: Data, span: range) -> Fields:
    """The fields of a message by their numbers, in order: of each a number, or where its bytes are.

    Raises:
        MalformedError: the bytes are not a message.
    """
    found: Fields = defaultdict(list)
    position, end = span.start, span.stop
    while position < end:
        key, position = _varint(data, position, end)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = _varint(data, position, end)
            found[number].append(value)
            continue
        if wire_type == _BYTES:
            size, position = _varint(data, position, end)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise MalformedError(f"byte {position} is not the start of a field")
        if size > end - position:
            raise MalformedError(f"it ends within a field, at byte {end}")
        found[number].append(range(position, position + size))
        position += size
    return found


def messages(data: Data, values: Values) -> Iterator[Fields]:
    """The fields of each of some messages."""
    for value in values:
        yield fields(data, _span_of(value))


def contents(data: Data, values: Values) -> list[bytes]:
    """The bytes of each of some fields."""
    return [data[span.start : span.stop] for span in map(_span_of, values)]


def texts(data: Data, values: Values) -> tuple[str, ...]:
    """Strings; raises UnicodeDecodeError where one is not UTF-8."""
    return tuple(content.decode() for content in contents(data, values))


def text(data: Data, values: Values) -> str:
    """A string, empty where it is left out."""
    return "".join(texts(data, values))


def integers(data: Data, values: Values) -> tuple[int, ...]:
    """Signed numbers, one by one or packed."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        position = value.start
        while position < value.stop:
            number, position = _varint(data, position, value.stop)
            found.append(number)
    return tuple(number - (1 << 64) if number >> 63 else number for number in found)


def floats(data: Data, values: Values) -> tuple[float, ...]:
    """Numbers of 32 bits, one by one or packed; raises struct.error where there are bytes too many."""
    packed = b"".join(contents(data, values))
    return struct.unpack(f"<{len(packed) // 4}f", packed)


def _span_of(value: int | range) -> range:
    if isinstance(value, int):
        raise MalformedError("a number where a message is expected")
    return value


def _varint(data: Data, position: int, end: int) -> tuple[int, int]:
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
