"""A program up to where it would serve: it is wired as at a start, and nothing of it runs.

No cursor, timer or relay begins, no address is listened at, and nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twinlog.consume.kept_views import KeptViews
from twinlog.log.declarations import KeptConsumers
from twinlog.log.lease import ALWAYS_HELD
from twinlog.log.system import RandomIds, SystemClock
from twinlog.log.twin import Twin
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.saga_list import PostgresSagaList
from twinlog.rpc import PageTokens
from twinlog.service.conditions import Condition
from twinlog.service.environment import Environment
from twinlog.service.process import STAND_IN, StandIn, endpoint
from twinlog.service.runtime import Main, Shutdown
from twinlog.service.service import Service
from twinlog.service.settings import Settings
from twinlog.service.spec import ServiceSpec

WIRED_SECONDS = 15.0


async def rehearse(main: Main, stand_in: StandIn) -> None:
    """Calls a program's ``main`` with what stands in for its service.

    Raises what it raises, and TimeoutError where it does not come to its end.
    """
    task = asyncio.current_task()
    assert task is not None
    before = STAND_IN.set(stand_in)
    try:
        async with asyncio.timeout(WIRED_SECONDS):
            await main(_Stopping(task))
    finally:
        STAND_IN.reset(before)


class _Stopping(Shutdown):
    """A process that is to stop at once, so that nothing is waited for."""

    @property
    def wanted(self) -> bool:
        return True

    async def wait(self) -> None:
        """Returns at once."""


class Rehearsed(Service):
    """A service that never runs. Its log may be out of reach: wiring asks for nothing."""

    def __init__(
        self,
        spec: ServiceSpec,
        settings: Settings,
        log: PostgresLog,
        twin: Callable[[str], Twin],
        *,
        kept_consumers: KeptConsumers | None = None,
        kept_views: KeptViews | None = None,
    ) -> None:
        super().__init__(
            spec.name,
            log,
            Environment(
                twin=twin,
                lease=lambda _work: ALWAYS_HELD,
                clock=SystemClock(),
                ids=RandomIds(),
                on_crash=lambda _task, _error: None,
                saga_list=PostgresSagaList(log),
                endpoint=endpoint(spec, settings),
                kept_consumers=kept_consumers,
                kept_views=kept_views,
            ),
            schema=spec.schema,
            aggregates=spec.aggregates,
        )
        self.settings = settings
        self.to_hold: Sequence[Condition] | None = None
        """What has to hold before it would serve; None: it was not asked to serve."""

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        work.close()

    async def page_tokens(self) -> PageTokens:
        return PageTokens(b"nobody is served")

    async def serve(self, *servicers: object, middleware: Any = ()) -> None:
        services, _ = self._served(servicers)
        self.to_hold = self.conditions(services)
