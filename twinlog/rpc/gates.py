"""Gates: where a method has just refused a call because there is too much to do, the next calls are refused at once.

Under overload most calls are refused, and gRPC spends nearly as much on those as on others. So a refusal does without
all that can be spared: it does not read the request, does not ask and does not raise. And it takes a moment: a
connection has room for so many calls at once, so a client that calls again and again is slowed down, and what it has
too much of waits where it costs the server nothing.
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
_ASKING = 8
"""So many calls are let in that often where more are refused: what they hear is what the next ones are told."""
REFUSAL_SECONDS = 0.25
"""What a refusal takes at least."""


class Refusal(NamedTuple):
    """What calls are answered with."""

    code: int
    message: str
    metadata: tuple[tuple[str, bytes], ...]
    on_refused: Callable[[], None]
    """Told of each."""


class Gate:
    """The handler of a method, or for a moment one that refuses every call."""

    def __init__(self) -> None:
        self.handler: Any = None
        """What a call gets that is not refused where it is accepted."""
        self.inside: Any = None
        """What a call gets that has been let in."""
        self.refusal: Refusal | None = None
        """While it is shut."""
        self.late: Callable[[int], Refusal] | None = None
        """What is said to calls that are refused since so many wait in front of it, where that may be done."""
        self.let_in = 0
        """How many calls were let in that have not ended."""
        self.begun = 0
        """Of how many of them the method has begun, and not ended."""
        self._admits: Callable[[int], bool] | None = None
        self._asking = 0
        """How many calls are still let in to hear how things are."""
        self._refused = False
        """Whether any was refused of late."""

    def open(self, handler: Any) -> None:
        """Lets calls through to a handler."""
        self.handler = self.inside = handler
        self.refusal = self._admits = None

    def shut(self, refusal: Refusal, admits: Callable[[int], bool] | None = None) -> None:
        """Refuses calls for a moment. ``admits``: whether one more would be let in behind so many; then it is, and the
        gate stays shut for as long as others come."""
        if self.inside.request_streaming:
            return
        if self.refusal is None:
            asyncio.get_running_loop().call_later(_SHUT_SECONDS, self._again)
        self.refusal, self._admits = refusal, admits
        self.handler = _refusing(refusal)

    def refuses(self) -> Refusal | None:
        """What a call is refused with that comes now; None: it is let in."""
        if self.refusal is None or (self._admits and self._admits(self.let_in - self.begun)):
            return None
        if self._asking:
            self._asking -= 1
            return None
        self._refused = True
        return self.refusal

    def _again(self) -> None:
        self._asking, self._refused = _ASKING if self._refused and self._admits else 0, False
        if self._asking:
            asyncio.get_running_loop().call_later(_SHUT_SECONDS, self._again)
        elif self.refusal:
            self.open(self.inside)


class Gates(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Gates by ``/package.Service/Method``."""

    def __init__(self, gates: Mapping[str, Gate]) -> None:
        self._gates = gates

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call, or None where it is not served here."""
        gate = self._gates.get(handler_call_details.method)
        return gate and gate.handler


def refusal_of(status: Status, on_refused: Callable[[], None]) -> Refusal:
    """Refuses calls with this status; ``on_refused`` is told of each."""
    details = ((DETAILS_KEY, status.SerializeToString()),)
    return Refusal(status.code, status.message, details, on_refused)


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
