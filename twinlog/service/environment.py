"""What a service is given from outside: messages between replicas, where it serves, and who observes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from twinlog.consume import Middleware
from twinlog.log.ports import Log
from twinlog.log.twin import Twin
from twinlog.rpc import Middleware as RpcMiddleware
from twinlog.rpc.handlers import OnRefused


class NoMessages:
    """Every message gets lost."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Loses it."""

    async def subscribe(self, subject: str, *, cb: Callable[[Any], Awaitable[None]]) -> None:
        """Never hears any."""


class Endpoint(NamedTuple):
    """Where a service is called."""

    address: str = "127.0.0.1:0"
    """host:port; port 0: any that is free."""
    setting: str = "the address"
    """Where the address is set, for the error where it cannot be had."""
    domain: str = "twinlog"
    """The ErrorInfo domain of its errors."""
    shared: bool = False
    """Whether replicas listen there, too."""


class Observed(NamedTuple):
    """What goes around the parts of a service, so that they are observed; by default nothing does."""

    log: Callable[[Log], Log] = lambda log: log
    """Around the log that the writer decides and appends on."""
    calls: Sequence[RpcMiddleware] = ()
    """Around each method, outside of other middleware."""
    consumers: Sequence[Middleware] = ()
    """Around each consumer, outside of other middleware."""
    on_refused: OnRefused = lambda _method, _reason: None
    """Is told of calls that never come to ``calls``."""


@asynccontextmanager
async def out_of_reach(_log: str, _twin: Twin) -> AsyncIterator[None]:
    """Logs of other services cannot be read: builds of views are filled from the streams."""
    yield None
