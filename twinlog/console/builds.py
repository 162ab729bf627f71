"""What services say of the builds of their views, and what operators have them do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from twinlog.console.answers import Answer
from twinlog.console.services import Services, by_console
from twinlog.v1 import view_service_pb2 as pb
from twinlog.v1.view_service_pb2_grpc import ViewServiceStub

LONG_SECONDS = 3_600.0
"""A large view takes long to compare."""
_KNOWN_SINCE = 2021
"""A build that nobody began says of an earlier year when it was begun."""
_STATES: Mapping[int, tuple[str, str]] = {
    pb.VIEW_BUILD_STATE_FILLING: ("run", "filling"),
    pb.VIEW_BUILD_STATE_READY: ("info", "ready"),
    pb.VIEW_BUILD_STATE_LIVE: ("ok", "live"),
    pb.VIEW_BUILD_STATE_DROPPED: ("idle", "dropped"),
    pb.VIEW_BUILD_STATE_ORPHANED: ("warn", "kept by nobody here"),
}


@dataclass(frozen=True)
class Build:
    told: pb.ViewBuild

    @property
    def number(self) -> int:
        return self.told.build

    @property
    def kind(self) -> str:
        return _STATES.get(self.told.state, ("idle", ""))[0]

    @property
    def word(self) -> str:
        return _STATES.get(self.told.state, ("", "not known"))[1]

    @property
    def live(self) -> bool:
        """Whether queries read it."""
        return self.told.state == pb.VIEW_BUILD_STATE_LIVE

    @property
    def filling(self) -> bool:
        """Whether it is far behind the streams."""
        return self.told.state == pb.VIEW_BUILD_STATE_FILLING

    @property
    def ready(self) -> bool:
        """Whether it could be switched to."""
        return self.told.state == pb.VIEW_BUILD_STATE_READY

    @property
    def was_live(self) -> bool:
        """Whether queries have read it, and no longer do."""
        return self.told.HasField("live_until") and not self.live

    @property
    def begun(self) -> Any:
        """When somebody began it; None: it was there from the start."""
        at = self.told.begun_at
        return at if at.ToDatetime(UTC).year >= _KNOWN_SINCE else None

    @property
    def position(self) -> int:
        """How many events it has come past, over all logs."""
        return sum(each.position for each in self.told.progress)

    @property
    def head(self) -> int:
        """How many there are."""
        return sum(each.head for each in self.told.progress)

    @property
    def lag(self) -> int:
        """How many events of the streams it has not come past."""
        return max(0, self.head - self.position)

    @property
    def dead_letters(self) -> int:
        """How many events it has set aside."""
        return sum(each.dead_letters for each in self.told.progress)

    @property
    def problems(self) -> Sequence[str]:
        """What keeps it, if anything does."""
        return [f"{each.consumer}: {each.problem}" for each in self.told.progress if each.problem]

    @property
    def left(self) -> str:
        """How long it will take."""
        seconds = self.told.seconds_left
        if seconds < 0:
            return "time left not known yet"
        return f"{_lasting(seconds)} left" if self.lag else "caught up"


@dataclass(frozen=True)
class Builds:
    """A view with its builds, by number."""

    view: str
    versions: Sequence[int]
    builds: Sequence[Build]

    @property
    def live(self) -> Build | None:
        """The one that queries read."""
        return next((each for each in self.builds if each.live), None)

    @property
    def under_way(self) -> Build | None:
        """One that is to be switched to."""
        return next((each for each in self.builds if not each.live and not each.was_live), None)

    @property
    def before(self) -> Build | None:
        """The one that queries would read again."""
        left = [each for each in self.builds if each.was_live]
        return max(left, key=lambda each: each.told.live_until.ToNanoseconds(), default=None)


async def listed(services: Services, names: Sequence[str]) -> dict[str, Answer[pb.ListViewsResponse]]:
    """What each of some services says of its views."""
    return await services.ask_all(
        by_console(ViewServiceStub, "ListViews"), pb.ListViewsRequest(), services=names
    )


def builds_of(answer: Answer[pb.ListViewsResponse] | None, view: str) -> Builds | None:
    """The builds of one view; None where that was not told."""
    for each in answer.message.views if answer and answer.message else ():
        if each.view == view:
            return Builds(view, list(each.versions), [Build(build) for build in each.builds])
    return None


async def rehearse(services: Services, service: str, method: str, request: Any) -> tuple[Answer[Any], str]:
    """What an order that is a dry run would come to, and what has to be confirmed of events that only the new build
    has set aside; empty: nothing."""
    answer = await call(services, service, method, request)
    if not answer.reason.endswith("VIEW_BUILD_HAS_DEAD_LETTERS"):
        return answer, ""
    request.confirm_dead_letters = True
    return await call(services, service, method, request), answer.problem


async def call(services: Services, service: str, method: str, request: Any) -> Answer[Any]:
    """An answer of the service, in the console's name."""
    return await services.ask(service, by_console(ViewServiceStub, method), request, seconds=LONG_SECONDS)


def differs(comparison: pb.ViewComparison) -> bool:
    """Whether the rows of two builds differ."""
    return any((comparison.changed, comparison.missing, comparison.added, comparison.unsettled))


def _lasting(seconds: float) -> str:
    for name, unit in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(1, round(seconds))} s"
