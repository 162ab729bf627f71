"""What is checked before the shop is started, besides what twinlog.dev checks."""

from __future__ import annotations

_ABOUT_DATA = ("Migration ", "The database has schema version ", "The tables of ")


def is_about_data(refusal: str) -> bool:
    """Whether a service refuses the data that it finds, rather than a setting or its own code."""
    return refusal.startswith(_ABOUT_DATA)
