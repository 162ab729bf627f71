"""Queries that wait for what a command did, and watches, without a line of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.dead_letters.journal import event
from tests.mistakes.test_start import Row, policies, service, view
from tests.waiting import until
from twinlog.model.errors import ConfigurationError, InvalidArgument
from twinlog.rpc import ReadModel, consistency
from twinlog.rpc.freshness import ViewLagging
from twinlog.rpc.validation import Checks
from twinlog.testing import MemoryTwin, MemoryViews

ROOMS = view(events=[StringValue])


@asynccontextmanager
async def reading() -> AsyncIterator[tuple[ReadModel, MemoryViews, MemoryTwin]]:
    async with service() as running:
        store = MemoryViews()
        reads = ReadModel(running, store, {"source": [ROOMS]})
        reads.subscribe()
        twin = running.twin("source")
        assert isinstance(twin, MemoryTwin)
        yield reads, store, twin


async def test_own_writes_are_read_in_one_line() -> None:
    async with reading() as (reads, store, twin):
        await twin.publish([event(1, "a:1")])
        await reads.after("source:1")
        assert len(store.tables["rooms"]) == 1


async def test_a_token_that_is_ahead_lags_and_one_of_another_log_is_refused() -> None:
    async with reading() as (reads, _, _twin):
        with pytest.raises(ViewLagging):
            await reads.after("source:9", 0.01)
        with pytest.raises(InvalidArgument, match="names another log than source"):
            await reads.after("others:1")


class Incoming:
    """A call, as far as a query looks at it."""

    def __init__(self, token: str, remaining: float | None) -> None:
        self._token = token
        self._remaining = remaining

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return [("twinlog-consistency-token", self._token)]

    def time_remaining(self) -> float | None:
        return self._remaining


async def test_a_token_is_waited_for_as_long_as_the_call_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view stands still for some seconds where the replica that projects is killed."""
    async with reading() as (reads, _, _twin):
        waited: list[float] = []

        async def reached(_wanted: object, seconds: float) -> None:
            waited.append(seconds)

        monkeypatch.setattr(reads.freshness, "reached", reached)
        for remaining in (0.1, 60.0, 3600.0, None):
            await reads.fresh(Checks(), object(), Incoming("source:9", remaining))
        assert waited == pytest.approx([0.09, 54.0, 3240.0, 5.0])


async def test_a_token_that_says_to_be_of_another_installation_is_refused() -> None:
    ours = ((consistency.INSTALLATION_KEY, "here"),)
    for others in ((), ours):
        asked = consistency.wanted(
            _Carried(("twinlog-consistency-token", "source:9"), *others), ["source"], {}, ours
        )
        assert asked.positions == {"source": 9}
    elsewhere = _Carried(
        ("twinlog-consistency-token", "source:9"),
        (consistency.INSTALLATION_KEY, "there"),
    )
    with pytest.raises(InvalidArgument, match="installation: is another than here") as refused:
        consistency.wanted(elsewhere, ["source"], {}, ours)
    assert [*refused.value.violations] == [consistency.INSTALLATION_KEY]
    assert consistency.wanted(elsewhere, ["source"], {}).positions == {"source": 9}


class _Carried:
    """The metadata of a call."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = pairs

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self._pairs

    def time_remaining(self) -> float | None:
        return None


@pytest.mark.parametrize("by", ["row", "filter"])
async def test_a_watch_gives_what_is_there_and_every_change(by: str) -> None:
    async with reading() as (reads, store, twin):
        first = event(1, "a:1")
        key = first.stream.id

        async def read() -> list[Row]:
            return list((await store.rows(ROOMS, [key])).values())

        seen: list[list[Row]] = []

        async def watch() -> None:
            async for rows in reads.watch(read, *([key] if by == "row" else [])):
                seen.append(rows)

        watching = asyncio.create_task(watch())
        await until(lambda: seen == [[]])
        await twin.publish([first])
        await until(lambda: len(seen) == 2)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert seen[1] == [Row(key)]


async def test_a_name_keeps_its_consumers_apart_from_policies_of_the_same_log() -> None:
    async with service() as running:
        running.subscribe(policies())
        with pytest.raises(ConfigurationError, match="a ReadModel: a name"):
            ReadModel(running, MemoryViews(), {"source": [ROOMS]}).subscribe()
        store = MemoryViews()
        reads = ReadModel(running, store, {"source": [ROOMS]}, name="views")
        reads.subscribe()
        twin = running.twin("source")
        assert isinstance(twin, MemoryTwin)
        await twin.publish([event(1, "a:1")])
        await reads.after("source:1")
        assert await store.checkpoints() == {f"{running.name}.views.source": 1}
