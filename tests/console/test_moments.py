"""Times as people write them into a URL."""

from __future__ import annotations

from datetime import UTC, datetime, time

import pytest

from twinlog.console.reading import moment_in
from twinlog.console.rendering import instant


@pytest.mark.parametrize("text", ["12:00", "12:00Z", "14:00+02:00", "07:00-05:00"])
def test_a_time_is_one_of_today_in_its_zone_or_else_in_utc(text: str) -> None:
    before, at, after = datetime.now(UTC).date(), moment_in(text), datetime.now(UTC).date()
    assert at
    assert at.astimezone(UTC).time() == time(12)
    assert before <= at.date() <= after


@pytest.mark.parametrize("text", ["2026-01-31T12:00", "2026-01-31 12:00", "2026-01-31T12:00:00.000Z"])
def test_a_day_may_be_said(text: str) -> None:
    assert moment_in(text) == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_field_shows_a_time_whole_and_all_else_as_it_is() -> None:
    assert instant("2026-01-31T14:00+02:00") == "2026-01-31T12:00:00.000Z"
    assert instant("2026-01-31") == "2026-01-31T00:00:00.000Z"
    assert instant("12:00").endswith("T12:00:00.000Z")
    for text in ("", "12", "10m", "orders/17", "pay-ments/3", "25:00", "yesterday"):
        assert instant(text) == text


def test_what_is_no_time_is_refused() -> None:
    assert moment_in("") is None
    with pytest.raises(ValueError, match="yesterday"):
        moment_in("yesterday")
