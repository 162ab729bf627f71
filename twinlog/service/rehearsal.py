"""A program up to where it would serve: it is wired as at a start, and nothing of it runs.

No cursor, timer or relay begins, no address is listened at, and nothing is written.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from typing import Any

from twinlog.log.lease import ALWAYS_HELD
from twinlog.log.system import RandomIds, SystemClock
from twinlog.log.twin import Twin
from twinlog.model.errors import ConfigurationError
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.saga_list import PostgresSagaList
from twinlog.rpc import PageTokens, Registration
from twinlog.service.conditions import Condition
from twinlog.service.environment import Environment
from twinlog.service.process import STAND_IN, StandIn, Wired, endpoint
from twinlog.service.runtime import Main, Shutdown
from twinlog.service.service import Service
from twinlog.service.settings import Settings
from twinlog.service.spec import ServiceSpec
from twinlog.service.start import Start

WIRED_SECONDS = 15.0


async def rehearse(main: Main, stand_in: StandIn) -> None:
    """Calls a program's ``main`` with what stands in for its service, up to where it is wired.

    Raises what it raises, :class:`Listens`, and TimeoutError where it does not come to its end.
    """
    task = asyncio.current_task()
    assert task is not None
    _heed_sockets()
    bound: list[str] = []
    before, unbound = STAND_IN.set(stand_in), _BOUND.set(bound)
    try:
        async with asyncio.timeout(WIRED_SECONDS):
            with suppress(Wired):
                await main(_Stopping(task))
    except Exception as error:
        if bound and not isinstance(error, TimeoutError):
            raise Listens(address=bound[0]) from error
        raise
    finally:
        STAND_IN.reset(before)
        _BOUND.reset(unbound)
    if bound:
        raise Listens(address=bound[0])


class Listens(ConfigurationError):
    """main listens at {address} before its service is wired, so it would serve now, beside the program that runs: give
    its wiring to open_service(…, wire=wire), where it ends when nothing else is asked for."""

    reason = "MAIN_LISTENS"


_BOUND: ContextVar[list[str] | None] = ContextVar("_BOUND", default=None)
"""Where a program that is rehearsed wants to listen; None: none is."""


@cache
def _heed_sockets() -> None:
    """Keeps whatever is rehearsed, in any task of it, from binding a socket."""

    def heed(event: str, given: tuple[Any, ...]) -> None:
        if event == "socket.bind" and (bound := _BOUND.get()) is not None:
            address = given[1]
            bound.append(":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address))
            raise Listens(address=bound[-1])

    sys.addaudithook(heed)


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
        start: Start | None = None,
    ) -> None:
        """``start``: what the start of its programs is compared with; None: its tables are not there."""
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
                kept_consumers=start.consumers if start else None,
                kept_views=start.views if start else None,
            ),
            schema=spec.schema,
            aggregates=spec.aggregates,
        )
        self.settings = settings
        self.to_hold: Sequence[Condition] | None = None
        """What has to hold before it would serve; None: it was not asked to serve."""

    @property
    def followed(self) -> Mapping[str, Collection[str]]:
        """By log of another service, the short names of the event types that are wanted of it; empty: all."""
        found: dict[str, set[str]] = {}
        every = {each.source for each in self._consumers if not each.types}
        for each in self._consumers:
            if each.source != self.log.name:
                found.setdefault(each.source, set()).update(each.types)
        return {log: () if log in every else types for log, types in found.items()}

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        work.close()

    async def page_tokens(self) -> PageTokens:
        return PageTokens(b"nobody is served")

    async def serve(self, *servicers: object, middleware: Any = ()) -> None:
        services, _ = self._served(servicers)
        await self._prepare(services)

    async def _prepare(self, services: Sequence[Registration]) -> None:
        self.to_hold = self.conditions(services)
