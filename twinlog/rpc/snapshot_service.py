"""The edge of the kept snapshots: twinlog.v1.SnapshotService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from twinlog.log.past import KeepsRows, KeepsSnapshots, KeptKey, KeptSnapshot
from twinlog.log.personal import SEALED_STATE
from twinlog.log.snapshots import StateCodecs
from twinlog.log.time_travel import TimeTravel
from twinlog.log.unreadable import Unreadable
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import FailedPrecondition
from twinlog.model.event import known_stream
from twinlog.model.times import timestamp
from twinlog.rpc.context import Context
from twinlog.rpc.inspection import Inspected
from twinlog.rpc.inspection_service import StreamNotFound
from twinlog.rpc.moments import as_spelled
from twinlog.rpc.paging import PageTokens
from twinlog.rpc.validation import Checks
from twinlog.v1 import snapshot_service_pb2 as pb
from twinlog.v1.snapshot_service_pb2_grpc import SnapshotServiceServicer

_ALL = 2**31 - 1
_VIEW = "view:"


class KeepsNone(FailedPrecondition):
    """Log {log} keeps no snapshots: its store cannot."""

    reason = "KEEPS_NO_SNAPSHOTS"


class SnapshotService(SnapshotServiceServicer):
    def __init__(self, inspected: Inspected, pages: PageTokens) -> None:
        self._inspected = inspected
        self._pages = pages
        self._codecs = StateCodecs(inspected.schema, inspected.personal)
        self._past = TimeTravel(inspected.log, inspected.schema, self._codecs)

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        checks = Checks()
        type, id = _stream(checks, request.stream, required=False)
        page = checks.page(request, self._pages, f"snapshots/{request.stream}", (str, str, int))
        checks.done()
        id = await self._as_spelled(type, id)
        after = KeptKey(str(page.last[0]), str(page.last[1]), int(page.last[2])) if page.last else KeptKey()
        found = await self._store.kept(type, id, after, page.limit)
        kept, token = page.of(found, lambda each: (*each.stream, each.version))
        return pb.ListSnapshotsResponse(snapshots=map(self._shown, kept), next_page_token=token)

    async def DropSnapshots(
        self, request: pb.DropSnapshotsRequest, context: Context
    ) -> pb.DropSnapshotsResponse:
        checks = Checks()
        type, id = _stream(checks, request.stream)
        checks.done()
        id = await self._as_spelled(type, id)
        if type.startswith(_VIEW):
            return pb.DropSnapshotsResponse(dropped=await self._rows.drop_rows(type.removeprefix(_VIEW), id))
        return pb.DropSnapshotsResponse(dropped=await self._store.drop_kept(type, id))

    async def RebuildSnapshots(
        self, request: pb.RebuildSnapshotsRequest, context: Context
    ) -> AsyncIterator[pb.RebuildSnapshotsResponse]:
        checks = Checks()
        type, id = _stream(checks, request.stream)
        aggregate = self._inspected.aggregate(type)
        if type and aggregate is None:
            names = ", ".join(sorted(each.name for each in self._inspected.aggregates))
            checks.violate("stream", f"must be of an aggregate that this service declares: {names or 'none'}")
        checks.done()
        assert aggregate is not None
        id = await self._as_spelled(type, id)
        ids: Sequence[str] = [id] if id else []
        if not id and aggregate.keep_every:
            ids = await self._store.long_streams(aggregate.name, aggregate.keep_every)
        for each in ids:
            yield await self._rebuilt(aggregate, each)

    async def _as_spelled(self, type: str, id: str) -> str:
        return (await as_spelled(self._inspected.log, known_stream((type, id)))).id

    async def _rebuilt(self, aggregate: AnyAggregate, id: str) -> pb.RebuildSnapshotsResponse:
        found = await self._past.rebuild(aggregate, id)
        kept = len(await self._store.kept(aggregate.name, id, KeptKey(), _ALL))
        response = pb.RebuildSnapshotsResponse(stream=f"{aggregate.name}/{id}", kept=kept)
        if isinstance(found, Unreadable):
            response.version, response.problem = found.so_far.version, str(found.why)
        else:
            response.version = found.version
            if not found.version:
                raise StreamNotFound(log=self._inspected.log.name, stream=response.stream)
        return response

    def _shown(self, kept: KeptSnapshot) -> pb.KeptSnapshot:
        return pb.KeptSnapshot(
            stream=str(kept.stream),
            version=kept.version,
            position=kept.position,
            bytes=kept.bytes,
            kept_at=timestamp(kept.kept_at),
            stale=self._stale(kept),
        )

    def _stale(self, kept: KeptSnapshot) -> str:
        if not kept.of_this_history:
            return "the log has another event at this version, or none"
        aggregate = self._inspected.aggregate(kept.stream.type)
        if aggregate is None:
            return "the service does not declare its aggregate"
        if self._codecs.schema(aggregate).removesuffix(SEALED_STATE) != kept.schema.removesuffix(
            SEALED_STATE
        ):
            return "the state's class has changed since"
        if not aggregate.keep_every:
            return "its aggregate keeps none"
        if kept.version % aggregate.keep_every:
            return f"its aggregate keeps one at every {aggregate.keep_every} versions"
        return ""

    @property
    def _store(self) -> KeepsSnapshots:
        log = self._inspected.log
        if not isinstance(log, KeepsSnapshots):
            raise KeepsNone(log=log.name)
        return log

    @property
    def _rows(self) -> KeepsRows:
        log = self._inspected.log
        if not isinstance(log, KeepsRows):
            raise KeepsNone(log=log.name)
        return log


def _stream(checks: Checks, text: str, *, required: bool = True) -> tuple[str, str]:
    """A type and an id, or a type alone."""
    type, slash, id = text.partition("/")
    if (required and not type) or (slash and not (type and id)):
        checks.violate(
            "stream", "must be type/id, such as order/01890a5d-ac96-774b-bcce-b302099a8057, or a type"
        )
    return type, id
