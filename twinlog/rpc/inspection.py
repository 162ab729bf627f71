"""What a process tells of itself: its logs, consumers, views, sagas, settings and problems."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeVar

from twinlog._aio.watched import Watched
from twinlog.consume import Consumer, ConsumerWrapper
from twinlog.consume.cursor import Cursor
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.projection import Projection
from twinlog.log.chain import Head
from twinlog.log.heads import Heads
from twinlog.log.lease import Lease, holder_of, is_here
from twinlog.log.personal import Personal
from twinlog.log.ports import Log
from twinlog.log.twin import Counting, Twin, TwinDamaged, TwinMissing
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import TwinlogError, Unavailable
from twinlog.model.saga import SagaInstance
from twinlog.model.schema import Schema
from twinlog.model.times import timestamp
from twinlog.v1 import inspection_pb2 as pb

T = TypeVar("T")


class Patience(NamedTuple):
    """How long the servers of a process are waited for: who asks what a process is about wants to hear in time that
    they do not answer."""

    until: float
    """A time of the event loop, for all questions together."""

    @classmethod
    def of(cls, seconds: float) -> Patience:
        """Of so many seconds from now on."""
        return cls(asyncio.get_running_loop().time() + seconds)

    async def database(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What Postgres answers in time. Raises Unavailable."""
        return await self._in_time(ask, "the database does not answer")

    async def nats(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What NATS answers in time. Raises Unavailable."""
        return await self._in_time(ask, "NATS does not answer")

    async def _in_time(self, ask: Callable[[], Awaitable[T]], silent: str) -> T:
        # Asked only here: of a caller that is gone before its turn comes, no coroutine is left that nobody awaits.
        try:
            async with asyncio.timeout_at(self.until):
                return await ask()
        except TimeoutError as error:
            raise Unavailable(silent) from error


class Followed(NamedTuple):
    """A consumer of the process and what feeds it."""

    consumer: Consumer
    handler: DeadLettering
    cursor: Cursor
    twin: Twin
    lease: Lease

    @property
    def views(self) -> Sequence[str]:
        """The names of the views that it keeps."""
        consumer = self.consumer
        while isinstance(consumer, ConsumerWrapper):
            consumer = consumer.inner
        return consumer.views if isinstance(consumer, Projection) else ()


@dataclass
class Inspected:
    """The parts of a process that can be looked at."""

    service: str
    log: Log
    twin: Twin
    schema: Schema
    started_at: datetime
    aggregates: Sequence[AnyAggregate] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """By environment variable, without secrets."""
    followed: list[Followed] = field(default_factory=list)
    parts: Sequence[Watched] = ()
    """Their problems make the service NOT_SERVING."""
    signals: Mapping[str, Watched] = field(default_factory=dict)
    """Their problems call for an operator, by their names in health."""
    heads: Heads | None = None
    """What tells of the own log's chain."""
    personal: Personal | None = None
    """Opens personal fields, of states; events are shown as they are stored."""

    @property
    def sagas(self) -> list[str]:
        """Those of the aggregates that are sagas."""
        return [each.name for each in self.aggregates if isinstance(each.initial, SagaInstance)]

    def aggregate(self, name: str) -> AnyAggregate | None:
        """The one of a name; None: the service does not declare it."""
        return next((each for each in self.aggregates if each.name == name), None)

    async def logs(self, patience: Patience) -> list[pb.LogDescription]:
        """The own log first, then those that are followed, by name. Raises Unavailable, where the database is away."""
        twins = {each.consumer.source: each.twin for each in self.followed}
        twins.pop(self.log.name, None)
        # At once: a server that does not answer takes no time from what is asked of the other.
        asked = [(self.log.name, self.twin), *sorted(twins.items())]
        (position, head), [own, *others] = await asyncio.gather(
            patience.database(self._ends),
            asyncio.gather(*(_described(name, twin, patience) for name, twin in asked)),
        )
        own.own, own.head = True, position
        if head:
            own.chain.CopyFrom(
                pb.ChainHead(position=head.position, hash=head.hash, signature=head.signature, text=str(head))
            )
        return [own, *others]

    async def _ends(self) -> tuple[int, Head | None]:
        """The position of the log's last event, and the newest head of its chain."""
        return await self.log.head(), await self.heads.newest() if self.heads else None

    def views(self) -> list[pb.ViewDescription]:
        """By name, with the consumers that keep each."""
        names = sorted({view for each in self.followed for view in each.views})
        return [
            pb.ViewDescription(
                view=name, consumers=sorted(each.handler.name for each in self.followed if name in each.views)
            )
            for name in names
        ]

    def problems(self) -> Iterator[pb.Problem]:
        """What is wrong at the moment."""
        for part in self.parts:
            if problem := part.problem:
                yield pb.Problem(problem=problem)
        for name, signal in self.signals.items():
            if problem := signal.problem:
                yield pb.Problem(signal=name, problem=problem)

    def consumers_as_wired(self) -> list[pb.ConsumerDescription]:
        """By name: what each follows, wants and keeps, without where it stands."""
        return [_wired(each) for each in sorted(self.followed, key=lambda each: each.handler.name)]

    async def consumers(self, patience: Patience, name: str = "") -> list[pb.ConsumerDescription]:
        """By name; only that of a name, if one is given."""
        wanted = [each for each in self.followed if name in ("", each.handler.name)]
        wanted.sort(key=lambda each: each.handler.name)
        return await asyncio.gather(*(_consumer(each, patience) for each in wanted))


async def _described(log: str, twin: Twin, patience: Patience) -> pb.LogDescription:
    described = pb.LogDescription(log=log, stream=twin.name)
    try:
        state = await patience.nats(twin.state)
    except TwinMissing:
        return described
    except (TwinDamaged, Unavailable) as error:
        described.stream_exists, described.problem = isinstance(error, TwinDamaged), str(error)
        return described
    described.stream_exists = True
    described.first, described.last, described.holes = state
    return described


def _wired(each: Followed) -> pb.ConsumerDescription:
    handler = each.handler
    return pb.ConsumerDescription(
        consumer=handler.name,
        log=handler.source,
        types=handler.types,
        routing_key=handler.routing_key,
        views=each.views,
    )


async def _consumer(each: Followed, patience: Patience) -> pb.ConsumerDescription:
    handler, cursor, lease = each.handler, each.cursor, each.lease
    described = _wired(each)
    described.holder, described.here = holder_of(lease), is_here(lease)
    described.problem = "; ".join(filter(None, (cursor.problem, lease.problem)))
    described.last_error = cursor.last_error
    if cursor.last_error_at:
        described.last_error_at.CopyFrom(timestamp(cursor.last_error_at))
    described.dead_letters = handler.count
    with suppress(TwinlogError):
        described.position = await patience.database(handler.stored)
        at = max(described.position, cursor.position if described.here else 0)
        described.lag = await patience.nats(lambda: _ahead(each, at))
        described.lag_known = True
    return described


async def _ahead(each: Followed, position: int) -> int:
    if isinstance(each.twin, Counting):
        return await each.twin.ahead(position, each.handler.types, each.handler.routing_key)
    return max(0, (await each.twin.state()).last - position)
