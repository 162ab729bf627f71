"""Wraps a servicer's methods, once each at start, so that every failure of theirs reaches the client.

Not a grpc.aio interceptor: that costs several coroutines a call, this costs one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Never
from uuid import uuid4

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from twinlog.model.errors import InvalidArgument, TwinlogError, Unavailable
from twinlog.rpc.context import Context
from twinlog.rpc.errors import DETAILS_KEY, make_status, status_of
from twinlog.rpc.gone import ClientGone

_log = structlog.get_logger(component="rpc")

Handler = Any
"""A grpc.RpcMethodHandler: a named tuple of a method's serialisers and its behaviour."""


class Stopping(Unavailable):
    """The server is stopping; call again."""

    reason = "STOPPING"


_QUIET = 0.03
_MOST_QUIETS = 8
"""How long a stopping server waits until no call has come for a moment, in moments."""


class Boundary:
    """Between a service's methods and gRPC: turns what they raise into what clients understand."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self._stopping = False
        self._streams: set[asyncio.Task[Any]] = set()
        self._holding = False
        self._held = 0
        self._refusing = asyncio.Event()

    def wrap(self, method: str, handler: Handler) -> Handler:
        """The same handler with its failures mapped."""
        if handler.response_streaming:
            kind = "stream_stream" if handler.request_streaming else "unary_stream"
            wrapped = self._streaming(method, _decoding(handler, kind))
        else:
            kind = "stream_unary" if handler.request_streaming else "unary_unary"
            wrapped = self._unary(method, _decoding(handler, kind))
        factory = getattr(grpc, f"{kind}_rpc_method_handler")
        deserializer = handler.request_deserializer if handler.request_streaming else None
        return factory(wrapped, deserializer, handler.response_serializer)

    def end_streams(self) -> None:
        """Ends every response stream: a watcher would hold up the stop for as long as it may."""
        self._stopping = True
        for task in self._streams:
            task.cancel()

    async def hold_calls(self) -> None:
        """Lets new calls wait for their refusal; returns when hardly any come any more.

        gRPC answers what reaches a server that has just closed with CANCELLED. Clients whose calls are held send no
        further ones: they hear that the server goes away, then the refusal, and try elsewhere.
        """
        self._holding = True
        for _ in range(_MOST_QUIETS):
            before = self._held
            await asyncio.sleep(_QUIET)
            if self._held == before:
                return

    def refuse_held(self) -> None:
        """Answers the calls that are held, and those that still come, with UNAVAILABLE."""
        self._refusing.set()

    async def _hold(self) -> Never:
        self._held += 1
        await self._refusing.wait()
        raise Stopping

    def _unary(self, method: str, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def call(request: Any, context: Context) -> Any:
            try:
                if self._holding:
                    await self._hold()
                return await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except asyncio.CancelledError as cancelled:
                await self._cancelled(method, context, cancelled)
            except Exception as error:
                await self._failed(method, context, error)

        return call

    def _streaming(self, method: str, behaviour: Callable[[Any, Context], Any]) -> Any:
        # A coroutine that writes, not a generator: cancelled, it closes the servicer's generator at once.
        async def call(request: Any, context: Context) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._streams.add(task)
            try:
                await _write_all(behaviour(request, context), context)
            except (grpc.aio.AbortError, ClientGone):
                raise
            except asyncio.CancelledError as cancelled:
                await self._cancelled(method, context, cancelled)
            except Exception as error:
                await self._failed(method, context, error)
            finally:
                self._streams.discard(task)

        return call

    async def _cancelled(self, method: str, context: Context, cancelled: asyncio.CancelledError) -> Never:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            if self._stopping and task in self._streams:
                await _abort(context, status_of(Stopping(), self._domain))
            raise cancelled
        # Nobody cancelled the call: a cancellation leaked from inside the method. gRPC would
        # never answer it.
        await self._failed(method, context, cancelled)

    async def _failed(self, method: str, context: Context, error: BaseException) -> Never:
        if isinstance(error, TwinlogError):
            status = status_of(error, self._domain)
            if status.code == grpc.StatusCode.INTERNAL.value[0]:
                _log.error("rpc.failed", method=method, exc_info=error)
        else:
            error_id = str(uuid4())
            _log.error("rpc.failed", method=method, error_id=error_id, exc_info=error)
            status = _unexpected(error_id, self._domain)
        await _abort(context, status)


def _decoding(handler: Handler, kind: str) -> Callable[[Any, Context], Any]:
    """The method, given bytes: gRPC itself would answer bytes that are no request with UNKNOWN and say no more."""
    behaviour: Callable[[Any, Context], Any] = getattr(handler, kind)
    if handler.request_streaming:
        return behaviour
    return lambda data, context: behaviour(_decode(handler.request_deserializer, data), context)


def _decode(deserializer: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return deserializer(data)
    except DecodeError as error:
        raise InvalidArgument({"request": "is not the message that this method takes"}) from error


async def _write_all(responses: AsyncIterator[Any] | Awaitable[None], context: Context) -> None:
    if isinstance(responses, Awaitable):
        await responses
        return
    async with aclosing(responses) as closing:  # type: ignore[type-var]
        async for response in closing:
            await _write(response, context)


async def _write(response: Any, context: Context) -> None:
    # Not cut short when the stream is ended: gRPC takes no status while a write is under way.
    writing = asyncio.ensure_future(context.write(response))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await writing
        raise


def _unexpected(error_id: str, domain: str) -> Status:
    info = ErrorInfo(reason="INTERNAL", domain=domain, metadata={"error_id": error_id})
    return make_status(grpc.StatusCode.INTERNAL, f"Internal error {error_id}.", info)


async def _abort(context: Context, status: Status) -> Never:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
    raise AssertionError("abort raises")
