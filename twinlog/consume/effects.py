"""Effects as a consumer: the outside world is called, and its answers are decided with the checkpoint's advance.

The calls of a batch come first, and their commands then are one unit of work of the service's writer. An answer is
remembered until it is committed, so that a batch that is tried again, or halved, repeats no call in this process.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from google.protobuf.message import Message

from twinlog._aio.retrying import Randomness
from twinlog.consume.calls import Calls, Effect
from twinlog.consume.consumer import Progress
from twinlog.consume.policies import ActingConsumer, carry_out
from twinlog.log.ports import Log
from twinlog.log.writer import Writer
from twinlog.model.effects import Effects
from twinlog.model.event import Recorded
from twinlog.model.schema import Schema

_BATCH_PER_CALL = 4


class EffectConsumer(ActingConsumer):
    """Runs a table of effects."""

    def __init__(
        self, effects: Effects, writer: Writer, log: Log, schema: Schema, randomness: Randomness = random
    ) -> None:
        super().__init__(effects, f"{effects.actor}.{effects.name}", writer, log, schema)
        self.signal = effects.signal
        self.batch = _BATCH_PER_CALL * effects.concurrency
        """How many events are handled at once: a crash repeats no more calls than these."""
        self._effects = effects
        self._calls = Calls(effects, randomness)

    def calls_for_something(self, message: Message) -> bool:
        """Whether an event has any effect, by its message."""
        return bool(self._effects.calls([message]))

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        """Where events call for nothing, the checkpoint stays: they may be seen again."""
        if personal := self._writer.personal:
            events = await personal.opened(events)
        advance = progress.advance
        if advance:
            self._calls.forget((), upto=advance.after)
        else:  # an operator has it tried again, whatever is known of it
            self._calls.forget(events)
        wanted = [effect for event in self._mine(events) if (effect := self._effect(event)).calls]
        if advance and not wanted and not progress.commands:
            return advance.after
        await self._calls.make(wanted)
        called_for = [(effect.event, effect.results or ()) for effect in wanted]
        await carry_out(called_for, progress, self._writer, self.actor)
        self._calls.forget(events)
        return advance.upto if advance else 0

    def _effect(self, event: Recorded) -> Effect:
        return self._calls.of(event, self._effects.calls(self._schema.decode(event)))
