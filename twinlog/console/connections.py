"""A connection of a browser to the console; there are only so many of them at a time."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_MOST = 512
"""Of connections: twice as many as there may be live streams."""
_numbers = count()


class Connection(H11Protocol):
    """Beyond a number of them the oldest makes room, of those that are asked nothing while there are any: it may never
    say what it asks for, and no server's timeout is for that."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self._number = next(_numbers)

    @property
    def _place(self) -> tuple[bool, int]:
        asked = self.cycle is not None and not self.cycle.response_complete
        return asked, self._number

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        others = [each for each in self.connections if isinstance(each, Connection)]
        if len(others) >= _MOST:
            oldest = min(others, key=lambda each: each._place)
            self.connections.discard(oldest)  # at once, as others may come before it is closed
            oldest.transport.abort()
        super().connection_made(transport)
