"""A client that goes while it is answered. That is nobody's fault, and no error in the log.

gRPC's core notices first: what is being sent fails, and grpc.aio, which has not heard yet that the client is gone, logs
it as an error of the method.
"""

from __future__ import annotations

import logging

from grpc._cython.cygrpc import ExecuteBatchError

__all__ = ["ClientGone", "keep_quiet"]

ClientGone = ExecuteBatchError
"""What writing to a client that is gone raises."""


def keep_quiet() -> None:
    """Leaves what grpc.aio says of clients that are gone out of the log."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, ClientGone)
