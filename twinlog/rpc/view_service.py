"""The edge of the builds of views: twinlog.v1.ViewService."""

from __future__ import annotations

import math

from twinlog.log.view_builds import Comparison
from twinlog.rpc.context import Context, time_left
from twinlog.rpc.validation import Checks
from twinlog.rpc.view_operations import ViewOperations
from twinlog.v1 import view_service_pb2 as pb
from twinlog.v1.view_service_pb2_grpc import ViewServiceServicer

SHARE = 10
"""Percent of the time that a build is filled in, where nobody says: it leaves what is live nearly as it was."""


class ViewService(ViewServiceServicer):
    """twinlog.v1.ViewService."""

    def __init__(self, operations: ViewOperations) -> None:
        self._operations = operations

    async def ListViews(self, request: pb.ListViewsRequest, context: Context) -> pb.ListViewsResponse:
        return pb.ListViewsResponse(
            views=[
                pb.ViewDetails(view=declared.name, versions=sorted(declared.versions), builds=builds)
                for declared, builds in await self._operations.views()
            ]
        )

    async def RebuildView(self, request: pb.RebuildViewRequest, context: Context) -> pb.RebuildViewResponse:
        checks = Checks()
        view = checks.name("view", request.view)
        _number(checks, "version", request.version)
        if not 0 <= request.share <= 100:
            checks.violate("share", f"must be 1 to 100 percent, or 0 for {SHARE}")
        checks.done()
        begun = await self._operations.rebuild(
            view, request.version, request.share or SHARE, dry_run=request.dry_run
        )
        return pb.RebuildViewResponse(build=begun)

    async def GetRebuild(self, request: pb.GetRebuildRequest, context: Context) -> pb.GetRebuildResponse:
        view, number = _asked(request)
        return pb.GetRebuildResponse(build=await self._operations.build(view, number))

    async def CompareView(self, request: pb.CompareViewRequest, context: Context) -> pb.CompareViewResponse:
        view, number = _asked(request)
        shown, comparison = await self._operations.compare(view, number)
        return pb.CompareViewResponse(build=shown, comparison=_compared(comparison))

    async def SwitchView(self, request: pb.SwitchViewRequest, context: Context) -> pb.SwitchViewResponse:
        view, number = _asked(request)
        shown, comparison = await self._operations.switch(
            view,
            number,
            differences=request.confirm_differences,
            dead_letters=request.confirm_dead_letters,
            dry_run=request.dry_run,
        )
        return pb.SwitchViewResponse(build=shown, comparison=_compared(comparison))

    async def SwitchViewBack(
        self, request: pb.SwitchViewBackRequest, context: Context
    ) -> pb.SwitchViewBackResponse:
        checks = Checks()
        view = checks.name("view", request.view)
        checks.done()
        shown = await self._operations.switch_back(
            view, dead_letters=request.confirm_dead_letters, dry_run=request.dry_run
        )
        return pb.SwitchViewBackResponse(build=shown)

    async def DropViewBuild(
        self, request: pb.DropViewBuildRequest, context: Context
    ) -> pb.DropViewBuildResponse:
        checks = Checks()
        view = checks.name("view", request.view)
        if request.build < 1:
            checks.violate("build", "is missing: give the number of the build to drop")
        checks.done()
        shown = await self._operations.drop(
            view,
            request.build,
            dry_run=request.dry_run,
            seconds_left=lambda: time_left(context, math.inf),
        )
        return pb.DropViewBuildResponse(build=shown)


def _asked(request: pb.GetRebuildRequest | pb.CompareViewRequest | pb.SwitchViewRequest) -> tuple[str, int]:
    """The view and the number of the build that a request names."""
    checks = Checks()
    view = checks.name("view", request.view)
    _number(checks, "build", request.build)
    checks.done()
    return view, request.build


def _number(checks: Checks, field: str, value: int) -> None:
    if value < 0:
        checks.violate(field, "must be 1 or more, or 0 for the newest")


def _compared(comparison: Comparison) -> pb.ViewComparison:
    return pb.ViewComparison(
        compared=comparison.compared,
        changed=comparison.changed,
        missing=comparison.missing,
        added=comparison.added,
        unsettled=comparison.unsettled,
        examples=[pb.ViewRowDifference(key=each.key, difference=each.why) for each in comparison.examples],
        columns_added=comparison.columns_added,
        columns_gone=comparison.columns_gone,
    )
