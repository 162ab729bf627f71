"""What all tests of parking share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.types import EventDict

from twinlog.consume import dead_lettering as parking


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    monkeypatch.setattr(parking, "RETRY_FIRST", 0.0)


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[EventDict]]:
    """What was logged."""
    with capture_logs() as captured:
        yield captured
