"""Errors in words."""

from __future__ import annotations

import errno
import os
import re
import ssl

_WITHOUT_NUMBER: dict[type[BaseException], int] = {
    ConnectionResetError: errno.ECONNRESET,
    ConnectionAbortedError: errno.ECONNABORTED,
    ConnectionRefusedError: errno.ECONNREFUSED,
    BrokenPipeError: errno.EPIPE,
}
"""Errors that asyncio and others raise without a word."""
_SEVERAL = re.compile(r"\[Errno (\d+)\]")


def reason(error: BaseException) -> str:
    """Why something failed, on one line; never empty."""
    # An error of TLS has a number of its own, which means something else to the system.
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        # asyncio puts addresses in the place of the reason, and several failures into one text.
        numbers = [error.errno] if error.errno else [int(number) for number in _SEVERAL.findall(str(error))]
        if numbers and all(number > 0 for number in numbers):
            return ", ".join(dict.fromkeys(map(os.strerror, numbers)))
        if error.strerror:
            return error.strerror
    if text := " ".join(str(error).split()):
        return text
    if number := _WITHOUT_NUMBER.get(type(error)):
        return os.strerror(number)
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
