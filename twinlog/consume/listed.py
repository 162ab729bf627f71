"""A dead letter as operators list it."""

from __future__ import annotations

from typing import NamedTuple

from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.dead_letters import DEAD_LETTERS, DeadLetter, DeadLetterId
from twinlog.log.ports import ReadRequest
from twinlog.model.event import StreamId


class Listed(NamedTuple):
    """A dead letter and whose it is."""

    consumer: DeadLettering
    key: str
    letter: DeadLetter
    first: int
    """Position of the key's first dead letter."""

    @property
    def lane(self) -> tuple[str, str]:
        """Within a lane, dead letters keep their order."""
        return (self.consumer.name, self.key)

    @property
    def is_first(self) -> bool:
        """Whether it waits behind no other of its key."""
        return self.letter.position == self.first

    @property
    def id(self) -> DeadLetterId:
        return DeadLetterId(self.consumer.name, self.consumer.source, self.letter.position, self.key)

    @property
    def record(self) -> ReadRequest:
        """What asks the log for the event that has set it aside."""
        stream, version = StreamId(DEAD_LETTERS.name, self.consumer.name), self.letter.version
        return ReadRequest(stream, version - 1, upto=version)

    @property
    def address(self) -> str:
        """``log/position`` of the event."""
        return f"{self.consumer.source}/{self.letter.position}"
