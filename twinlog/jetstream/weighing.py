"""Whether a stream holds what was put into it and nothing else, without reading it.

Of a batch only the first and the last message are answered. What takes a place between them is seen by its size: the
bytes of the stream, which the server tells at each look, are compared with those of what was stored since the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlog.jetstream.client import Outgoing
from twinlog.model.event import Recorded

_RECORD_BYTES = 34
"""What nats-server counts for a stored message beside its subject, headers and data."""
_HEADERS_BYTES = len(b"NATS/1.0\r\n\r\n")


class Weighing:
    """Follows the bytes of a stream from one look at it to the next."""

    def __init__(self) -> None:
        self._events: list[Recorded] = []  # stored since the last look
        self._last = self._bytes = 0
        self._lost = (0, 0)
        """The first sequence and how many are missing behind it: what left the stream cannot be weighed."""
        self._wrong = False

    def stored(self, messages: Sequence[Outgoing], events: Sequence[Recorded]) -> None:
        """Takes in events that were sent in one go as these messages, the last of which was stored."""
        if self._last != events[0].position - 1:
            return
        self._events += events
        self._last = events[-1].position
        self._bytes += len(messages) * (_RECORD_BYTES + _HEADERS_BYTES)
        self._bytes += sum(len(each.subject) + len(each.headers) + len(each.data) for each in messages)

    def look(self, info: Mapping[str, Any]) -> Sequence[Recorded]:
        """Compares with what the server says of the stream; gives events in whose places other messages may lie.

        Where sizes were wrong the last time, they say nothing until they are right again: each doubt costs a read.
        """
        state = info["state"]
        last, size = state["last_seq"], state["bytes"]
        lost = (state["first_seq"], state.get("num_deleted", 0))
        events, comparable = self._events, lost == self._lost and last == self._last
        right, doubted = size == self._bytes, self._wrong
        self._events, self._last, self._bytes, self._lost = [], last, size, lost
        if not (events and comparable):
            return ()
        self._wrong = not right
        return () if right or doubted else events
