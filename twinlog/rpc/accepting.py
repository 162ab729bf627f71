"""Accepts calls, many at once, and refuses them before anything is made for them.

grpc.aio asks its core for one call at a time, and for each two threads have to take turns. On a busy machine that takes
milliseconds, so calls wait in the core, where nobody sees them: neither can they be refused, nor does admission know of
them. Here every method asks for as many calls as come together. And a refused call is sent its status at once from
where it was accepted: no task, no handler, no request.

This is done inside of grpc.aio's server, by names that it keeps to itself. A grpcio whose names are others serves calls
its own way: the same answers, which come later and cost more.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import thread_time
from typing import Any, NamedTuple

import grpc.aio
import structlog
from grpc._cython import cygrpc

from twinlog.rpc.gates import REFUSAL_SECONDS, Gate, Gates, Refusal
from twinlog.rpc.gone import ClientGone

_log = structlog.get_logger(component="rpc")

_MOST = 64
"""Calls of one method that are asked for at once."""
_TOGETHER_SECONDS = 0.05
"""Refusals within this time are sent together: a connection gets those of many calls in one packet."""
_MOST_TOGETHER = 128
"""No more than so many: a crowd's would hold up the loop for a second, and health with it."""
_MANY_HELD, _LONGEST = 1_000, 3
"""Where so many are about to be refused, it takes twice as long, and up to three times where they are more: each
refusal costs, and a connection has room for so many calls; what else its client asks waits there."""
_AGAIN_SECONDS = 0.1
_LEAVING_SECONDS = 1.0
"""How long calls that were cancelled may take to end."""
_LOOK_SECONDS = 0.1
_CALM_SECONDS, _CALMS = 0.5, 8
"""What is counted so many times, this far apart, and no crowd comes, is lost. Once is too little: where a machine is
slow, calls wait without a crowd, too."""
_MANY, _LATE_SECONDS, _MOST_LATE = 1024, 0.25, 4
"""So many calls in the core that take so long to accept are too much; one look of so many lets them in all the same."""
_MOST_CONNECTIONS = 256
"""So many are asked how many calls are open on them; each takes some tens of microseconds."""
_CHEAP_SECONDS, _COUNT_SHARE = 0.002, 20
"""The core counts calls by looking at every connection: 2,000 take it 0.05 s. What takes long is kept for so many times
as long."""
_NO_FLAGS = 0
_KNOWN = {
    "_handle_rpc": [
        "method_name",
        "method_resolver",
        "interceptors",
        "rpc_state",
        "loop",
        "concurrency_exceeded",
    ],
    "_schedule_rpc_coro": ["rpc_coro", "rpc_state", "loop", "method_name"],
    "execute_batch": ["grpc_call_wrapper", "operations", "loop"],
}
"""Functions of grpc.aio's core, with their parameters."""
_KNOWN_OTHERS = (
    "channelz_get_server",
    "channelz_get_servers",
    "channelz_get_server_sockets",
    "channelz_get_socket",
    "_RequestCallError",
)
_KNOWN_METHODS = ("_make_request_call_future", "_request_call", "_request_registered_call", "shutdown")
_NOT_SERVED = Refusal(grpc.StatusCode.UNIMPLEMENTED.value[0], "Method not found!", (), lambda: None)


def is_known() -> bool:
    """Whether this grpcio has the names that are used here."""
    try:
        given = {name: [*inspect.signature(getattr(cygrpc, name)).parameters] for name in _KNOWN}
    except (AttributeError, TypeError, ValueError):
        return False
    if any(not hasattr(cygrpc, name) for name in _KNOWN_OTHERS):
        return False
    return given == _KNOWN and all(hasattr(cygrpc.AioServer, name) for name in _KNOWN_METHODS)


def is_late(waiting: int, came: int, seconds: float) -> bool:
    """Whether calls that wait will wait for too long, where so many came in so many seconds."""
    return waiting > _MANY and waiting * seconds > _LATE_SECONDS * came


def held_seconds(held: int) -> float:
    """How long a call is held before it is refused, where so many are held already."""
    return REFUSAL_SECONDS * min(_LONGEST, 1 + held / _MANY_HELD)


def _newest_server() -> int:
    """The id of the server that was made last, as the core counts them."""
    newest, ended = 0, False
    while not ended:
        told = json.loads(cygrpc.channelz_get_servers(newest + 1))
        newest = max([newest, *(int(server["ref"]["serverId"]) for server in told.get("server", []))])
        ended = told.get("end", not told.get("server"))
    return newest


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    """The core's server, whose own loop accepts nothing: it would end with the first path that is not UTF-8."""

    _stopping: asyncio.Future[Any] | None = None

    def _make_request_call_future(self, _method: bytes | None) -> Any:
        self._stopping = self._stopping or asyncio.get_running_loop().create_future()
        return self._stopping

    async def shutdown(self, grace: float | None) -> None:
        if self._stopping and not self._stopping.done():
            self._stopping.set_exception(cygrpc._RequestCallError())  # as a call that can no longer come
        await super().shutdown(grace)


class _Held(NamedTuple):
    """A call that is about to be refused."""

    due: float
    call: Any
    refusal: Refusal


@dataclass
class _Method:
    """What accepts the calls of one method."""

    path: str
    """Empty: whatever is not served."""
    gate: Gate
    tasks: int = 0
    """How many calls it asks for at once: one, and from each call on one more."""
    came: int = 0
    """How many came in this turn of the loop."""
    crowded: bool = False
    """Whether since the last look as many came in a turn as were asked for: more may be waiting."""

    def resolve_handler(self, _details: Any) -> Any:
        """The handler of a call; grpc.aio asks."""
        return self.gate.handler


class Acceptor:
    """A server of grpc.aio's, whose methods' calls are accepted here."""

    def __init__(self, options: Sequence[tuple[str, Any]]) -> None:
        self.ahead = is_known()
        """Whether it does what this module is for."""
        with _made_of(_Core if self.ahead else cygrpc.AioServer):
            self.server = grpc.aio.server(options=[*options, ("grpc.enable_channelz", 1)])
        self._core = self.server._server
        self._methods: list[_Method] = []
        if self.ahead:
            self._methods.append(_Method("", Gate()))
        self._accepting: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()
        self._held: deque[_Held] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._sending: dict[asyncio.Future[Any], Coroutine[Any, Any, None]] = {}
        self._id = _newest_server() if self.ahead else 0
        self._looking: asyncio.TimerHandle | None = None
        self._looked = 0.0
        self._came = 0
        """How many calls have come since then."""
        self._late = 0
        """At how many looks in a row they had waited for too long."""
        self._settling: asyncio.TimerHandle | None = None
        self._crowded = False
        """Whether a crowd has come since it was last counted."""
        self._counted: deque[int] = deque(maxlen=_CALMS)
        """How many were not accepted, each time since the last crowd."""
        self._accepted = 0
        """How many calls were accepted, of whatever method."""
        self._seen, self._seen_until = 0, 0.0
        """How many were not accepted when they were counted, and until when that will do."""
        self._lost = 0
        """How many calls the core has dropped before they were accepted; it never says that they ended."""

    def add(self, service: str, gates: Mapping[str, Gate]) -> None:
        """Has a service's methods, by name, accepted here."""
        paths = {f"/{service}/{method}": gate for method, gate in gates.items()}
        if self.ahead:
            handlers = {method: gate.handler for method, gate in gates.items()}
            self.server.add_registered_method_handlers(service, handlers)
            self._methods += [_Method(path, gate) for path, gate in paths.items()]
        else:
            self.server.add_generic_rpc_handlers([Gates(paths)])

    async def start(self) -> None:
        await self.server.start()
        for method in self._methods:
            self._ask(method)
        if self.ahead:
            self._settle()

    async def stop(self, grace: float) -> None:
        """Stops the server. Calls in flight have so many seconds to finish, and are cancelled then."""
        await self.server.stop(grace)
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for timer in (self._timer, self._looking, self._settling):  # a call that still came may have set one
            if timer:
                timer.cancel()
        if self._calls:  # the core has cancelled them; what they clean up needs what is closed next
            _, left = await asyncio.wait(self._calls, timeout=_LEAVING_SECONDS)
            for call in left:
                call.cancel()

    def _ask(self, method: _Method) -> None:
        method.tasks += 1
        task = asyncio.get_running_loop().create_task(self._accept(method), name="accept calls")
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _accept(self, method: _Method) -> None:
        """Accepts calls, one after the other, until the server stops."""
        path, core = method.path.encode(), self._core
        while core.is_running():
            try:
                call = await (core._request_registered_call(path) if path else core._request_call())
            except Exception:
                if core.is_running():
                    _log.exception("rpc.not_accepted", method=method.path)
                    await asyncio.sleep(_AGAIN_SECONDS)
                continue
            if method.tasks < _MOST:
                self._ask(method)
            self._count(method)
            if not path:
                self._send(call, _NOT_SERVED)
            elif refusal := method.gate.refusal:
                self._hold(call, refusal)
            else:
                self._begin(call, method)

    def _count(self, method: _Method) -> None:
        """Notes that a call came."""
        self._accepted += 1
        self._came += 1
        if not method.came:
            asyncio.get_running_loop().call_soon(self._turned, method)
        method.came += 1

    def _turned(self, method: _Method) -> None:
        if method.came >= method.tasks:
            method.crowded = self._crowded = True
            if not self._looking:
                self._look_later()
        method.came = 0

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking, self._came, self._looked = loop.call_later(_LOOK_SECONDS, self._look), 0, loop.time()

    def _look(self) -> None:
        """Shuts the gates where calls wait for too long in front of them; now and then they are let in all the same."""
        self._looking, waiting = None, self.waiting
        late = is_late(waiting, self._came, asyncio.get_running_loop().time() - self._looked)
        self._late = (self._late + 1) % _MOST_LATE if late else 0
        for method in self._methods:
            if method.crowded and self._late and method.gate.too_much and not method.gate.refusal:
                method.gate.too_much(waiting)
            method.crowded = False

    def _settle(self) -> None:
        """Finds what the core has dropped, so that it does not count as waiting.

        Where no crowd came for a while, nothing waited: what was not accepted then never will be. And where it would
        matter, the connections say how many calls are open, crowd or not.
        """
        if self._crowded:
            self._counted.clear()
        self._counted.append(self._not_accepted)
        if len(self._counted) == _CALMS:
            self._lost = min(self._counted)
        if self.waiting > _MANY and (opened := self._opened()) is not None:
            self._seen_until = 0.0  # both of one moment
            under_way = len(self._calls) + len(self._held) + len(self._sending)
            self._lost = self._not_accepted - max(0, opened - under_way)
        self._crowded = False
        self._settling = asyncio.get_running_loop().call_later(_CALM_SECONDS, self._settle)

    @property
    def waiting(self) -> int:
        """How many calls have come to gRPC's core and are not accepted yet; 0 where that is not known."""
        if not self.ahead:
            return 0
        counted = self._not_accepted
        self._lost = min(self._lost, counted)
        return counted - self._lost

    @property
    def _not_accepted(self) -> int:
        now = asyncio.get_running_loop().time()
        if now >= self._seen_until:
            began = thread_time()
            # Not what has ended, less what is under way: the core knows sooner than we that a call has ended.
            told = json.loads(cygrpc.channelz_get_server(self._id))["server"]["data"]
            self._seen = int(told.get("callsStarted", 0)) - self._accepted
            if (took := thread_time() - began) > _CHEAP_SECONDS:
                self._seen_until = now + _COUNT_SHARE * took
        return self._seen

    def _opened(self) -> int | None:
        """How many calls are open on all connections; None where those are too many to be asked."""
        told = json.loads(cygrpc.channelz_get_server_sockets(self._id, 0, _MOST_CONNECTIONS))
        if not told.get("end"):
            return None
        opened = 0
        for ref in told.get("socketRef", ()):
            with suppress(ValueError):  # it has ended since
                data = json.loads(cygrpc.channelz_get_socket(int(ref["socketId"])))["socket"]["data"]
                started, *ended = [
                    int(data.get(name, 0)) for name in ("streamsStarted", "streamsSucceeded", "streamsFailed")
                ]
                opened += started - sum(ended)
        return opened

    def _begin(self, call: Any, method: _Method) -> None:
        """Serves a call as grpc.aio would."""
        loop = asyncio.get_running_loop()
        work = cygrpc._handle_rpc(method.path, method, (), call, loop, False)
        task = loop.create_task(cygrpc._schedule_rpc_coro(work, call, loop, method.path))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _hold(self, call: Any, refusal: Refusal) -> None:
        refusal.on_refused()
        loop = asyncio.get_running_loop()
        seconds = held_seconds(len(self._held))
        self._held.append(_Held(loop.time() + seconds, call, refusal))
        if self._timer is None:
            self._timer = loop.call_later(seconds, self._refuse)

    def _refuse(self) -> None:
        """Refuses the calls that have been held for long enough."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for _ in range(_MOST_TOGETHER):
            if not self._held or self._held[0].due > now:
                break
            _, call, refusal = self._held.popleft()
            self._send(call, refusal)
        self._timer = None
        if self._held:
            due = self._held[0].due
            self._timer = loop.call_at(due if due <= now else max(due, now + _TOGETHER_SECONDS), self._refuse)

    def _send(self, call: Any, refusal: Refusal) -> None:
        """Sends a call its refusal. A task would cost as much again: the batch is a coroutine that waits once."""
        batch = (
            cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(refusal.metadata, refusal.code, refusal.message, _NO_FLAGS),
            cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),
        )
        sending = cygrpc.execute_batch(call, batch, asyncio.get_running_loop())
        with suppress(ClientGone, StopIteration):
            sent = sending.send(None)
            self._sending[sent] = sending
            sent.add_done_callback(self._sent)

    def _sent(self, sent: asyncio.Future[Any]) -> None:
        with suppress(ClientGone, StopIteration):  # a client that has given up is refused in vain
            self._sending.pop(sent).send(None)


@contextmanager
def _made_of(core: Any) -> Iterator[None]:
    """Has grpc.aio make its server of this class."""
    usual = cygrpc.AioServer
    cygrpc.AioServer = core
    try:
        yield
    finally:
        cygrpc.AioServer = usual
