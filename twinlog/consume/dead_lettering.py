"""What happens to an event that a consumer fails on: it is retried, then set aside, and only its own key waits.

Two tables decide: an error that is :data:`NOT_THE_EVENTS_FAULT` passes through to the cursor, which waits for the end
of the outage, however long that takes; one that is :data:`NOT_MENDED_BY_TRYING` sets the event aside at once. Another
version of the program mends that, or an operator who puts the stream right; then the event is replayed by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice

from twinlog._aio.retrying import backoff
from twinlog.consume.consumer import Consumer, Progress
from twinlog.consume.dead_letters import (
    DEAD_LETTERS,
    AddDeadLetter,
    Command,
    DeadLetterId,
    DeadLetters,
    DeadLettersChanged,
    Discard,
    FailReplay,
    Failure,
    Replay,
    TriedInVain,
    without_text,
)
from twinlog.log.ports import CheckpointAdvance, Handled, Log
from twinlog.log.snapshots import StateCodecs
from twinlog.log.streams import StreamReader
from twinlog.log.transaction import Entry
from twinlog.log.unreadable import Unreadable
from twinlog.model.clock import Clock, Ids
from twinlog.model.errors import (
    CheckpointMoved,
    ConfigurationError,
    StreamUnreadable,
    Unavailable,
    UndecodableEvent,
    UnknownEventType,
    UpcasterFailed,
)
from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.model.personal import holds_personal
from twinlog.model.schema import Schema

NOT_THE_EVENTS_FAULT = (Unavailable, CheckpointMoved, DeadLettersChanged, ConfigurationError)
NOT_MENDED_BY_TRYING = (UnknownEventType, UndecodableEvent, UpcasterFailed, StreamUnreadable)
_TRIED_ENOUGH = (*NOT_MENDED_BY_TRYING, TriedInVain)

RETRIES, RETRY_FIRST_SECONDS, RETRY_MOST_SECONDS = 5, 0.1, 2.0
"""How often an event that fails is tried again before it is set aside, and the waits between."""
_RACES = 20
_OPERATOR_WAIT_SECONDS = 5.0


class DeadLettering:
    """Feeds a consumer so that an event it cannot handle stops only that event's key.

    The events that are set aside, and those of their key behind them, are the consumer's dead letters: a stream in
    the log of its own service (:mod:`twinlog.consume.dead_letters`). Every change of it is committed in the
    transaction of the effects and the checkpoint.

    While there are dead letters, whatever is committed rests on those that are known here: a replay elsewhere refuses
    it, and it is done again. While there are none, the checkpoint alone is the fence: events are only ever set aside
    together with its move, so its owner knows.
    """

    def __init__(self, consumer: Consumer, log: Log, *, clock: Clock, ids: Ids, schema: Schema) -> None:
        """``log``: the consumer's own service's, where its dead letters are."""
        self.name = consumer.name
        self.source = consumer.source
        self.types = consumer.types
        self.routing_key = consumer.routing_key
        self._consumer = consumer
        self._log = log
        self.clock = clock
        self._ids = ids
        self._reader = StreamReader(schema, StateCodecs(schema))
        self._known = DeadLetters()
        self._turn = asyncio.Lock()

    @property
    def count(self) -> int:
        """How many dead letters there are, as far as this process knows."""
        return self._known.count

    async def dead_letters(self) -> DeadLetters:
        """The dead letters as they are now. Raises StreamUnreadable or Unavailable."""
        async with self._operating():
            await self._catch_up()
            return self._known

    async def checkpoint(self) -> int:
        """The position of the last event that was handled; what is known from before is brought up to date.

        Raises StreamUnreadable where the dead letters cannot be read: nothing can be handled without them.
        """
        async with self._turn:
            return await self._refresh()

    async def stored(self) -> int:
        """Where the checkpoint is now."""
        return await self._consumer.checkpoint()

    async def last_handled(self) -> Handled | None:
        """An event that was handled; None where none is known."""
        return await self._log.last_handled(self.name)

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        """Has the effects of events; sets those aside that the consumer keeps failing on.

        Gives the checkpoint that is stored now. Raises what is not the event's fault.

        A batch that fails is halved until the event is found. All failing events of a batch share one allowance of
        retries: where everything fails, the consumer does not wait for each.
        """
        pauses = islice(backoff(RETRY_FIRST_SECONDS, RETRY_MOST_SECONDS), RETRIES)
        return await self._handle(events, after, pauses)

    async def dead_letter(
        self, event: Recorded, failure: Failure, after: int, error: Exception | None = None
    ) -> int:
        """Sets an event aside and moves the checkpoint past it. Raises CheckpointMoved."""
        add = AddDeadLetter(self.name, event, failure)
        advance = CheckpointAdvance(self.name, after, event.position, event.event_id)
        async with self._turn:
            while True:
                with suppress(DeadLettersChanged):
                    return await self._apply([], advance, [(add, self._because_of(event))], error)
                await self._refresh()

    async def replay(self, event: Recorded, metadata: Metadata) -> None:
        """Has the effects of a dead letter's event and takes it out, in one transaction.

        Raises NotParked, NotFirst, Unavailable, or whatever the consumer fails with: then it stays.
        """
        id = DeadLetterId(self.name, event.log, event.position, event.partition_key)
        await self._settle([event], Replay(id), metadata)

    async def note(
        self, command: FailReplay | Discard, metadata: Metadata, error: Exception | None = None
    ) -> None:
        """Records what became of a dead letter. Raises NotParked."""
        await self._settle([], command, metadata, error)

    async def _handle(self, events: Sequence[Recorded], after: int, pauses: Iterator[float]) -> int:
        try:
            return await self._attempt(events, after)
        except NOT_THE_EVENTS_FAULT:
            raise
        except Exception as error:
            if len(events) == 1:
                return await self._retry(events[0], after, error, pauses)
        middle = len(events) // 2
        after = await self._handle(events[:middle], after, pauses)
        return await self._handle(events[middle:], after, pauses)

    async def _retry(self, event: Recorded, after: int, error: Exception, pauses: Iterator[float]) -> int:
        attempts = 1
        while not isinstance(error, _TRIED_ENOUGH) and (pause := next(pauses, None)) is not None:
            await asyncio.sleep(pause)
            try:
                return await self._attempt([event], after)
            except NOT_THE_EVENTS_FAULT:
                raise
            except Exception as again:
                error, attempts = again, attempts + 1
        personal = holds_personal(event.type, event.payload)
        failure = Failure.of(error, attempts, personal=personal)
        return await self.dead_letter(event, failure, after, without_text(error, personal))

    async def _attempt(self, events: Sequence[Recorded], after: int) -> int:
        advance = CheckpointAdvance(self.name, after, events[-1].position, events[-1].event_id)
        async with self._turn:
            while True:
                with suppress(DeadLettersChanged):
                    if not self._known.count:
                        return await self._apply(events, advance)
                    held = self._known.parked
                    behind = [event for event in events if event.partition_key in held]
                    return await self._apply(
                        [event for event in events if event.partition_key not in held],
                        advance,
                        [(AddDeadLetter(self.name, event), self._because_of(event)) for event in behind],
                    )
                await self._refresh()

    async def _settle(
        self, events: Sequence[Recorded], command: Command, metadata: Metadata, error: Exception | None = None
    ) -> None:
        for _ in range(_RACES):
            async with self._operating():
                await self._refresh()
                with suppress(CheckpointMoved, DeadLettersChanged):
                    await self._apply(events, None, [(command, metadata)], error)
                    return
        raise Unavailable(f"{self.name} is too busy; try again")

    @asynccontextmanager
    async def _operating(self) -> AsyncIterator[None]:
        """An operator's turn, which an outage would hold up: the consumer keeps its own until the store is back."""
        try:
            async with asyncio.timeout(_OPERATOR_WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError as error:
            raise Unavailable(f"{self.name} is waiting for its store; try again") from error
        try:
            yield
        finally:
            self._turn.release()

    async def _apply(
        self,
        events: Sequence[Recorded],
        advance: CheckpointAdvance | None,
        commands: Sequence[tuple[Command, Metadata]] = (),
        error: Exception | None = None,
    ) -> int:
        known = self._known if commands or self._known.count else None
        progress = Progress(self.name, advance, self.clock, self._ids, known, commands, error)
        stored = await self._consumer.apply(events, progress)
        for command, _ in commands:
            self._known = DEAD_LETTERS.fold(DEAD_LETTERS.decide(self._known, command), self._known)
        return stored

    async def _refresh(self) -> int:
        """Forgets what may be old; gives the checkpoint."""
        # The checkpoint comes first: whatever was set aside on the way to it is then among the dead letters.
        checkpoint = await self._consumer.checkpoint()
        await self._catch_up()
        self._consumer.forget()
        return checkpoint

    async def _catch_up(self) -> None:
        """Brings the dead letters up to date. Where there is news of them, a replay may have had effects."""
        known = self._known
        entry = Entry(DEAD_LETTERS, known, known.version, 0, 0)
        entries = {StreamId(DEAD_LETTERS.name, self.name): entry}
        [found] = await self._reader.read(self._log, entries, snapshots=not known.version)
        if isinstance(found.result, Unreadable):
            raise found.result.why
        if found.result.version != known.version:
            self._known = found.result.state
            self._consumer.forget()

    def _because_of(self, event: Recorded) -> Metadata:
        return event.causing(self._consumer.actor)
