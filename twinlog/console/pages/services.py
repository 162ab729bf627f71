"""The map: services, logs, twins, consumers and views, as the processes tell of themselves."""

from __future__ import annotations

from twinlog.console.looks import Look
from twinlog.console.page import Page, Query
from twinlog.console.services import Services


async def load(services: Services, query: Query) -> Look:
    """What all say."""
    return await services.look()


PAGES = [Page("/", "Map", "map.html", load, navigation="Map", key="m", icon="map")]
