"""The edge of the sagas: twinlog.v1.SagaService."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from twinlog.log.past import NOW
from twinlog.log.saga_list import NEWEST, SagaKey, SagaList, SagasFromTheOldest, SelectedSagas
from twinlog.model.clock import Clock
from twinlog.model.saga import Abort, Retry, Skip
from twinlog.model.saga_list import ANY, NOT_ENDED, ChosenSagas, SagaRow
from twinlog.rpc.context import Context, time_left
from twinlog.rpc.moments import moment_of
from twinlog.rpc.owners import Owners
from twinlog.rpc.paging import Page, PageTokens
from twinlog.rpc.saga_mapping import listed
from twinlog.rpc.saga_operations import FindSagas, FoundSaga, Order, SagaOperations
from twinlog.rpc.validation import Checks
from twinlog.v1 import saga_service_pb2 as pb
from twinlog.v1.saga_service_pb2_grpc import SagaServiceServicer

_ASK_SECONDS = 2.0
"""How long each question to another service may take."""
_SHARE = 20
"""A count is kept for so many times as long as it took: counting takes 5 % of the time at most."""
_MOST_KEPT = 100
_Key = tuple[frozenset[int], bytes]
R = TypeVar("R", bound=Message)


class SagaService(SagaServiceServicer):
    def __init__(
        self, operations: SagaOperations, sagas: SagaList, owners: Owners, pages: PageTokens, clock: Clock
    ) -> None:
        self._operations = operations
        self._list = sagas
        self._owners = owners
        self._pages = pages
        self._clock = clock
        self._counts = _Counts(sagas)

    async def ListSagas(self, request: pb.ListSagasRequest, context: Context) -> pb.ListSagasResponse:
        checks = Checks()
        chosen = self._chosen(checks, "filter", request.filter, NOT_ENDED if request.not_ended else ANY)
        asked = request.filter.SerializeToString(deterministic=True)
        order = (request.oldest_first, request.not_ended)
        filters = repr(("sagas", asked, *(order if any(order) else ())))
        page = checks.page(request, self._pages, filters)
        if request.oldest_first and not isinstance(self._list, SagasFromTheOldest):
            checks.violate("oldest_first", "is not known to the list that this service keeps of its sagas")
        checks.done()
        rows, token = page.of(await self._rows(request, chosen, page), lambda row: row.started_position)
        return pb.ListSagasResponse(sagas=map(listed, rows), next_page_token=token)

    async def CountSagas(self, request: pb.CountSagasRequest, context: Context) -> pb.CountSagasResponse:
        checks = Checks()
        chosen = self._chosen(checks, "filter", request.filter, ANY)
        checks.done()
        return pb.CountSagasResponse(
            counts=[
                pb.SagaCount(
                    status=status,
                    count=await self._counts.of(
                        chosen._replace(statuses=frozenset({status})), request.filter
                    ),
                )
                for status in sorted(ANY)
            ]
        )

    async def _rows(self, request: pb.ListSagasRequest, chosen: ChosenSagas, page: Page) -> Sequence[SagaRow]:
        if request.oldest_first and isinstance(self._list, SagasFromTheOldest):
            return await self._list.oldest(chosen, page.before if page.last else 0, page.limit)
        return await self._list.page(chosen, page.before if page.last else NEWEST, page.limit)

    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        checks = Checks()
        key = self._key(checks, "", request.saga, request.saga_id)
        as_of = moment_of(checks, "as_of", request.as_of)
        checks.done()
        found = await self._operations.get(key, as_of)
        if as_of == NOW and not request.owners_unasked:
            await self._tell(found, time_left(context, _ASK_SECONDS))
        return pb.GetSagaResponse(saga=found.shown)

    async def RetrySagas(self, request: pb.RetrySagasRequest, context: Context) -> pb.RetrySagasResponse:
        return await self._intervene(request, Retry, pb.RetrySagasResponse, context)

    async def SkipSagaSteps(
        self, request: pb.SkipSagaStepsRequest, context: Context
    ) -> pb.SkipSagaStepsResponse:
        return await self._intervene(request, Skip, pb.SkipSagaStepsResponse, context)

    async def AbortSagas(self, request: pb.AbortSagasRequest, context: Context) -> pb.AbortSagasResponse:
        return await self._intervene(request, Abort, pb.AbortSagasResponse, context)

    async def _intervene(self, request: Any, command: type[Order], response: type[R], context: Context) -> R:
        return await self._operations.intervene(
            request, context, command, lambda checks: self._selection(checks, request.selection), response
        )

    async def _tell(self, found: FoundSaga, seconds: float) -> None:
        asked = [
            self._owners.tell(told, command, seconds)
            for command, told in zip(found.sent, found.shown.awaited, strict=True)
            if command
        ]
        await asyncio.gather(*asked)

    def _selection(self, checks: Checks, selection: pb.SagaSelection) -> FindSagas:
        """A search for the selected sagas."""
        match selection.WhichOneof("by"):
            case "filter":
                chosen = self._chosen(checks, "selection.filter", selection.filter, NOT_ENDED)
                return lambda limit: self._list.select(chosen, limit)
            case "saga_id":
                key = self._key(checks, "selection.", selection.saga, selection.saga_id)
            case _:
                checks.violate("selection", "is missing: give saga_id or filter")
                key = SagaKey("", "")

        async def one(_limit: int) -> SelectedSagas:
            return SelectedSagas([key], 1)

        return one

    def _chosen(
        self,
        checks: Checks,
        field: str,
        chosen: pb.SagaFilter,
        unspecified: frozenset[pb.SagaStatus.ValueType],
    ) -> ChosenSagas:
        status = checks.enum(f"{field}.status", chosen.status, pb.SagaStatus, required=False)
        if chosen.saga:
            self._named(checks, f"{field}.saga", chosen.saga)
        age = checks.age(f"{field}.older_than", chosen.older_than)
        return ChosenSagas(
            frozenset({pb.SagaStatus.ValueType(status)}) if status else unspecified,
            self._clock.now() - age,
            chosen.saga,
            checks.id(f"{field}.subject", chosen.subject),
        )

    def _key(self, checks: Checks, field: str, saga: str, saga_id: str) -> SagaKey:
        sagas = self._operations.sagas
        if saga:
            self._named(checks, f"{field}saga", saga)
        elif len(sagas) == 1:
            [saga] = sagas
        else:
            checks.violate(f"{field}saga", f"is missing: give one of {', '.join(sorted(sagas))}")
        if not saga_id:
            checks.violate(f"{field}saga_id", "is missing: give the id of a saga")
        return SagaKey(saga, checks.id(f"{field}saga_id", saga_id))

    def _named(self, checks: Checks, field: str, saga: str) -> None:
        if saga not in self._operations.sagas:
            checks.violate(field, f"is none of {', '.join(sorted(self._operations.sagas))}")


class _Count(NamedTuple):
    number: int
    until: float


class _Counts:
    """How many sagas of a list there are: counted again only after some time, where counting takes long."""

    def __init__(self, sagas: SagaList) -> None:
        self._list = sagas
        self._kept: OrderedDict[_Key, _Count] = OrderedDict()

    async def of(self, chosen: ChosenSagas, asked: pb.SagaFilter) -> int:
        """How many sagas are chosen; ``asked``: the filter that says so, for which the count is kept."""
        key = (frozenset(map(int, chosen.statuses)), asked.SerializeToString(deterministic=True))
        began = time.monotonic()
        kept = self._kept.get(key)
        if kept and began < kept.until:
            return kept.number
        number = (await self._list.select(chosen, 1)).total
        now = time.monotonic()
        self._kept[key] = _Count(number, now + _SHARE * (now - began))
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return number
