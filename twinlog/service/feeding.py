"""What feeds the consumers of a service: streams, cursors, leases and dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import UUID

from twinlog._aio.linger import Linger
from twinlog._aio.tasks import Tasks
from twinlog.consume import Consumer, Middleware
from twinlog.consume.cursor import BATCH, Cursor
from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.filling import Filling, LogReader, OpenLog
from twinlog.consume.projection import Projection
from twinlog.consume.view_builds import Kept
from twinlog.log.installation import ForeignStream
from twinlog.log.lease import ALWAYS_HELD, Lease
from twinlog.log.ports import Log
from twinlog.log.twin import Twin, TwinDamaged, TwinMissing
from twinlog.log.wire import event_id_of
from twinlog.model.errors import ConfigurationError, Unavailable
from twinlog.model.schema import Schema
from twinlog.rpc.inspection import Followed
from twinlog.service.environment import Environment


class Feeding:
    """Makes what feeds a consumer, and keeps what it has made."""

    def __init__(
        self,
        log: Log,
        environment: Environment,
        *,
        twin: Callable[[str], Twin],
        schema: Schema,
        middleware: Sequence[Middleware],
    ) -> None:
        """See :class:`~twinlog.service.service.Service`. ``twin``: the environment's, or what stands for it later.
        ``middleware``: all of it, the first outermost."""
        self.own_twin = twin(log.name)
        self.dead_letters = DeadLetterOperations(log)
        self.leases: dict[str, Lease] = {}
        """By the work that each is for."""
        self.followed: list[Followed] = []
        self._log = log
        self._twin = twin
        self._environment = environment
        self._schema = schema
        self._middleware = middleware

    def lease(self, work: str) -> Lease:
        """The right to do a piece of work that one replica is enough for."""
        lease = self.leases[work] = self._environment.lease(work)
        return lease

    def follow(self, consumer: Consumer, linger: Linger, batch: int, *, held: bool = False) -> Followed:
        """A consumer and what feeds it. ``held``: its cursor is run by something that holds the lease already."""
        for wrap in reversed(self._middleware):
            consumer = wrap(consumer)
        around = self._environment
        handler = DeadLettering(consumer, self._log, clock=around.clock, ids=around.ids, schema=self._schema)
        self.dead_letters.add(handler)
        twin, lease = self._twin(consumer.source), self.lease(consumer.name)
        cursor = Cursor(
            twin,
            handler,
            ALWAYS_HELD if held else lease,
            linger=linger,
            batch=batch,
            randomness=around.randomness,
            clock=around.clock,
        )
        followed = Followed(consumer, handler, cursor, twin, lease)
        self.followed.append(followed)
        return followed

    def fill(self, projection: Projection, share: int, *, open_log: OpenLog, tasks: Tasks) -> Kept:
        """Fills a build of a view and keeps it up to date, among ``tasks``."""
        followed = self.follow(projection, Linger(), BATCH, held=True)
        filling = Filling(
            followed.twin,
            followed.handler,
            followed.cursor,
            followed.lease,
            open_log,
            log=projection.source,
            prepare=projection.prepare,
            follows=projection.begin_noting,
            share=share,
            randomness=self._environment.randomness,
        )
        task = tasks.start(projection.name, filling.run())

        def stop() -> None:
            task.cancel()
            self._forget(followed)

        return Kept(projection.name, followed.handler, filling, followed.twin, stop)

    def _forget(self, followed: Followed) -> None:
        self.followed.remove(followed)
        self.dead_letters.consumers.pop(followed.handler.name, None)
        self.leases.pop(followed.handler.name, None)

    async def refuse_foreign_streams(self) -> None:
        """Raises ConfigurationError where a stream is another installation's, or the own one another log's."""
        twins = {twin.name: twin for twin in (self.own_twin, *(each.twin for each in self.followed))}
        await asyncio.gather(*map(_refuse_foreign, twins.values()))
        with suppress(Unavailable, TwinMissing, TwinDamaged):
            await self._refuse_anothers()

    async def _refuse_anothers(self) -> None:
        """As where another domain of this installation calls its log alike. A log that was made anew is something else:
        no other has what its stream has."""
        log, twin = self._log, self.own_twin
        position = (await twin.state()).first
        if (message := await twin.message(position)) is None:
            return
        wanted = event_id_of(message, position)
        if wanted is None or await _has(log, position, wanted):
            return
        async with self._environment.open_log(log.name, twin) as other:
            if other and await _has(other, position, wanted):
                raise ConfigurationError(
                    f"TWINLOG_NAMESPACE: stream {twin.name} has the events of another log {log.name}, in another "
                    "database of this Postgres server; call one of the two logs otherwise, give one a namespace, or "
                    "delete the database of the one that is no more"
                )


async def _has(log: LogReader, position: int, event_id: UUID) -> bool:
    return any(event.event_id == event_id for event in await log.read(position - 1, 1))


async def _refuse_foreign(twin: Twin) -> None:
    """At the start only: what turns up later is an outage for those who read the stream."""
    try:
        with suppress(Unavailable, TwinMissing):
            await twin.state()
    except ForeignStream as error:
        raise ConfigurationError(f"TWINLOG_NAMESPACE: {error}") from error
    except TwinDamaged:
        return  # the relay tells, and health with it
