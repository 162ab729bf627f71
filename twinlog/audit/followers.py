"""How far the consumers of a log have got, and what they have not handled yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from google.protobuf.message import Message

from twinlog.audit.dead_letters import DeadLetters, out_of_order
from twinlog.audit.report import Findings
from twinlog.model.event import Recorded
from twinlog.postgres.urls import psql

WITHIN = "checkpoint within log"
NOT_BEHIND = "checkpoint not behind its effects"


def set_checkpoint(database: str, consumer: str, position: int) -> str:
    """The command that moves a checkpoint. The running consumer notices it."""
    return (
        f"{psql(database)} -c \"UPDATE checkpoints SET position = {position} WHERE consumer = '{consumer}'\""
    )


class Follower:
    """One table of policies or effects, as a consumer of its log."""

    def __init__(
        self,
        actor: str,
        database: str,
        dead_letters: DeadLetters,
        calls_for: Callable[[Message], object],
    ) -> None:
        """``actor`` is on the events that it causes; ``database`` holds its checkpoint; ``dead_letters`` are those of
        this consumer. ``calls_for``: what it has to do because of an event, if anything.
        """
        self.consumer = dead_letters.consumer
        self.actor = actor
        self.dead_letters = dead_letters
        self.log = dead_letters.log
        self.database = database
        self.checkpoint = 0
        self.called = 0
        """Position of the last event that the consumer has to act on."""
        self._calls_for = calls_for
        self._open: deque[tuple[int, str, str]] = deque()
        """Position, partition key and case of each event beyond the checkpoint."""
        self._effect: tuple[int, str] = (0, "")
        """The last position that has an effect, and the address of the effect."""

    def begin(self, checkpoint: int, findings: Findings) -> None:
        """Takes in the checkpoint as it is now."""
        self.checkpoint = checkpoint
        while self._open and self._open[0][0] <= checkpoint:
            position, key, _ = self._open.popleft()
            self._handled(position, key, findings)

    def take(self, event: Recorded, message: Message, case: str, findings: Findings) -> None:
        """Takes in the next event of the log and the case that it belongs to."""
        if self._calls_for_something(message):
            self.called = event.position
            if event.position > self.checkpoint:
                self._open.append((event.position, event.partition_key, case))
            else:
                self._handled(event.position, event.partition_key, findings)

    def _calls_for_something(self, message: Message) -> bool:
        try:
            return bool(self._calls_for(message))
        except Exception:  # the consumer sets it aside, which has to happen, too
            return True

    def _handled(self, position: int, key: str, findings: Findings) -> None:
        if before := self.dead_letters.overtaken_by(position, key):
            out_of_order(self.dead_letters, position, f"was handled before {before}", before, findings)

    def caused(self, cause: int, effect: str) -> None:
        """Notes that the consumer appended ``effect`` because of the event at ``cause``."""
        if cause > self._effect[0]:
            self._effect = (cause, effect)

    @property
    def lag(self) -> int:
        """Events from the checkpoint to the last one that the consumer has to act on."""
        return max(0, self.called - self.checkpoint)

    def in_flight(self) -> Iterator[str]:
        """The cases with an event that is not handled yet, or is parked."""
        yield from (case for *_, case in self._open)
        yield from (one.case for one in self.dead_letters.parked.values())

    def judge(self, findings: Findings) -> None:
        """Reports a checkpoint that was set back: an effect and its checkpoint are one transaction."""
        cause, effect = self._effect
        if self.checkpoint < cause:
            findings.add(
                NOT_BEHIND,
                f"checkpoint {self.consumer} is {self.checkpoint}, yet {effect} is the effect of {self.log}/{cause}",
                ids=[self.consumer],
                events=[f"{self.log}/{cause}", effect],
                remedy=set_checkpoint(self.database, self.consumer, cause),
            )
