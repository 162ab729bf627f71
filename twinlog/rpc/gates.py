"""Gates: where a method has just refused a call because there is too much to do, the next calls are refused at once.

Under overload most calls are refused, and gRPC spends nearly as much on those as on others. So a refusal does without
all that can be spared: it does not read the request, does not ask and does not raise. And it takes a moment: a
connection has room for so many calls at once, so a client that calls again and again is slowed down, and what it has
too much of waits where it costs the server nothing. Where the gate opens within that moment, calls are let in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import grpc
from google.rpc.status_pb2 import Status

from twinlog.rpc.context import Context
from twinlog.rpc.errors import DETAILS_KEY

_SHUT_SECONDS = 0.1
REFUSAL_SECONDS = 0.25
"""What a refusal takes at least."""


class Refusal(NamedTuple):
    """What calls are answered with."""

    code: int
    message: str
    metadata: tuple[tuple[str, bytes], ...]
    on_refused: Callable[[], None]
    """Told of each."""


def refusal_of(status: Status, on_refused: Callable[[], None]) -> Refusal:
    """The refusal with this status; ``on_refused`` is told of each."""
    details = ((DETAILS_KEY, status.SerializeToString()),)
    return Refusal(status.code, status.message, details, on_refused)


class Gate:
    """The handler of a method, or for a moment one that refuses every call."""

    def __init__(self) -> None:
        self.handler: Any = None
        self.refusal: Refusal | None = None
        """While it is shut."""
        self.too_much: Callable[[int], Refusal] | None = None
        """The refusal of calls because so many wait in front of it, where that may be done."""
        self.stopping = False
        """Whether the server is about to stop: whoever is refused now comes again, and finds it closed."""
        self.on_open: Callable[[], None] = lambda: None
        """Told that it is open again."""

    def open(self, handler: Any) -> None:
        """Lets calls through to a handler."""
        self.handler, self.refusal = handler, None
        self.on_open()

    def shut(self, refusal: Refusal) -> None:
        """Refuses calls for a moment."""
        if self.handler.request_streaming:
            return
        asyncio.get_running_loop().call_later(_SHUT_SECONDS, self.open, self.handler)
        self.refusal, self.handler = refusal, _refusing(refusal)


class Gates(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Gates by ``/package.Service/Method``."""

    def __init__(self, gates: Mapping[str, Gate]) -> None:
        self._gates = gates

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call, or None where it is not served here."""
        gate = self._gates.get(handler_call_details.method)
        return gate and gate.handler


def _refusing(refusal: Refusal) -> Any:
    """A handler that does not even read the request. It sets the status instead of raising, which costs less."""
    code = next(code for code in grpc.StatusCode if code.value[0] == refusal.code)

    async def refuse(_requests: Any, context: Context) -> None:
        refusal.on_refused()
        await asyncio.sleep(REFUSAL_SECONDS)
        context.set_code(code)
        context.set_details(refusal.message)
        context.set_trailing_metadata(refusal.metadata)

    # As if requests were streamed: those are read by the handler.
    return grpc.stream_unary_rpc_method_handler(refuse)
