"""What one click tries: each is a customer and an order that is made for one outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LIMIT = "15.00"
"""The credit limit of the customers that are made for it, in euros."""


class Scenario(NamedTuple):
    """One thing to try."""

    name: str
    title: str
    text: str
    total: str
    """What the order costs, in euros."""
    ends: str
    """How it ends."""
    icon: str
    kind: str
    """How its end looks: ok, bad or undo."""
    cancels: bool = False
    """Whether the order is cancelled right after it was made."""


_ALL = (
    Scenario("fits", "An order that fits", f"12.34 of a credit of {LIMIT}", "12.34", "APPROVED", "ok", "ok"),
    Scenario(
        "refused", "One that is refused", f"99.00 of a credit of {LIMIT}", "99.00", "REJECTED", "bad", "bad"
    ),
    Scenario(
        "cancelled",
        "Cancel in flight",
        "Taken back while its credit is being reserved",
        "12.34",
        "CANCELLED",
        "undo",
        "undo",
        cancels=True,
    ),
)
SCENARIOS: Mapping[str, Scenario] = {each.name: each for each in _ALL}
