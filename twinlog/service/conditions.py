"""What has to hold before a service begins: a start checks it, and so does ``twinlog doctor``, by the same lists.

A condition only reads. What a start keeps, it keeps once all of them hold, so that one that is refused has changed
nothing that the next is compared with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from twinlog.model.errors import Unavailable

ADDRESS = "address"
"""The name of the one that does not hold where the service itself is running."""
STREAMS = "streams"
"""The name of the one that nobody can tell while NATS is away; a start goes on then."""


class Condition(NamedTuple):
    """One thing that has to hold."""

    name: str
    """For people."""
    check: Callable[[], Awaitable[object] | None]
    """Raises ConfigurationError where it does not hold, and Unavailable where nobody can tell now."""

    async def hold(self) -> None:
        """Checks it. Raises what :attr:`check` does."""
        if (checking := self.check()) is not None:
            await checking


async def hold(conditions: Sequence[Condition]) -> None:
    """Checks them in order. What nobody can tell now is no refusal: a server that is away is an outage."""
    for condition in conditions:
        with suppress(Unavailable):
            await condition.hold()
