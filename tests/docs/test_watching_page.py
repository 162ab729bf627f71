"""The page on watches: its view is watched and resumed. tests/e2e/test_watches.py has the shop followed as it says."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from tests.dead_letters.journal import event
from tests.docs.test_domain_pages import module
from tests.mistakes.test_start import service
from twinlog.rpc import resume_tokens
from twinlog.testing import MemoryTwin, MemoryViews


async def test_a_room_is_watched_and_resumed() -> None:
    page = module("watching")
    async with service() as running:
        running.twin = {"rooms": running.twin("source")}.__getitem__
        reads = page.wire(running, MemoryViews())
        twin = running.twin("rooms")
        assert isinstance(twin, MemoryTwin)
        await twin.publish([_booked(1, "a:ann")])
        await reads.after("rooms:1")

        watching = page.watch_room(reads, "a", "")
        first = await anext(watching)
        assert first.row == page.Room("a", 1, "a:ann")
        await watching.aclose()

        floor = page.watch_floor(reads, 1, _of_floor(first))
        await twin.publish([_booked(2, "a:bob"), _booked(3, "b:eve")])
        await reads.after("rooms:3")
        async with asyncio.timeout(60):
            assert (await anext(page.watch_room(reads, "a", first.resume_token))).row.guest == "a:bob"
            assert {room.guest for room in (await anext(floor)).rows.values()} == {"a:bob", "b:eve"}


def _booked(position: int, text: str) -> Any:
    return event(position, text)._replace(payload=StringValue(value=text).SerializeToString(), log="rooms")


def _of_floor(first: Any) -> str:
    """A token of the other watch for the same moment."""
    one, floor = (resume_tokens.hash_of("rooms", *of) for of in (["a"], [("floor",), (1,)]))
    token: str = first.resume_token.partition("-")[0]
    return token.replace(one, floor)
