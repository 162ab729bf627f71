"""Whole numbers and times, as the command takes and shows them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from twinlog.model.event import MOST_POSITION

_MOST_NUMBER = 2**31 - 1
"""What a number of a request can be, unless it is a position."""
_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def whole_number(least: int, most: int = _MOST_NUMBER) -> Callable[[str], int]:
    """What reads an argument that is a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        with suppress(ValueError):
            if least <= (number := int(text)) <= most:
                return number
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from {least:,} to {most:,}")

    return read


position = whole_number(0, MOST_POSITION)


def moment(text: str, now: datetime | None = None) -> datetime:
    """A time: ISO 8601, UTC unless it says otherwise, or how long ago, such as 90s, 10m, 2h, 7d."""
    try:
        if ago := span(text):
            return (now or datetime.now(UTC)) - ago
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} lies outside the years 1 to 9999 in UTC") from None
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: give one such as 2026-01-31T12:00:00, or how long ago, such as 10m or 2h"
        ) from None


def span(text: str) -> timedelta | None:
    """A span of time such as 90s, 10m, 2h, 7d; None for any other text."""
    match = _SPAN.fullmatch(text)
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None


def shown(time: Timestamp) -> str:
    """A time for people, in UTC."""
    return time.ToDatetime().isoformat(sep=" ", timespec="milliseconds")


def since(seconds: float) -> str:
    """A span of time, short: 42s, 7m, 3h, 12d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
