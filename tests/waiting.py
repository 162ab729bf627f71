"""Waiting for a condition, with a bound: what tests do in place of sleeping."""

from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from twinlog import Unavailable
from twinlog.testing.waiting import until

__all__ = ["GOING_AWAY", "RETRIED_SOON", "in_service", "until"]

GOING_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What calls to a service on its way down come to; the latter by gRPC itself, where one arrives just at the close."""

RETRIED_SOON = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
"""Options of a channel to a server that may not listen yet: without them gRPC first waits for a second."""


async def in_service(call: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    """Repeats what the server may refuse for a moment, as it refuses a stream while it removes the one before."""

    async def done() -> bool:
        try:
            await call(*arguments)
        except Unavailable:
            return False
        return True

    await until(done)
