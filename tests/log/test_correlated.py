"""What belongs together in a log is found near known times and events, in any adapter."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from twinlog import Log, Metadata, StreamId
from twinlog.log import correlated, scan
from twinlog.log.correlated import Range, Related
from twinlog.model.event import NewEvent
from twinlog.testing import START
from twinlog.testing.internals import Batch

APART = timedelta(seconds=1)


async def filled(log: Log, events: Sequence[tuple[str, str, str]]) -> None:
    """Appends (stream, correlation id, cause), each a second after the one before."""
    versions: dict[str, int] = {}
    for number, (id, correlation, cause) in enumerate(events):
        stream, version = StreamId("counter", id), versions.get(id, 0)
        versions[id] = version + 1
        metadata = Metadata(correlation, cause)
        event = NewEvent.of(stream, version + 1, uuid4(), Int64Value(value=number), metadata, id)
        await log.append(Batch(START + number * APART, {stream: version}, [event]))


def positions(related: Related) -> Sequence[int]:
    return [event.position for event in related.events]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at few events."""
    for name, size in (("_BEFORE", 2), ("_AHEAD", 3), ("_OF_STREAM", 10)):
        monkeypatch.setattr(correlated, name, size)
    monkeypatch.setattr(scan, "_CLOCKS_DIFFER", 2)
    monkeypatch.setattr(scan, "PAGE", 2)


NOISE = [(f"n{number}", "noise", "") for number in range(30)]


@pytest.mark.usefixtures("small")
async def test_a_look_spreads_from_what_it_finds(log: Log) -> None:
    near = [
        *NOISE[:10],
        ("a", "x", ""),
        *NOISE[10:12],
        ("b", "x", ""),
        *NOISE[12:14],
        ("c", "x", ""),
        *NOISE[14:],
    ]
    await filled(log, near)
    related = Related(log, await log.head(), correlations=["x"])
    await related.around([START + 10 * APART])
    await related.spread()
    assert positions(related) == [11, 14, 17]
    [looked_at] = related.looked_at
    assert not related.complete
    assert 0 < looked_at.after < looked_at.upto < 33


@pytest.mark.usefixtures("small")
async def test_a_stream_leads_to_what_is_far_away(log: Log) -> None:
    await filled(log, [("a", "x", ""), *NOISE, ("a", "x", ""), ("b", "x", ""), ("a", "other", "")])
    related = Related(log, await log.head(), correlations=["x"])
    await related.around([START])
    await related.spread()
    assert positions(related) == [1, 32, 33]
    assert len(related.looked_at) == 2


@pytest.mark.usefixtures("small")
async def test_no_more_is_looked_at_than_agreed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MOST_LOOKED_AT", 4)
    await filled(log, [(f"s{number}", "x", "") for number in range(12)])
    related = Related(log, await log.head(), correlations=["x"])
    await related.newest()
    assert (positions(related), related.looked_at) == ([9, 10, 11, 12], [Range(8, 12)])
    await related.around([START])
    assert related.looked_at == [Range(8, 12)]


async def test_a_small_log_is_looked_through(log: Log) -> None:
    await filled(log, [*NOISE, ("a", "x", ""), ("b", "y", "")])
    related = Related(log, await log.head(), correlations=["x", "y"])
    await related.around([START])
    assert (positions(related), related.complete) == ([31, 32], True)


async def test_effects_and_causes_are_told(log: Log) -> None:
    address = f"{log.name}/2"
    chain = [("a", "x", "rpc/Add"), ("a", "x", f"{log.name}/1"), ("b", "x", address), ("a", "y", address)]
    await filled(log, [*chain, ("c", "x", f"{log.name}/3")])
    [event] = await log.read(1, 1)
    related = Related(log, await log.head(), causes=[address])
    await related.behind(event)
    assert positions(related) == [3, 4]
    [last] = await log.read(4, 1)
    before, beyond = await correlated.causes(log, last, 10)
    assert ([each.position for each in before], beyond) == ([3, 2, 1], "rpc/Add")
    before, beyond = await correlated.causes(log, last, 2)
    assert ([each.position for each in before], beyond) == ([3, 2], f"{log.name}/1")


async def test_an_empty_log_has_nothing(log: Log) -> None:
    related = Related(log, 0, correlations=["x"])
    await related.around([START])
    await related.newest()
    assert (positions(related), related.complete) == ([], True)


@pytest.mark.parametrize(
    ("address", "position"), [("a/7", 7), ("b/7", 0), ("a/x", 0), ("rpc/Add", 0), ("", 0), ("a/²", 0)]
)
def test_addresses_are_told_apart(address: str, position: int) -> None:
    assert correlated.position_in("a", address) == position
