"""Wraps a servicer's methods, once each at start, so that every failure of theirs reaches the client.

Not a grpc.aio interceptor: that costs several coroutines a call, this costs one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from math import inf
from types import FrameType
from typing import Any, NamedTuple, Never

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status

from twinlog.model.errors import InvalidArgument, Overloaded, Unavailable, Unimplemented
from twinlog.model.forms import shown
from twinlog.rpc.context import Context
from twinlog.rpc.errors import DETAILS_KEY, failure_of, status_of
from twinlog.rpc.gates import Gate, Refusal, refusal_of
from twinlog.rpc.gone import ClientGone
from twinlog.rpc.streams import Stream, StreamLimits, Streams, TooManyStreams
from twinlog.rpc.validation import refuse_nul

Handler = Any
"""A grpc.RpcMethodHandler: a named tuple of a method's serializers and its behavior."""

Behavior = Callable[[Any, Context], Any]
"""A servicer's method. It takes a message, or an async iterator of messages where the client streams; it gives an
awaitable message, or an async iterator of messages where the server streams."""


class Method(NamedTuple):
    """What a middleware goes around."""

    name: str
    """``package.Service/Method``."""
    response_streaming: bool
    """Whether its behavior gives an async iterator."""


Middleware = Callable[[Method, Behavior], Behavior]
"""Puts something around a method: called once for each when the server starts, it gives a behavior of the same kind.

What the behavior raises goes to the client as if the method had raised it; it sees TwinlogErrors as they were raised.
"""


OnRefused = Callable[[str, str], None]
"""Called when a call is refused before it reaches any middleware, with the method's name and the error's reason."""


class Stopping(Unavailable):
    """The server is stopping; call again."""

    reason = "STOPPING"


class TooManyCalls(Overloaded):
    """{open} calls are under way, and more are not served; try again later with the same request_id."""

    reason = "TOO_MANY_CALLS"


OURS = "twinlog.v1."
"""How the names of the library's own services begin."""
_NO_FAILURE = (None, 0, grpc.StatusCode.OK)
_QUIET_SECONDS = 0.03
_MOST_QUIETS = 16
"""How many moments a stopping server waits at most for one in which no call comes."""


class Boundary:
    """Between a service's methods and gRPC: turns what they raise into what clients understand."""

    def __init__(
        self,
        domain: str,
        middleware: Sequence[Middleware] = (),
        *,
        most_calls: float = inf,
        streams: StreamLimits | None = None,
        on_refused: OnRefused = lambda _method, _reason: None,
    ) -> None:
        """``middleware``: the first is the outermost; all are inside of the boundary. ``most_calls``: how many unary
        calls may be under way at once; ``streams``: the limits of response streams, by default the usual ones.
        ``on_refused`` is told of calls that never come to the middleware."""
        self._domain = domain
        self._middleware = middleware
        self._most_calls = most_calls
        self._calls = 0
        self._streams = Streams(streams or StreamLimits())
        self._on_refused = on_refused
        self._holding = self._stopping = False
        self._held = 0
        self._refusing = asyncio.Event()
        self._gates: list[tuple[Gate, Handler]] = []

    def wrap(self, method: str, handler: Handler) -> Gate:
        """The same handler inside the middleware, with its failures mapped, behind a gate."""
        kind = "_".join(
            "stream" if streaming else "unary"
            for streaming in (handler.request_streaming, handler.response_streaming)
        )
        behavior: Behavior = getattr(handler, kind)
        for put_around in reversed(self._middleware):
            behavior = put_around(Method(method, handler.response_streaming), behavior)
        if not handler.request_streaming:
            on_refused = partial(self._on_refused, method)
            behavior = _checked(method, handler.request_deserializer, behavior, on_refused)
        gate = Gate()
        wrapped = (
            self._streaming(method, behavior)
            if handler.response_streaming
            else self._unary(method, behavior, gate, handler.response_serializer)
        )
        if self._most_calls < inf and not handler.response_streaming:
            gate.too_much = partial(self._too_much, method)
        factory = getattr(grpc, f"{kind}_rpc_method_handler")
        deserializer = handler.request_deserializer if handler.request_streaming else None
        inside = factory(wrapped, deserializer, handler.response_serializer)
        gate.open(inside)
        self._gates.append((gate, inside))
        return gate

    def _too_much(self, method: str, waiting: int) -> Refusal:
        return self._refusal(method, Stopping() if self._stopping else Overloaded(waiting=waiting))

    def _refusal(self, method: str, error: Unavailable) -> Refusal:
        return refusal_of(status_of(error, self._domain), partial(self._on_refused, method, error.reason))

    def end_streams(self) -> None:
        """Ends every response stream: a watcher would hold up the stop for as long as it may."""
        self._streams.end_all(Stopping())

    async def hold_calls(self, waiting: Callable[[], int] = lambda: 0) -> None:
        """Lets new calls wait for their refusal; returns when hardly any come any more.

        ``waiting``: how many are not accepted yet.

        gRPC answers what reaches a server that has just closed with CANCELLED. Clients whose calls are held send no
        further ones: they hear that the server goes away, then the refusal, and try elsewhere.
        """
        self._holding = True
        for gate, handler in self._gates:
            gate.stopping = True
            gate.open(handler)  # who is refused comes again, who is held does not
        for _ in range(_MOST_QUIETS):
            before = self._held
            await asyncio.sleep(_QUIET_SECONDS)
            if self._held == before and waiting() <= 0:
                break
        self._stopping = True

    def refuse_held(self) -> None:
        """Answers the calls that are held, and those that still come, with UNAVAILABLE."""
        self._refusing.set()

    async def _hold(self, method: str) -> Never:
        self._held += 1
        await self._refusing.wait()
        self._on_refused(method, Stopping.reason)
        raise Stopping

    def _unary(self, method: str, behavior: Behavior, gate: Gate, serializer: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            self._calls += 1
            try:
                if self._holding:
                    await self._hold(method)
                if self._calls > self._most_calls:
                    self._on_refused(method, TooManyCalls.reason)
                    raise TooManyCalls(open=self._calls - 1)
                response = await behavior(request, context)
                if serializer and not isinstance(response, Message) and context.code() in _NO_FAILURE:
                    _refuse_other(method, response, serializer)
                return response
            except grpc.aio.AbortError:
                raise
            except asyncio.CancelledError as cancelled:
                await self._cancelled(method, context, cancelled)
            except Overloaded as error:
                if not isinstance(error, TooManyCalls) and not self._holding:  # those are refused one by one
                    gate.shut(self._refusal(method, error))
                await self._failed(method, context, error)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # a SystemExit, too, ends no server
                await self._failed(method, context, error)
            finally:
                self._calls -= 1

        return call

    def _streaming(self, method: str, behavior: Behavior) -> Any:
        # A coroutine that writes, not a generator: cancelled, it closes the servicer's generator at once.
        async def call(request: Any, context: Context) -> None:
            task = asyncio.current_task()
            assert task is not None
            stream: Stream | None = None
            try:
                if self._holding:
                    await self._hold(method)
                with self._streams.open(task, context.peer()) as stream:
                    await _write_all(behavior(request, context), context, stream)
            except (grpc.aio.AbortError, ClientGone):
                raise
            except asyncio.CancelledError as cancelled:
                await self._cancelled(method, context, cancelled, stream)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                if stream is None and isinstance(error, TooManyStreams):
                    self._on_refused(method, error.reason)
                await self._failed(method, context, error)

        return call

    async def _cancelled(
        self,
        method: str,
        context: Context,
        cancelled: asyncio.CancelledError,
        stream: Stream | None = None,
    ) -> Never:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            if stream and stream.ended_by:
                await _abort(context, status_of(stream.ended_by, self._domain))
            raise cancelled
        # Nobody cancelled the call: a cancellation leaked from inside the method. gRPC would
        # never answer it.
        await self._failed(method, context, cancelled)

    async def _failed(self, method: str, context: Context, error: BaseException) -> Never:
        # As generated code says that its servicer leaves the method out.
        if isinstance(error, NotImplementedError) and context.code() == grpc.StatusCode.UNIMPLEMENTED:
            error = Unimplemented(method=method)
        await _abort(context, failure_of(error, method, self._domain))


_CALLS = tuple(f"{method.__qualname__}.<locals>.call" for method in (Boundary._unary, Boundary._streaming))


def call_in(frames: Sequence[FrameType]) -> tuple[str, float | None] | None:
    """The method that a task's frames serve, and since when where that is known, by the loop's time; or None.

    The frames are looked at, since to count calls one by one would cost every call.
    """
    for frame in frames:
        if frame.f_code.co_qualname in _CALLS:
            stream = frame.f_locals.get("stream")
            return str(frame.f_locals["method"]), stream.began if isinstance(stream, Stream) else None
    return None


def _refuse_other(method: str, response: object, serializer: Callable[[Any], bytes]) -> None:
    """Raises TypeError where a method gives no response: gRPC itself would answer UNKNOWN, and no error_id."""
    if isinstance(response, Coroutine):
        response.close()
        raise TypeError(f"{method} gives a coroutine; is an await missing?")
    try:
        serializer(response)
    except Exception as error:
        raise TypeError(f"{method} gives {shown(response)}; let it return its response") from error


def _checked(
    method: str, deserializer: Callable[[bytes], Any], behavior: Behavior, on_refused: Callable[[str], None]
) -> Behavior:
    """The method, given bytes, whose request is refused as InvalidArgument where it is malformed: gRPC itself would
    answer UNKNOWN, and give no reason.

    Texts of the library's own requests go into its queries. What another service takes in its texts is up to that.
    """
    ours = method.startswith(OURS)

    def checked(data: bytes, context: Context) -> Any:
        try:
            request = deserializer(data)
            if ours:
                refuse_nul(request, data)
        except DecodeError as error:
            on_refused(InvalidArgument.reason)
            raise InvalidArgument({"request": "is not the message that this method takes"}) from error
        except InvalidArgument as error:
            on_refused(error.reason)
            raise
        return behavior(request, context)

    return checked


async def _write_all(
    responses: AsyncIterator[Any] | Awaitable[None], context: Context, stream: Stream
) -> None:
    if isinstance(responses, Awaitable):
        await responses
        return
    loop = asyncio.get_running_loop()
    async with aclosing(responses) as closing:  # type: ignore[type-var]
        async for response in closing:
            # Not cut short when the server ends the stream: gRPC takes no status while a write is under way.
            stream.writing = True
            await context.write(response)
            stream.writing = False
            stream.heard = loop.time()
            if stream.ended_by:
                raise stream.ended_by


async def _abort(context: Context, status: Status) -> Never:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
    raise AssertionError("abort raises")
