"""The map of all services, and a page for each, as the processes tell of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinlog.console.drawing import Drawing, draw, state_of
from twinlog.console.looks import Look, Said
from twinlog.console.page import Gone, Page, Query
from twinlog.console.services import Services
from twinlog.v1 import inspection_pb2 as pb


@dataclass(frozen=True)
class Map:
    look: Look
    drawing: Drawing

    @property
    def answering(self) -> int:
        return sum(
            said.described is not None and not said.silent_since for said in self.look.services.values()
        )

    @property
    def nothing_yet(self) -> bool:
        """Whether it is known that no log has an event."""
        everybody = 0 < self.answering == len(self.look.services)
        return everybody and not any(each.log.head for each in self.drawing.logs if each.log)

    @property
    def consumers(self) -> Sequence[pb.ConsumerDescription]:
        return [each for said in self.look.services.values() for each in said.consumers]

    @property
    def behind(self) -> int:
        """How many events wait for consumers."""
        return sum(each.lag for each in self.consumers if each.lag_known)

    @property
    def dead_letters(self) -> int:
        """How many events are set aside."""
        return sum(each.dead_letters for each in self.consumers)


@dataclass(frozen=True)
class Service:
    said: Said
    rates: dict[str, float]
    states: dict[str, str]
    """By consumer."""


async def load_map(services: Services, query: Query) -> Map:
    look = await services.look()
    return Map(look, draw(look))


async def load_service(services: Services, query: Query) -> Service:
    """One service. Raises Gone."""
    name, look = query.get("service"), await services.look()
    if name not in look.services:
        raise Gone(f"No service is called {name}; there are {', '.join(look.services)}.")
    said = look.services[name]
    rates = {each.consumer: look.rates.consumer(name, each.consumer) for each in said.consumers}
    return Service(said, rates, {each.consumer: state_of(each) for each in said.consumers})


PAGES = [
    Page("/", "Map", "map.html", load_map, navigation="Map", key="m", icon="map"),
    Page("/services/{service}", "{service}", "service.html", load_service),
]
