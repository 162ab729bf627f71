"""Looks through a log: what is found, and how little of a long log or of a long stream is read for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import pytest

from tests.log.test_correlated import APART, filled
from twinlog import Log, Recorded
from twinlog.log import scan
from twinlog.log.past import Moment
from twinlog.testing import START, MemoryLog

LONG, OTHER = "long", "other"
EVENTS = 600
"""Of these, every other one is of the long stream."""


class Counted(MemoryLog):
    """Counts the events that are read from it."""

    read_so_far = 0

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        found = await super().read(after, limit)
        self.read_so_far += len(found)
        return found

    async def load(self, wanted: Any) -> Any:
        slices = await super().load(wanted)
        self.read_so_far += sum(len(slice.events) for slice in slices)
        return slices


@pytest.fixture
async def log(monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setattr(scan, "PAGE", 10)
    monkeypatch.setattr(scan, "_CLOCKS_DIFFER", 2)
    log = Counted("counters")
    await filled(log, [((LONG, OTHER)[number % 2], f"c{number}", "") for number in range(EVENTS)])
    log.read_so_far = 0
    return log


def at(position: int) -> datetime:
    """When the event of a position was recorded."""
    return START + (position - 1) * APART


async def test_the_newest_are_found_without_reading_all(log: Counted) -> None:
    stream = str(log.events[0].stream)
    middle = EVENTS // 2
    odd = [*range(1, EVENTS, 2)]
    cases: dict[str, tuple[scan.Filter, int, int, Sequence[int]]] = {
        "of a stream": (scan.Filter(stream), 0, EVENTS, odd[-3:]),
        "of a stream, up to": (scan.Filter(stream), 0, middle, [each for each in odd if each <= middle][-3:]),
        "of a stream, after": (
            scan.Filter(stream),
            EVENTS - 4,
            EVENTS,
            [each for each in odd if each > EVENTS - 4],
        ),
        "of a stream, until": (
            scan.Filter(stream, until=at(middle)),
            0,
            EVENTS,
            [each for each in odd if each < middle][-3:],
        ),
        "until": (scan.Filter(until=at(middle)), 0, EVENTS, [middle - 3, middle - 2, middle - 1]),
        "of a time": (scan.Filter(since=at(middle), until=at(middle + 2)), 0, EVENTS, [middle, middle + 1]),
        "of no time": (scan.Filter(since=at(middle), until=at(middle)), 0, EVENTS, []),
        "since what is to come": (scan.Filter(since=at(2 * EVENTS)), 0, EVENTS, []),
    }
    wrong = {}
    for name, (wanted, after, upto, positions) in cases.items():
        log.read_so_far = 0
        found, known = await scan.newest(log, wanted, 3, after, upto)
        if ([each.position for each in found], known, log.read_so_far < 100) != (list(positions), True, True):
            wrong[name] = [each.position for each in found], known, log.read_so_far
    assert not wrong


async def test_what_comes_is_followed_without_reading_its_stream_again(log: Counted) -> None:
    wanted = scan.Filter(str(log.events[0].stream))
    for after, upto in ((EVENTS - 4, EVENTS), (EVENTS - 40, EVENTS), (EVENTS - 40, EVENTS - 2)):
        log.read_so_far = 0
        pages = [page async for page in scan.pages(log, wanted, after, upto)]
        found = [event.position for page in pages for event in page.events]
        assert found == [each for each in range(1, EVENTS, 2) if after < each <= upto]
        assert pages[-1].position == upto
        assert log.read_so_far < 100, (after, upto)


async def test_a_log_that_finds_moments_is_asked_and_any_other_stream_is_halved(log: Counted) -> None:
    class Plain:
        """What every log can do, and no more."""

        name, load = log.name, log.load

    stream = log.events[0].stream
    plain = cast(Log, Plain())
    for position in (1, 2, 300, EVENTS, EVENTS + 1):
        moment = Moment(position=position)
        log.read_so_far = 0
        version = await scan.version_at(log, stream, moment)
        assert log.read_so_far == 0
        assert await scan.version_at(plain, stream, moment) == version == min(position + 1, EVENTS) // 2
        assert log.read_so_far > 0
