"""What a service is given from outside: streams, leases, a clock, where it serves, and who observes it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from twinlog._aio.retrying import Randomness
from twinlog.consume import Middleware
from twinlog.consume.filling import OpenLog
from twinlog.consume.kept_views import KeptViews
from twinlog.log.declarations import KeptConsumers
from twinlog.log.heads import Sign, unsigned
from twinlog.log.keys import Keys
from twinlog.log.lease import Lease
from twinlog.log.ports import Log
from twinlog.log.saga_list import SagaListStore
from twinlog.log.twin import Twin
from twinlog.memory.keys import MemoryKeys
from twinlog.model.clock import Clock, Ids
from twinlog.observe.tracing import NO_TRACING, Tracing
from twinlog.rpc import Middleware as RpcMiddleware
from twinlog.rpc.freshness import Messages
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


async def for_ever() -> None:
    """Never returns."""
    await asyncio.Event().wait()


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a service is given by its process, by a test, or by a simulation."""

    twin: Callable[[str], Twin]
    """The stream of a log, by the log's name."""
    lease: Callable[[str], Lease]
    """The right to do a piece of work that one replica is enough for."""
    clock: Clock
    ids: Ids
    on_crash: Callable[[str, BaseException], None]
    """Is called when a task raises."""
    randomness: Randomness = random
    """The jitter of retries."""
    messages: Messages = field(default_factory=NoMessages)
    """Between its replicas; they may get lost."""
    endpoint: Endpoint = Endpoint()
    until_stopped: Callable[[], Awaitable[object]] = for_ever
    """Returns when the service is to stop serving."""
    services: Mapping[str, str] = field(default_factory=dict)
    """The addresses of other services, by name; they are asked what has become of a saga's command."""
    open_log: OpenLog = out_of_reach
    """Opens the logs of other services for rebuilding a view."""
    observed: Observed = Observed()
    tracing: Tracing = NO_TRACING
    """Goes around its parts; ``observed`` goes around that."""
    sign: Sign = unsigned
    """Signs the heads of the log's chain."""
    keys: Keys = field(default_factory=MemoryKeys)
    """The persons' keys, which seal personal fields."""
    saga_list: SagaListStore | None = None
    """Where the list of its sagas is kept; None: in memory."""
    kept_consumers: KeptConsumers | None = None
    """Those that programs of its log had before; None: it begins with nothing."""
    kept_views: KeptViews | None = None
    """The views that programs of its log had before."""
    complete: Callable[[], Awaitable[None]] | None = None
    """What is done once all that has to hold before it serves does; until then nothing of it runs. None: it runs at
    once."""
