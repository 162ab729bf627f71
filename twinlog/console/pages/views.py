"""Views: how far each is in the logs that it follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinlog.console.builds import Builds, builds_of, listed
from twinlog.console.drawing import state_of
from twinlog.console.looks import Look, Said
from twinlog.console.page import Page, Query, missing
from twinlog.console.services import Services
from twinlog.v1 import inspection_pb2 as pb

_ORDER = ("bad", "warn", "silent", "ok")


@dataclass(frozen=True)
class Feed:
    """A consumer that keeps a view."""

    consumer: pb.ConsumerDescription
    state: str
    per_second: float
    head: int | None
    """The position of its log's last event, where that is known."""


@dataclass(frozen=True)
class View:
    id: str
    name: str
    said: Said
    """The service that it belongs to."""
    feeds: Sequence[Feed]
    builds: Builds | None = None
    """None where its service does not tell."""

    @property
    def link(self) -> str:
        return link(self.said.service, self.name)

    @property
    def read(self) -> list[Feed]:
        """Its consumers without those of builds that queries do not read."""
        live = self.builds.live if self.builds else None
        names = {each.consumer for each in live.told.progress} if live else None
        return [feed for feed in self.feeds if names is None or feed.consumer.consumer in names]

    @property
    def state(self) -> str:
        """The worst of the consumers of what is read."""
        if self.said.silent_since:
            return "silent"
        return min((feed.state for feed in self.read), key=_ORDER.index, default="ok")

    @property
    def lag(self) -> int:
        """How many events it lacks, as far as that is known."""
        return sum(feed.consumer.lag for feed in self.read)

    @property
    def dead_letters(self) -> int:
        """How many events are set aside that it lacks."""
        return sum(feed.consumer.dead_letters for feed in self.read)


def link(service: str, view: str) -> str:
    """The URL of the page of a view."""
    return f"/views/{service}/{view}"


async def load(services: Services, query: Query) -> Sequence[View]:
    """All views, those with a problem first. Raises Unanswered."""
    look = await services.look()
    keeping = {
        said.service: said.described.views
        for said in look.services.values()
        if said.described and said.described.views
    }
    if not keeping and any(said.described is None for said in look.services.values()):
        raise missing(look, "No views are known yet.")
    answers = await listed(services, [*keeping])
    found = [
        view_of(look, look.services[service], view, builds_of(answers[service], view.view))
        for service, views in keeping.items()
        for view in views
    ]
    return sorted(found, key=lambda view: _ORDER.index(view.state))


def view_of(look: Look, said: Said, view: pb.ViewDescription, builds: Builds | None) -> View:
    """A view, as its service tells of it."""
    feeds = _feeds(look, said, view.consumers)
    return View(f"view-{said.service}-{view.view}", view.view, said, feeds, builds)


def _feeds(look: Look, said: Said, consumers: Sequence[str]) -> list[Feed]:
    return [
        Feed(
            each,
            "silent" if said.silent_since else state_of(each),
            look.rates.consumer(said.service, each.consumer),
            look.head(each.log),
        )
        for each in said.consumers
        if each.consumer in consumers
    ]


PAGES = [Page("/views", "Views", "views.html", load, navigation="Views", key="v", icon="views")]
