"""Protobuf's wire format, read field by field without a schema or a package."""

import mmap
import struct
from collections import defaultdict

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class MalformedError(Exception):
    """The bytes are not protobuf, or end in the middle of a field."""


class Message:
    """The fields of a message, by their numbers; of one that is left out there are no values.

    All methods raise MalformedError where the bytes are not of the kind that is asked for.
    """

    def __init__(self, data: mmap.mmap | bytes, span: range | None = None) -> None:
        """Find the fields in the part of ``data`` that is the message, by default all of it."""
        self._data = data
        # Of each field, in order: a number, or where its bytes are.
        self._fields: defaultdict[int, list[int | range]] = defaultdict(list)
        span = range(len(data)) if span is None else span
        position, end = span.start, span.stop
        while position < end:
            key, position = self._varint(position, end)
            number, wire_type = key >> 3, key & 7
            if wire_type == _VARINT:
                value, position = self._varint(position, end)
                self._fields[number].append(value)
                continue
            if wire_type == _BYTES:
                size, position = self._varint(position, end)
            elif wire_type in (_FIXED64, _FIXED32):
                size = 8 if wire_type == _FIXED64 else 4
            else:
                raise MalformedError(f"byte {position} is not the start of a field")
            if size > end - position:
                raise MalformedError(f"it ends within a field, at byte {end}")
            self._fields[number].append(range(position, position + size))
            position += size

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def messages(self, number: int) -> list["Message"]:
        """Messages within this one."""
        return [Message(self._data, span) for span in self._spans(number)]

    def contents(self, number: int) -> list[bytes]:
        """Bytes."""
        return [self._data[span.start : span.stop] for span in self._spans(number)]

    def texts(self, number: int) -> tuple[str, ...]:
        """Strings; raises UnicodeDecodeError where one is not UTF-8."""
        return tuple(content.decode() for content in self.contents(number))

    def text(self, number: int) -> str:
        """A string, empty where it is left out."""
        return "".join(self.texts(number))

    def integers(self, number: int) -> tuple[int, ...]:
        """Signed numbers, one by one or packed."""
        found = []
        for value in self._fields.get(number, ()):
            if isinstance(value, int):
                found.append(value)
                continue
            position = value.start
            while position < value.stop:
                unsigned, position = self._varint(position, value.stop)
                found.append(unsigned)
        return tuple(unsigned - (1 << 64) if unsigned >> 63 else unsigned for unsigned in found)

    def floats(self, number: int) -> tuple[float, ...]:
        """Numbers of 32 bits, one by one or packed; raises struct.error where there are bytes too many."""
        packed = b"".join(self.contents(number))
        return struct.unpack(f"<{len(packed) // 4}f", packed)

    def _spans(self, number: int) -> list[range]:
        values = self._fields.get(number, ())
        spans = [value for value in values if isinstance(value, range)]
        if len(spans) < len(values):
            raise MalformedError("a number where a message is expected")
        return spans

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """A number, unsigned, and the position behind it."""
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise MalformedError(f"it ends within a number, at byte {end}")
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise MalformedError(f"byte {position} is not part of a number")
