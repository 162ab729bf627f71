"""Whole numbers as the command takes them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress

from twinlog.model.event import MOST_POSITION

MOST = 2**31 - 1
"""What a number of a request can be, unless it is a position."""


def whole_number(least: int, most: int = MOST) -> Callable[[str], int]:
    """What reads an argument that is a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        with suppress(ValueError):
            if least <= (number := int(text)) <= most:
                return number
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from {least:,} to {most:,}")

    return read


position = whole_number(0, MOST_POSITION)
