"""Sagas: where each stands, and what it waits for."""

from __future__ import annotations

from twinlog.console.page import Page, Query
from twinlog.console.services import Services


async def load(services: Services, query: Query) -> None:
    """Nothing yet."""


PAGES = [Page("/sagas", "Sagas", "sagas.html", load, navigation="Sagas", key="s", icon="sagas")]
