"""Clients that disconnect while they are answered: kept out of the log, since nothing is wrong.

gRPC's core notices first: sending fails, and grpc.aio, which does not know yet that the client is gone, logs an error
of the method.
"""

from __future__ import annotations

import logging

from grpc._cython.cygrpc import ExecuteBatchError

__all__ = ["ClientGone", "keep_quiet"]

ClientGone = ExecuteBatchError
"""Raised by a write to a client that has disconnected."""


def keep_quiet() -> None:
    """Keeps what grpc.aio says about disconnected clients out of the log."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, ClientGone)
