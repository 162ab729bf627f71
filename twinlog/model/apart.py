"""Large texts that are written and read beside the rest of a state, so that other threads get their turn meanwhile.

pydantic writes a state in one call, which gives nobody else a turn: 30 ms for a text of 15 MB, and 200 ms to read it.
So a type that has such texts sets them apart where it is given a place for them, as the context of the serialization,
and they are put in afterwards, each by one copy. The bytes are the same. Where a state is read, long texts in base64
are taken out before, and the type takes them from the context.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import uuid4

_PIECE_BYTES = 3 * 2**16
"""A multiple of 3, so that pieces in base64 can be joined."""
_TEXT_BYTES = _PIECE_BYTES // 3 * 4
"""What a piece takes in base64."""
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="


class Apart:
    """The texts that are set apart while one state is written or read."""

    def __init__(self, give_way: Callable[[], object] = lambda: None) -> None:
        """``give_way`` is called before each piece of a text is written, so that other threads get their turn."""
        self.give_way = give_way
        self._mark = f"apart-{uuid4().hex}-"
        """Begins what stands for a text, and is in no state."""
        self._texts: list[list[bytes]] = []
        """Each in pieces, which are copied only once."""
        self._values: set[int] = set()
        """Those of them that are other values than texts."""
        self._spans: list[tuple[int, int]] = []
        """Where each is in what is read."""
        self._read = b""
        self._taken: set[int] = set()

    def put(self, pieces: list[bytes]) -> str:
        """Takes a text that JSON writes as it is; gives what to write in its place."""
        self._texts.append(pieces)
        return f"{self._mark}{len(self._texts) - 1};"

    def put_json(self, pieces: list[bytes]) -> str:
        """Takes a value as JSON; gives the text to write in its place."""
        self._values.add(len(self._texts))
        return self.put(pieces)

    def filled(self, written: bytes) -> bytes:
        """The JSON with the texts and values in their places."""
        first, *parts = written.split(self._mark.encode())
        filled = [first]
        for part in parts:
            number, _, rest = part.partition(b";")
            if int(number) in self._values:  # instead of the text, with its quotes
                filled[-1], rest = filled[-1][:-1], rest[1:]
            filled += (*self._texts[int(number)], rest)
        return b"".join(filled)

    def without(self, read: bytes) -> bytes:
        """The JSON without its long texts in base64; something stands for each, which :func:`of_base64` knows.

        A text lies between two quotes without another one between them, so only windows without a quote are looked at.
        """
        self._read, parts, start, at = read, list[bytes](), 0, read.find(b'"')
        while at >= 0:
            last = read.rfind(b'"', at + 1, at + 1 + _TEXT_BYTES)
            if last > at:
                at = last
                continue
            end = read.find(b'"', at + 1 + _TEXT_BYTES)
            if end > 0 and self._is_text(at, end):
                parts += (read[start : at + 1], f"{self._mark}{len(self._spans)};".encode())
                self._spans.append((at + 1, end))
                start = end
            at = end
        return b"".join([*parts, read[start:]])

    def taken(self, text: str) -> bytes | None:
        """What a text stands for, as bytes; None where it stands for itself. Raises ValueError where it is none."""
        if not text.startswith(self._mark):
            return None
        number = int(text[len(self._mark) : -1])
        self._taken.add(number)
        start, end = self._spans[number]
        pieces = []
        for at in range(start, end, _TEXT_BYTES):
            self.give_way()
            pieces.append(b64decode(self._read[at : min(at + _TEXT_BYTES, end)], validate=True))
        return b"".join(pieces)

    @property
    def all_taken(self) -> bool:
        """Whether each text that was taken out was asked for; otherwise it belongs to somebody who does not know."""
        return len(self._taken) == len(self._spans)

    def _is_text(self, quote: int, end: int) -> bool:
        """Whether two quotes are those of a text in base64."""
        if self._read[max(0, quote - 1) : quote] == b"\\":
            return False
        for at in range(quote + 1, end, _TEXT_BYTES):
            self.give_way()
            if self._read[at : min(at + _TEXT_BYTES, end)].translate(None, _ALPHABET):
                return False
        return True


def of_base64(text: str, context: Any) -> bytes:
    """The bytes of a text in base64, or of what stands for one. Raises ValueError where it is none."""
    taken = context.taken(text) if isinstance(context, Apart) else None
    return _decoder()(text) if taken is None else taken


@cache
def _decoder() -> Callable[[str], bytes]:
    """pydantic's own, which takes a third of the time of the standard library's."""
    from pydantic_core import SchemaValidator, core_schema  # only snapshots need it

    decoder: Any = SchemaValidator(core_schema.bytes_schema(), {"val_json_bytes": "base64"})
    return decoder.validate_strings  # type: ignore[no-any-return]


def in_base64(data: bytes, context: Any) -> str:
    """Bytes as a serializer gives them: in base64; where they are many and can be set apart, what stands for that."""
    if len(data) <= _PIECE_BYTES or not isinstance(context, Apart):
        return b64encode(data).decode()
    pieces = []
    for at in range(0, len(data), _PIECE_BYTES):
        context.give_way()
        pieces.append(b64encode(data[at : at + _PIECE_BYTES]))
    return context.put(pieces)
