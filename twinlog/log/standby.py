"""What a replica that does not copy a log notices of the one that does: whether the stream goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from twinlog._aio.retrying import Retrying
from twinlog.log import say
from twinlog.log.lease import Lease, holder_of
from twinlog.log.ports import Log
from twinlog.log.twin import Twin, TwinMissing
from twinlog.model.errors import Unavailable

_LOOK_SECONDS = 5.0
_LOOKS_IN_VAIN = 3
"""After so many of them without a new event in the stream it stands still: a lease would have passed on by then."""


class Standby:
    """Looks at the stream of a log that another replica copies.

    That one may be well and copy into the stream of the same name on another NATS server. The stream that is read here
    then stands still, and nobody else knows.
    """

    def __init__(self, log: Log, twin: Twin, lease: Lease) -> None:
        self._log = log
        self._twin = twin
        self._lease = lease
        self._last = self._wanted = self._in_vain = 0
        self._retrying = Retrying(
            say_failing=say.warning("relay.stands_still", log=log.name),
            say_working=say.info("relay.goes_on", log=log.name),
        )

    @property
    def problem(self) -> str | None:
        """That the stream stands still, or None."""
        return self._retrying.problem

    async def run(self, copies_here: Callable[[], bool]) -> None:
        """Looks now and then, endlessly, while another replica copies."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if copies_here():
                self._goes_on(0, 0)
                continue
            try:
                await self._look()
            except Exception:  # what ails log or stream is told by those who use them
                self._in_vain = 0

    async def _look(self) -> None:
        head = await self._log.head()
        try:
            last = (await self._twin.state()).last
        except TwinMissing:
            last = 0
        if last != self._last or last >= self._wanted:
            self._goes_on(last, head)
            return
        self._in_vain += 1
        if self._in_vain >= _LOOKS_IN_VAIN:
            self._retrying.failed(
                Unavailable(
                    f"stream {self._twin.name} stands still at event {last}, log {self._log.name} is at {head}, and "
                    f"{holder_of(self._lease) or 'another replica'} copies it; that one is held up, or its NATS_URL "
                    f"names another server than that of this one"
                )
            )

    def _goes_on(self, last: int, head: int) -> None:
        self._last, self._wanted, self._in_vain = last, head, 0
        self._retrying.healed()
