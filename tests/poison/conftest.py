"""What all tests of poison share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.types import EventDict


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[EventDict]]:
    """What was logged."""
    with capture_logs() as captured:
        yield captured
