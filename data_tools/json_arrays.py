"""The elements of one large JSON array, cut out of a stream in memory for one element."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 1 << 20
_STRUCTURE = re.compile(rb'["\[\]{},]')
_SPACE = b" \t\r\n"


class BrokenArray(ValueError):
    """The array does not end, or something follows it."""


def split_array(stream: BinaryIO, largest: int) -> Iterator[bytes | int]:
    """Yield the bytes of every element of the array that a stream holds.

    Args:
        stream: at the first bracket, or at white space before it.
        largest: bytes; of a longer element comes about its length instead.

    Raises:
        BrokenArray: saying what is wrong.
    """
    scanner = _Scanner(stream, largest)
    while scanner.fill() and not scanner.buffer.lstrip(_SPACE):
        scanner.buffer.clear()
    opening = scanner.buffer.lstrip(_SPACE)
    if not opening.startswith(b"["):
        raise BrokenArray("it does not start with a bracket")
    del scanner.buffer[: len(scanner.buffer) - len(opening) + 1]
    elements = 0
    while True:
        element, last = scanner.next_element()
        empty = isinstance(element, bytes) and not element
        # `[]`, and nothing else, holds an empty element that is none.
        if not (empty and last and not elements):
            yield element
        elements += 1
        if last:
            break
    while True:
        if scanner.buffer.strip(_SPACE):
            raise BrokenArray("something follows the end of the array")
        scanner.buffer.clear()
        if not scanner.fill():
            return


class _Scanner:
    """A window into a stream, which starts where an element does."""

    def __init__(self, stream: BinaryIO, largest: int) -> None:
        self.buffer = bytearray()
        self._stream, self._largest = stream, largest

    def fill(self) -> bool:
        """Read on; False at the stream's end."""
        # Growing blocks: what is scanned again after a block is never more than was read.
        block = self._stream.read(max(BLOCK, len(self.buffer)))
        self.buffer += block
        return bool(block)

    def next_element(self) -> tuple[bytes | int, bool]:
        """The element at the window's start, and whether it is the array's last."""
        depth = position = dropped = 0
        while True:
            found = _STRUCTURE.search(self.buffer, position)
            if found is None:
                dropped, position = self._make_room(dropped, len(self.buffer))
                continue
            mark, position = found.group(), found.end()
            if mark == b'"':
                end = _end_of_string(self.buffer, position)
                while end < 0:
                    dropped, position = self._make_room(dropped, self._rest_of_string(position))
                    end = _end_of_string(self.buffer, position)
                position = end
            elif mark in b"[{":
                depth += 1
            elif depth and mark in b"]}":
                depth -= 1
            elif depth == 0 and mark in b",]":
                element = bytes(self.buffer[: position - 1]).strip(_SPACE)
                del self.buffer[:position]
                size = dropped + len(element)
                too_long = dropped > 0 or size > self._largest
                return (size if too_long else element), mark == b"]"
            elif depth == 0:
                raise BrokenArray("a brace closes what was not opened")

    def _rest_of_string(self, start: int) -> int:
        """Where to look on for the end of a string whose element is too long to keep."""
        if len(self.buffer) <= self._largest:
            return start
        end = len(self.buffer)
        # A backslash may belong to what comes next.
        while end > start and self.buffer[end - 1] == 0x5C:
            end -= 1
        return end

    def _make_room(self, dropped: int, position: int) -> tuple[int, int]:
        """Read on; of an element that is too long anyway only the end is kept."""
        if len(self.buffer) > self._largest and position > 0:
            dropped += position
            del self.buffer[:position]
            position = 0
        if not self.fill():
            raise BrokenArray("the array has no end; is the file whole?")
        return dropped, position


def _end_of_string(buffer: bytearray, start: int) -> int:
    """The place behind the quotation mark that ends a string; -1 if it is not there yet."""
    position = start
    while (end := buffer.find(b'"', position)) >= 0:
        backslashes = 0
        while end - backslashes > start and buffer[end - backslashes - 1] == 0x5C:
            backslashes += 1
        if backslashes % 2 == 0:
            return end + 1
        position = end + 1
    return -1
