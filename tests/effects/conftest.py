"""What all tests of effects share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.types import EventDict

from twinlog.consume import dead_lettering


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    monkeypatch.setattr(dead_lettering, "RETRY_FIRST_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[EventDict]]:
    """What was logged."""
    with capture_logs() as captured:
        yield captured
