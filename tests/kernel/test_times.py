"""Points in time as messages carry them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from twinlog import timestamp
from twinlog.model.times import time_of

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES))
def test_a_time_comes_back_as_it_was(time: datetime) -> None:
    assert timestamp(time).ToDatetime(UTC) == time


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES), st.integers(0, 999))
def test_a_message_means_the_time_that_protobuf_says(time: datetime, nanos: int) -> None:
    message = timestamp(time)
    message.nanos += nanos
    assert time_of(message) == message.ToDatetime(UTC)
    assert time_of(message).tzinfo is UTC


@pytest.mark.parametrize("nanos", [-1, 10**9])
def test_a_second_has_so_many_nanoseconds(nanos: int) -> None:
    with pytest.raises(ValueError, match="nanoseconds"):
        time_of(Timestamp(seconds=1, nanos=nanos))


@pytest.mark.parametrize("seconds", [-(2**63), 2**63 - 1])
def test_a_time_beyond_the_calendar_is_refused(seconds: int) -> None:
    with pytest.raises(OverflowError):
        time_of(Timestamp(seconds=seconds))
