"""The services that the console asks: a channel each."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import grpc
import grpc.aio

from twinlog.console.answers import Answer, Why, failed
from twinlog.console.looks import Look, Looking

T = TypeVar("T")
DEADLINE_SECONDS = 1.5
_OPTIONS = [
    # A service that was restarted is seen again within a second. A least backoff would also be how long a connection
    # may take: a service that is slow to take one would never be reached, and be told to be gone.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
]
_MOST_KEPT = 128
_NOT_YET = "no answer yet"
AT_ONCE_SECONDS = 0.15
"""How long a page is kept back by what it can do without at first: one in sight comes within 0.2 s."""
_LEAST_SECONDS = 0.03
_late: ContextVar[set[str] | None] = ContextVar("late", default=None)
"""Inside of :func:`at_once`, the services that have not answered in time."""


class _Load(NamedTuple):
    """A page that is being loaded."""

    began: float
    patient: bool


_load: ContextVar[_Load | None] = ContextVar("load", default=None)


@contextmanager
def loading(*, patient: bool = False) -> Iterator[None]:
    """A block that loads a page: it waits for no service that is known to be silent.

    ``patient``: gives a service that is known to be slow the time that it takes, as nobody waits for the page.
    """
    token = _load.set(_Load(time.monotonic(), patient))
    try:
        yield
    finally:
        _load.reset(token)


def seconds_at_once() -> float | None:
    """How long what is asked now keeps back a page that somebody waits for; None: nobody does."""
    load = _load.get()
    if load is None or load.patient:
        return None
    return max(_LEAST_SECONDS, load.began + AT_ONCE_SECONDS - time.monotonic())


@contextmanager
def at_once() -> Iterator[None]:
    """A block that asks for what a page can do without at first, and that comes with the next load, while it is live.

    Where somebody waits for the page, a service has a moment for its answer, and is not asked again once it had one.
    """
    token = _late.set(set() if seconds_at_once() is not None else None)
    try:
        yield
    finally:
        _late.reset(token)


class Services:
    """All services, by name. Calls go to several at once; none of them raises for what a service does.

    While a page is loaded, a service that did not answer when it was asked last what it is about is not asked at all.
    """

    def __init__(self, addresses: Mapping[str, str], channels: Mapping[str, grpc.aio.Channel]) -> None:
        self.addresses = addresses
        """host:port by name, in the order in which they are shown."""
        self.looking = Looking(addresses, self.ask)
        self._kept: defaultdict[type, OrderedDict[Any, Any]] = defaultdict(OrderedDict)
        self._channels = channels

    def keep(self, key: Any, value: Any) -> None:
        """Keeps a value from one load of a page to the next: to ask for less, or to show while a service is silent.

        Of many with one type, the one that was kept first is forgotten.
        """
        kept = self._kept[type(value)]
        kept[key] = value
        kept.move_to_end(key)
        while len(kept) > _MOST_KEPT:
            kept.popitem(last=False)

    def kept(self, kind: type[T], key: Any) -> T | None:
        """The value of this type that was kept last; None: there is none."""
        return self._kept[kind].get(key)

    @property
    def names(self) -> list[str]:
        """In the order in which they are shown."""
        return [*self.addresses]

    async def look(self) -> Look:
        """What all services say of themselves, at most about a second old; see :class:`Look`."""
        return await self.looking.look()

    async def ask(
        self,
        service: str,
        method: Callable[[grpc.aio.Channel], Callable[..., Awaitable[T]]],
        request: Any,
        *,
        seconds: float = DEADLINE_SECONDS,
    ) -> Answer[T]:
        """The answer to one call, such as ``ask("orders", lambda c: InspectionServiceStub(c).Describe, request)``."""

        async def call(seconds: float) -> T:
            return await method(self._channels[service])(request, timeout=seconds)

        return await self._answered(service, call, seconds)

    async def ask_all(
        self,
        method: Callable[[grpc.aio.Channel], Callable[..., Awaitable[T]]],
        request: Any,
        *,
        services: Iterable[str] | None = None,
        seconds: float = DEADLINE_SECONDS,
    ) -> dict[str, Answer[T]]:
        """The answer of each, by name; of all services, or of some."""
        asked = self.names if services is None else [*services]
        answers = await asyncio.gather(*(self.ask(each, method, request, seconds=seconds) for each in asked))
        return dict(zip(asked, answers, strict=True))

    async def collect(
        self,
        service: str,
        method: Callable[[grpc.aio.Channel], Callable[..., AsyncIterator[T]]],
        request: Any,
        *,
        seconds: float = DEADLINE_SECONDS,
    ) -> Answer[list[T]]:
        """All responses of a call that answers with a stream and ends it."""

        async def call(seconds: float) -> list[T]:
            return [each async for each in method(self._channels[service])(request, timeout=seconds)]

        return await self._answered(service, call, seconds)

    async def collect_all(
        self,
        method: Callable[[grpc.aio.Channel], Callable[..., AsyncIterator[T]]],
        request: Any,
        *,
        services: Iterable[str],
        seconds: float = DEADLINE_SECONDS,
    ) -> dict[str, Answer[list[T]]]:
        """The same of several services, by name."""
        asked = [*services]
        answers = await asyncio.gather(
            *(self.collect(each, method, request, seconds=seconds) for each in asked)
        )
        return dict(zip(asked, answers, strict=True))

    async def _answered(
        self, service: str, call: Callable[[float], Awaitable[T]], seconds: float
    ) -> Answer[T]:
        """What a call comes to, which is not made to a service that is known to be silent."""
        if silence := self._silence(service):
            return silence
        if service not in self._channels:
            return Answer(
                service, None, Why.UNKNOWN, f"TWINLOG_SERVICES names no {service}", "UNKNOWN_SERVICE"
            )
        seconds = self._seconds(service, seconds)
        try:
            return Answer(service, await call(seconds))
        except grpc.aio.AioRpcError as error:
            return self._told(failed(service, error, seconds), seconds)

    def _seconds(self, service: str, seconds: float) -> float:
        """How long a call may take."""
        if _late.get() is not None and (moment := seconds_at_once()) is not None:
            return min(seconds, moment)
        load = _load.get()
        return max(seconds, self.looking.patience(service)) if load and load.patient else seconds

    def _told(self, answer: Answer[T], seconds: float) -> Answer[T]:
        """What did not come in time, of a service that answers otherwise: it is slow then, not silent."""
        if answer.why is Why.SLOW and (late := _late.get()) is not None:
            late.add(answer.service)
            return replace(answer, problem=_NOT_YET)
        if answer.why is not Why.SLOW or not self.looking.lives(answer.service):
            return answer
        return replace(answer, problem=f"it is slow, and has not answered this in {seconds:g} s")

    def _silence(self, service: str) -> Answer[Any] | None:
        known = self.looking.silence(service) if _load.get() else None
        if known is None and service in (_late.get() or ()):
            return Answer(service, None, Why.SLOW, _NOT_YET, "DEADLINE_EXCEEDED")
        return known and replace(known, service=service)


def by_console(stub: type, method: str) -> Any:
    """A method of a service, by its generated class, called in the console's name."""
    return lambda channel: partial(getattr(stub(channel), method), metadata=(("x-actor", "console"),))


def method_of(request: Any) -> str:
    """The method that takes requests of a type."""
    return str(request.DESCRIPTOR.name).removesuffix("Request")


class _Channel:
    """A channel that makes each of its callables once, however often a stub is made over it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._made: dict[tuple[str, str], Any] = {}

    def __getattr__(self, kind: str) -> Any:
        make = getattr(self._channel, kind)
        if kind not in _KINDS:
            return make

        def made(path: str, *arguments: Any, **options: Any) -> Any:
            key = (kind, path)
            if key not in self._made:
                self._made[key] = make(path, *arguments, **options)
            return self._made[key]

        setattr(self, kind, made)
        return made


_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@asynccontextmanager
async def connected(addresses: Mapping[str, str]) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        channels = {
            name: cast(
                "grpc.aio.Channel",
                _Channel(await stack.enter_async_context(grpc.aio.insecure_channel(address, _OPTIONS))),
            )
            for name, address in addresses.items()
        }
        services = Services(dict(addresses), channels)
        await stack.enter_async_context(services.looking)
        yield services
