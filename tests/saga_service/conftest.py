"""What all tests of the service of sagas share."""

from __future__ import annotations

import pytest

from twinlog.consume import dead_lettering


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    monkeypatch.setattr(dead_lettering, "RETRY_FIRST_SECONDS", 0.0)
