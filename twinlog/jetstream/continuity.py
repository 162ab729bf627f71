"""Whether a delivery has skipped an event that it should have brought."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twinlog.jetstream import api
from twinlog.log.predecessors import Interest
from twinlog.log.twin import DeliveryLost

PREDECESSORS = "Twinlog-Before"
"""The header that names the events before a message (:mod:`twinlog.log.predecessors`)."""
_PREDECESSORS_LINE = f"{PREDECESSORS}: ".encode()


class Continuity:
    """Follows the sequences of a delivery's messages.

    ``after``: the checkpoint; ``created``: when the stream was created, which tells it from another of its name.
    """

    def __init__(self, stream: str, after: int, types: Sequence[str], routing_key: str) -> None:
        self.handed_out = after
        """Up to this event the consumer has everything that it wants."""
        self._stream = stream
        self._interest = Interest(types, routing_key)
        self._last = after
        self._created = ""
        self._missed: list[tuple[str, int]] = []
        """Kinds that look wanted and the positions of their events, which messages name and which did not come."""

    def begin(self, info: Mapping[str, Any]) -> None:
        """Takes the stream for the one to follow. Raises DeliveryLost where its next events are gone already."""
        self._created = info["created"]
        self.check(info)

    def follows(self, sequence: int, headers: bytes) -> bool:
        """Whether a message proves that no wanted event lies between it and the message before."""
        last, self._last = self._last, sequence
        if sequence <= last + 1 or self._interest.has_all(said := _predecessors(headers), last):
            return True
        self._missed += self._interest.named(said, last)
        return False

    async def look_for_missed(self, look: Callable[[int], Awaitable[None]]) -> None:
        """Looks at the messages in the place of events that did not come: another one may have taken it.

        ``look`` raises where a message is no event of the log. One that is an event was not wanted.
        """
        missed, self._missed = self._missed, []
        for kind, position in dict(reversed(missed)).items():  # of each kind the first
            await look(position)
            self._interest.looks_alike(kind)

    def check(self, info: Mapping[str, Any]) -> None:
        """Raises DeliveryLost where an event may have left the stream before it was delivered."""
        state = api.state_of(info)
        if info["created"] != self._created:
            raise DeliveryLost(stream=self._stream, why="it was made anew")
        if state.first > self.handed_out + 1:
            gone = f"events {self.handed_out + 1} to {state.first - 1} are gone from it"
            raise DeliveryLost(stream=self._stream, why=gone)
        if state.holes:
            raise DeliveryLost(stream=self._stream, why=f"{state.holes} of its events are gone")


def _predecessors(headers: bytes) -> str:
    """What a message says of the events before it; empty where it says nothing."""
    return headers.partition(_PREDECESSORS_LINE)[2].partition(b"\r\n")[0].decode(errors="replace")
