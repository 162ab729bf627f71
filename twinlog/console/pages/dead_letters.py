"""Dead letters: events that could not be handled, and what is to become of them."""

from __future__ import annotations

from twinlog.console.page import Page, Query
from twinlog.console.services import Services


async def load(services: Services, query: Query) -> None:
    """Nothing yet."""


PAGES = [
    Page(
        "/dead-letters",
        "Dead letters",
        "dead_letters.html",
        load,
        navigation="Dead letters",
        key="d",
        icon="dead_letters",
    )
]
