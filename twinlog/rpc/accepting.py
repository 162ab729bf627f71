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
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import grpc.aio
import structlog
from grpc._cython import cygrpc

from twinlog.rpc.entrance import Entrance
from twinlog.rpc.gates import Gate, Gates, Refusal
from twinlog.rpc.gone import ClientGone

_log = structlog.get_logger(component="rpc")

_MOST = 512
"""Calls of one method that are asked for at once."""
_AGAIN_SECONDS = 0.1
_LEAVING_SECONDS = 1.0
"""How long calls that were cancelled may take to end."""
_MOST_CONNECTIONS = 256
"""So many are asked how many calls are open on them; each takes some tens of microseconds."""
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


class _Method:
    """What accepts the calls of one method."""

    def __init__(self, path: str, gate: Gate, acceptor: Acceptor) -> None:
        self.path = path
        """Empty: whatever is not served."""
        self.asked = 0
        """How many calls it asks for at once: one, and from each call on one more."""
        self.entrance = Entrance(gate, partial(acceptor.begin, self), acceptor.send)

    def resolve_handler(self, _details: Any) -> Any:
        """The handler of a call; grpc.aio asks."""
        return self.entrance.gate.handler


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
            self._methods.append(_Method("", Gate(), self))
        self._accepting: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()
        self._sending: dict[asyncio.Future[Any], Coroutine[Any, Any, None]] = {}
        self._id = _newest_server() if self.ahead else 0
        self._accepted = 0
        """How many calls were accepted, of whatever method."""

    def add(self, service: str, gates: Mapping[str, Gate]) -> None:
        """Has a service's methods, by name, accepted here."""
        paths = {f"/{service}/{method}": gate for method, gate in gates.items()}
        if self.ahead:
            handlers = {method: gate.handler for method, gate in gates.items()}
            self.server.add_registered_method_handlers(service, handlers)
            self._methods += [_Method(path, gate, self) for path, gate in paths.items()]
        else:
            self.server.add_generic_rpc_handlers([Gates(paths)])

    async def start(self) -> None:
        await self.server.start()
        for method in self._methods:
            self._ask(method)

    async def stop(self, grace: float) -> None:
        """Stops the server. Calls in flight have so many seconds to finish, and are cancelled then; what is held is
        refused."""
        stopped = asyncio.ensure_future(self.server.stop(grace))
        await asyncio.sleep(0)  # clients hear of it first, and call again elsewhere
        for method in self._methods:
            method.entrance.close()
        await stopped
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for method in self._methods:
            method.entrance.cancel()
        if self._calls:  # the core has cancelled them; what they clean up needs what is closed next
            _, left = await asyncio.wait(self._calls, timeout=_LEAVING_SECONDS)
            for call in left:
                call.cancel()

    def _ask(self, method: _Method) -> None:
        method.asked += 1
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
            if method.asked < _MOST:
                self._ask(method)
            self._accepted += 1
            if path:
                method.entrance.come(call)
            else:
                self.send(call, _NOT_SERVED)

    @property
    def waiting(self) -> int:
        """How many calls have come to gRPC's core and are not accepted yet; 0 where that is not known."""
        if not self.ahead:
            return 0
        told = json.loads(cygrpc.channelz_get_server(self._id))["server"]["data"]
        waiting = int(told.get("callsStarted", 0)) - self._accepted
        if waiting > 0 and (opened := self._opened()) is not None:
            # What the core drops before it is accepted, as a request that is no gRPC call, has begun and never ends.
            held = sum(len(method.entrance) for method in self._methods)
            waiting = min(waiting, opened - len(self._calls) - held - len(self._sending))
        return max(0, waiting)

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

    def begin(self, method: _Method, call: Any) -> asyncio.Task[None]:
        """Serves a call as grpc.aio would."""
        loop = asyncio.get_running_loop()
        work = cygrpc._handle_rpc(method.path, method, (), call, loop, False)
        task = loop.create_task(cygrpc._schedule_rpc_coro(work, call, loop, method.path))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    def send(self, call: Any, refusal: Refusal) -> None:
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
