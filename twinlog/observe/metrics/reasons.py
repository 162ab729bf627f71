"""What failures are called."""

from __future__ import annotations

import asyncio

from twinlog.model.errors import Overloaded, TwinlogError, Unavailable

OK = "OK"
CANCELLED = "CANCELLED"
INTERNAL = "INTERNAL"
UNAVAILABLE = Unavailable.reason
OVERLOADED = Overloaded.reason


def reason_of(error: BaseException) -> str:
    """The reason of an error, as clients see it in ErrorInfo; INTERNAL for a defect."""
    if isinstance(error, TwinlogError):
        return error.reason
    return CANCELLED if isinstance(error, asyncio.CancelledError | GeneratorExit) else INTERNAL
