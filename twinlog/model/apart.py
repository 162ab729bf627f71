"""Large texts that are written beside the rest of a state, so that other threads get their turn meanwhile.

pydantic writes a state in one call, which gives nobody else a turn: 30 ms for a text of 15 MB. So a type that has such
texts sets them apart where it is given a place for them, as the context of the serialization, and they are put in
afterwards, each by one copy. The bytes are the same.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any
from uuid import uuid4

_PIECE_BYTES = 3 * 2**16
"""A multiple of 3, so that pieces in base64 can be joined."""


class Apart:
    """The texts that are set apart while one state is written."""

    def __init__(self, give_way: Callable[[], object] = lambda: None) -> None:
        """``give_way`` is called before each piece of a text is written, so that other threads get their turn."""
        self.give_way = give_way
        self._mark = f"apart-{uuid4().hex}-"
        """Begins what stands for a text, and is in no state."""
        self._texts: list[list[bytes]] = []
        """Each in pieces, which are copied only once."""

    def put(self, pieces: list[bytes]) -> str:
        """Takes a text that JSON writes as it is; gives what to write in its place."""
        self._texts.append(pieces)
        return f"{self._mark}{len(self._texts) - 1};"

    def filled(self, written: bytes) -> bytes:
        """The JSON with the texts in their places."""
        first, *parts = written.split(self._mark.encode())
        filled = [first]
        for part in parts:
            number, _, rest = part.partition(b";")
            filled += (*self._texts[int(number)], rest)
        return b"".join(filled)


def in_base64(data: bytes, context: Any) -> str:
    """Bytes as a serializer gives them: in base64; where they are many and can be set apart, what stands for that."""
    if len(data) <= _PIECE_BYTES:
        return b64encode(data).decode()
    if not isinstance(context, Apart):
        return b64encode(data).decode()
    pieces = []
    for at in range(0, len(data), _PIECE_BYTES):
        context.give_way()
        pieces.append(b64encode(data[at : at + _PIECE_BYTES]))
    return context.put(pieces)
