"""Views: how far each is in the logs that it follows."""

from __future__ import annotations

from twinlog.console.page import Page, Query
from twinlog.console.services import Services


async def load(services: Services, query: Query) -> None:
    """Nothing yet."""


PAGES = [Page("/views", "Views", "views.html", load, navigation="Views", key="v", icon="views")]
