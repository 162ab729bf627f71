"""The edge of the dead letters: twinlog.v1.DeadLetterService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from google.protobuf.message import DecodeError

from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.consume.dead_letters import Failure, NotParked
from twinlog.consume.listed import Listed
from twinlog.log.wire import from_wire
from twinlog.model.event import Recorded
from twinlog.model.schema import Schema
from twinlog.model.times import timestamp
from twinlog.rpc import Context, call_metadata
from twinlog.rpc.dead_letter_groups import Group, in_groups
from twinlog.rpc.logged_event import decoded, read_as
from twinlog.rpc.paging import PageTokens
from twinlog.rpc.validation import Checks, normal_id
from twinlog.v1 import dead_letter_service_pb2 as pb
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceServicer
from twinlog.v1.dead_letters_pb2 import EventParked

_MOST_PER_SECOND = 10_000
_LONGEST_TREND_SECONDS = 30 * 24 * 3600


class DeadLetterService(DeadLetterServiceServicer):
    """twinlog.v1.DeadLetterService."""

    def __init__(
        self, dead_letters: DeadLetterOperations, pages: PageTokens, schema: Schema | None = None
    ) -> None:
        """``schema``: what reads the events; None: one without upcasters."""
        self._dead_letters = dead_letters
        self._schema = schema or Schema()
        self._pages = pages
        self._replays: list[pb.DeadLetterReplay] = []
        """Those under way."""

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListDeadLettersResponse:
        checks = Checks()
        self._consumer(checks, "consumer", request.consumer)
        key = normal_id(request.key)
        filters = repr(("dead letters", request.consumer, key, request.error_type))
        page = checks.page(request, self._pages, filters, (str, int))
        checks.done()
        found = [
            one
            for one in await self._dead_letters.listed(request.consumer)
            if key in ("", one.key)
            and request.error_type in ("", one.letter.error_type)
            and (page.last is None or _place(one) > page.last)
        ]
        shown, token = page.of(found, _place)
        stored = await self._dead_letters.stored(shown)
        return pb.ListDeadLettersResponse(
            dead_letters=[
                _shown(one, record, parked) for one, (record, parked) in zip(shown, stored, strict=True)
            ],
            next_page_token=token,
        )

    async def GroupDeadLetters(
        self, request: pb.GroupDeadLettersRequest, context: Context
    ) -> pb.GroupDeadLettersResponse:
        checks = Checks()
        self._consumer(checks, "consumer", request.consumer)
        if not 0 <= request.trend_seconds <= _LONGEST_TREND_SECONDS:
            checks.violate("trend_seconds", f"must be 1 to {_LONGEST_TREND_SECONDS}, or 0 for no trend")
        checks.done()
        found = await self._dead_letters.listed(request.consumer)
        groups = in_groups(found)
        if request.trend_seconds:
            await self._tell_trends(groups, request.trend_seconds)
        return pb.GroupDeadLettersResponse(
            groups=[group.shown for group in groups], count=len(found), replays=self._replays
        )

    async def _tell_trends(self, groups: Sequence[Group], seconds: int) -> None:
        times = await self._dead_letters.parked_at()
        for group in groups:
            group.tell_trend(times, seconds)

    async def GetDeadLetter(
        self, request: pb.GetDeadLetterRequest, context: Context
    ) -> pb.GetDeadLetterResponse:
        checks = Checks()
        self._consumer(checks, "consumer", request.consumer)
        _address(checks, "address", request.address)
        checks.done()
        one = (await self._at(request.consumer, request.address))[0]
        [(record, parked)] = await self._dead_letters.stored([one])
        shown, event = _shown(one, record, parked), _event(parked)
        if event is None:
            return pb.GetDeadLetterResponse(
                dead_letter=shown, payload=parked.event, traceback=parked.traceback
            )
        payload_json, payload_struct = decoded(event.type, event.payload)
        return pb.GetDeadLetterResponse(
            dead_letter=shown,
            payload_json=payload_json,
            payload_struct=payload_struct,
            payload=event.payload,
            stream=str(event.stream),
            recorded_at=timestamp(event.recorded_at),
            cause=event.metadata.causation_id,
            correlation_id=event.metadata.correlation_id,
            actor=event.metadata.actor,
            traceback=await self._dead_letters.traceback(one, parked),
            read_as=read_as(event, self._schema),
        )

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: Context
    ) -> AsyncIterator[pb.ReplayDeadLettersResponse]:
        checks = Checks()
        self._check(checks, request.selection)
        if not 0 <= request.per_second <= _MOST_PER_SECOND:
            checks.violate("per_second", f"must be more than 0, up to {_MOST_PER_SECOND}, or 0 for no limit")
        checks.done()
        selected = await self._selected(request.selection, with_those_behind=True)
        progress = pb.ReplayDeadLettersResponse(selected=len(selected))
        if not request.dry_run:
            metadata = call_metadata(context, "ReplayDeadLetters")
            with self._under_way(request, progress, metadata.actor) as shown:
                async for one, failure in self._dead_letters.replay(selected, metadata):
                    _count(progress, one, failure)
                    shown.replayed, shown.failed = progress.replayed, progress.failed
                    yield progress
                    if request.per_second:
                        await asyncio.sleep(1 / request.per_second)
        yield pb.ReplayDeadLettersResponse(
            selected=progress.selected, replayed=progress.replayed, failed=progress.failed
        )

    @contextmanager
    def _under_way(
        self, request: pb.ReplayDeadLettersRequest, progress: pb.ReplayDeadLettersResponse, actor: str
    ) -> Iterator[pb.DeadLetterReplay]:
        """Shows the replay to all who ask, inside the block."""
        shown = pb.DeadLetterReplay(
            selection=request.selection,
            selected=progress.selected,
            per_second=request.per_second,
            started_at=timestamp(datetime.now(UTC)),
            actor=actor,
        )
        self._replays.append(shown)
        try:
            yield shown
        finally:
            self._replays[:] = [each for each in self._replays if each is not shown]

    async def DiscardDeadLetters(
        self, request: pb.DiscardDeadLettersRequest, context: Context
    ) -> pb.DiscardDeadLettersResponse:
        checks = Checks()
        self._check(checks, request.selection)
        reason = checks.name("reason", request.reason)
        checks.done()
        selected = await self._selected(request.selection, with_those_behind=False)
        discarded = 0
        if not request.dry_run:
            metadata = call_metadata(context, "DiscardDeadLetters")
            discarded = await self._dead_letters.discard(selected, reason, metadata)
        return pb.DiscardDeadLettersResponse(selected=len(selected), discarded=discarded)

    async def _selected(
        self, selection: pb.DeadLetterSelection, *, with_those_behind: bool
    ) -> Sequence[Listed]:
        by = selection.WhichOneof("by")
        if by == "address":
            return await self._at(selection.consumer, selection.address)
        found = await self._dead_letters.listed(selection.consumer)
        if by == "key":
            key = normal_id(selection.key)
            return [one for one in found if one.key == key]
        if by == "error_type" and with_those_behind:
            held_up = {
                one.lane for one in found if one.is_first and one.letter.error_type == selection.error_type
            }
            return [one for one in found if one.lane in held_up]
        if by == "error_type":
            return [one for one in found if one.letter.error_type == selection.error_type]
        return found

    async def _at(self, consumer: str, address: str) -> Sequence[Listed]:
        """The dead letter at an address; one for each consumer, where several have set the same event aside."""
        found = [one for one in await self._dead_letters.listed(consumer) if one.address == address]
        if not found:
            raise NotParked(consumer=consumer or "this service", address=address)
        return found

    def _check(self, checks: Checks, selection: pb.DeadLetterSelection) -> None:
        self._consumer(checks, "selection.consumer", selection.consumer)
        by = selection.WhichOneof("by")
        if by is None or not getattr(selection, by):
            checks.violate("selection", "is missing: give an address, an error_type, a key, or all: true")
        elif by == "address":
            _address(checks, "selection.address", selection.address)

    def _consumer(self, checks: Checks, field: str, consumer: str) -> None:
        if consumer and consumer not in self._dead_letters.consumers:
            checks.violate(field, f"is none of {', '.join(sorted(self._dead_letters.consumers))}")


def _address(checks: Checks, field: str, address: str) -> None:
    """Positions that no event has, such as 0, are not refused but not found, as in 0.1.0."""
    log, _, position = address.partition("/")
    if not (log and position.isascii() and position.isdigit()):
        checks.violate(field, "must be log/position, such as orders/17")


def _place(one: Listed) -> tuple[str, int]:
    return one.consumer.name, one.letter.position


def _count(progress: pb.ReplayDeadLettersResponse, one: Listed, failure: Failure | None) -> None:
    progress.replayed += not failure
    progress.failed += bool(failure)
    progress.address = one.address
    progress.error_type = failure.error_type if failure else ""
    progress.error = failure.error if failure else ""


def _shown(one: Listed, record: Recorded, parked: EventParked) -> pb.DeadLetter:
    event = _event(parked)
    return pb.DeadLetter(
        consumer=one.consumer.name,
        address=one.address,
        key=one.key,
        error_type=one.letter.error_type,
        error=one.letter.error,
        attempts=one.letter.attempts,
        behind="" if one.is_first else f"{one.consumer.source}/{one.first}",
        type=event.type if event else "",
        parked_at=timestamp(record.recorded_at),
    )


def _event(parked: EventParked) -> Recorded | None:
    """The event that is set aside; None where its bytes are none."""
    try:
        return from_wire(parked.log, parked.event)
    except DecodeError:
        return None
