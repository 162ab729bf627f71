"""The log: its newest events, and those to come."""

from __future__ import annotations

from twinlog.console.page import Page, Query
from twinlog.console.services import Services


async def load(services: Services, query: Query) -> None:
    """Nothing yet."""


PAGES = [Page("/log", "Log", "log.html", load, navigation="Log", key="l", icon="log")]
