"""twinlog.v1.DeadLetterService as operators call it."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.controls import new_id
from tests.dead_letters.journal import CONSUMER, Source, event, journal, replica
from tests.kernel.edge import rich
from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.dead_letters import Failure
from twinlog.consume.listed import trend
from twinlog.rpc import PageTokens, dead_letter_groups, serve
from twinlog.rpc.dead_letter_service import DeadLetterService
from twinlog.rpc.health import PROBLEM_KEY
from twinlog.rpc.registrations import registrations
from twinlog.testing import MemoryLog
from twinlog.v1 import dead_letter_service_pb2 as pb
from twinlog.v1.dead_letter_service_pb2_grpc import (
    DeadLetterServiceStub,
)

ALL = pb.DeadLetterSelection(all=True)
EVERYTHING = repr(("dead letters", "", "", ""))
"""The filters of a list without any, as they are signed."""


def unsigned(*key: Any) -> str:
    """A token of the right shape with a signature of zeros."""
    return urlsafe_b64encode(bytes(16) + json.dumps(key).encode()).rstrip(b"=").decode()


@dataclass
class Desk:
    """A process with one consumer, and its operator."""

    source: Source
    log: MemoryLog
    handler: DeadLettering
    letters: Any
    health: Any
    at: int = 0

    async def say(self, *texts: str) -> None:
        """Lets the consumer handle new events."""
        self.at = await self.handler.handle(self.source.add(*texts), self.at)

    async def listed(self, **filters: Any) -> list[str]:
        listed = await self.letters.ListDeadLetters(pb.ListDeadLettersRequest(**filters))
        return [letter.address for letter in listed.dead_letters]

    async def replay(self, selection: pb.DeadLetterSelection, **how: Any) -> list[Any]:
        request = pb.ReplayDeadLettersRequest(selection=selection, **how)
        return [progress async for progress in self.letters.ReplayDeadLetters(request)]

    async def status(self, name: str) -> int:
        status: int = (await self.health.Check(HealthCheckRequest(service=name))).status
        return status


@asynccontextmanager
async def desk(poison: Sequence[str] = ()) -> AsyncIterator[Desk]:
    source, log = Source(), MemoryLog("own")
    source.poison = set(poison)
    operations = DeadLetterOperations(log)
    letters = DeadLetterService(operations, PageTokens(b"key"))
    async with (
        replica(source, log) as handler,
        serve(
            [*registrations(letters)],
            domain="shop",
            signals={"dead-letters": operations},
        ) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        operations.add(handler)
        yield Desk(source, log, handler, DeadLetterServiceStub(channel), health_pb2_grpc.HealthStub(channel))


async def test_lists_by_position_in_pages_and_by_filters() -> None:
    async with desk(["a:1", "b:1"]) as at:
        await at.say("a:1", "b:1", "a:2", "c:1")
        page = await at.letters.ListDeadLetters(pb.ListDeadLettersRequest(page_size=2))
        assert [letter.address for letter in page.dead_letters] == ["source/1", "source/2"]
        assert await at.listed(page_size=2, page_token=page.next_page_token) == ["source/3"]
        assert await at.listed(key="a") == ["source/1", "source/3"]
        assert await at.listed(error_type="Broken") == ["source/1", "source/2"]
        behind = (await at.letters.ListDeadLetters(pb.ListDeadLettersRequest())).dead_letters[2]
        assert (behind.behind, behind.error, behind.consumer) == ("source/1", "", CONSUMER)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await at.listed(consumer="nobody", page_token="forged")
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "token",
    [
        PageTokens(b"another").issue(EVERYTHING, ("here", 1)),
        PageTokens(b"letters").issue(EVERYTHING, ("here", 1)),
        PageTokens(b"key").issue(EVERYTHING, (1, "here")),  # of another version of the service
        PageTokens(b"key").issue(EVERYTHING, ("here", 1, 1)),
        unsigned("here", 1),
        unsigned("here", "one"),
        unsigned(1, "here"),
        unsigned(),
        "AAAA",
        "\u0661",
    ],
)
async def test_a_forged_page_token_is_refused(token: str) -> None:
    async with desk(["a:1"]) as at:
        await at.say("a:1")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await at.listed(page_token=token)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "page_token" in (refused.value.details() or "")


async def test_a_key_that_is_an_id_is_found_in_any_spelling() -> None:
    id = new_id()
    async with desk([f"{id}:1", f"{id}:2"]) as at:
        await at.say(f"{id}:1", f"{id}:2", "A:1")
        assert await at.listed(key=id.upper()) == ["source/1", "source/2"]
        page = await at.letters.ListDeadLetters(pb.ListDeadLettersRequest(key=id.upper(), page_size=1))
        assert await at.listed(key=id, page_token=page.next_page_token) == ["source/2"]
        [counted] = await at.replay(pb.DeadLetterSelection(key=id.upper()), dry_run=True)
        assert counted.selected == 2


async def test_groups_by_consumer_and_error() -> None:
    async with desk(["a:1", "b:1"]) as at:
        await at.say("a:1", "b:1", "a:2", "a:3")
        grouped = await at.letters.GroupDeadLetters(pb.GroupDeadLettersRequest())
    assert grouped.count == 4
    assert {(g.error_type, g.error, g.count, g.first) for g in grouped.groups} == {
        ("", "", 2, "source/3"),
        ("Broken", "cannot bear a:1", 1, "source/1"),
        ("Broken", "cannot bear b:1", 1, "source/2"),
    }


async def test_of_very_many_errors_the_rest_are_together_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that name an id are as many as their events, and an answer has to fit into a message."""
    monkeypatch.setattr(dead_letter_groups, "_MOST", 2)
    async with desk([f"{key}:1" for key in "abcd"]) as at:
        await at.say("d:1", "a:1", "b:1", "c:1", "c:2", "c:3")
        request = pb.GroupDeadLettersRequest(trend_seconds=3600)
        grouped = await at.letters.GroupDeadLetters(request)
    assert grouped.count == 6
    assert [(g.error_type, g.error, g.count, g.first, g.behind, sum(g.trend)) for g in grouped.groups] == [
        ("Broken", "", 3, "source/2", 2, 3),
        ("", "", 2, "source/5", 0, 2),
        ("Broken", "cannot bear d:1", 1, "source/1", 0, 1),
    ]


async def test_shows_the_payload_decoded_or_as_it_is() -> None:
    async with desk(["a:1"]) as at:
        await at.say("a:1")
        strange = event(2, "b:1")._replace(payload=b"\xff")
        await at.handler.handle([strange], at.at)
        shown = await at.letters.GetDeadLetter(pb.GetDeadLetterRequest(address="source/1"))
        assert (shown.payload_json, shown.dead_letter.error) == ('"a:1"', "cannot bear a:1")
        assert MessageToDict(shown.payload_struct) == {"value": "a:1"}
        assert (shown.stream, shown.cause, shown.actor) == ("stream/a", "rpc/Say", "client")
        raw = await at.letters.GetDeadLetter(pb.GetDeadLetterRequest(address="source/2"))
        assert (raw.payload_json, raw.payload, len(raw.payload_struct)) == ("", b"\xff", 0)
        for address in ("source/9", "source/0", f"source/{10**30}"):
            with pytest.raises(grpc.aio.AioRpcError) as missing:
                await at.letters.GetDeadLetter(pb.GetDeadLetterRequest(address=address))
            assert missing.value.code() == grpc.StatusCode.NOT_FOUND, address


async def test_a_replay_counts_then_goes_in_order_and_stops_a_key_that_fails_again() -> None:
    async with desk(["a:1", "b:1", "b:2"]) as at:
        await at.say("a:1", "b:1", "b:2", "a:2", "b:3")
        [count] = await at.replay(ALL, dry_run=True)
        assert (count.selected, count.replayed) == (5, 0)
        at.source.poison = {"b:2"}
        *steps, end = await at.replay(ALL, per_second=1000)
        assert (end.selected, end.replayed, end.failed) == (5, 3, 1)
        assert [(step.address, step.error) for step in steps] == [
            ("source/1", ""),
            ("source/2", ""),
            ("source/3", "cannot bear b:2"),
            ("source/4", ""),
        ]
        assert await at.listed() == ["source/3", "source/5"]
        [failed] = (
            await at.letters.ListDeadLetters(pb.ListDeadLettersRequest(error_type="Broken"))
        ).dead_letters
        assert failed.error == "cannot bear b:2"
        at.source.poison.clear()
        await at.replay(pb.DeadLetterSelection(key="b"))
        await at.say("b:4")
        assert (journal(at.log, "a"), journal(at.log, "b")) == ([1, 2], [1, 2, 3, 4])


async def test_a_group_is_replayed_with_what_waits_behind_it() -> None:
    async with desk(["a:1"]) as at:
        await at.say("a:1", "a:2")
        unknown = event(3, "b:1")._replace(type="tests.v1.Unheard")
        at.at = await at.handler.handle([unknown], at.at)
        at.source.poison.clear()
        *_, end = await at.replay(pb.DeadLetterSelection(error_type="Broken"))
        assert (end.selected, end.replayed) == (2, 2)
        assert await at.listed() == ["source/3"]


async def test_one_event_is_replayed_only_where_it_is_the_first_of_its_key() -> None:
    async with desk(["a:1"]) as at:
        await at.say("a:1", "a:2")
        at.source.poison.clear()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await at.replay(pb.DeadLetterSelection(address="source/2"))
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "source/1" in rich(refused.value).message
        *_, end = await at.replay(pb.DeadLetterSelection(address="source/1"))
        assert end.replayed == 1
        assert await at.listed() == ["source/2"]


async def test_a_discard_needs_a_reason_and_frees_what_is_behind() -> None:
    async with desk(["a:1"]) as at:
        await at.say("a:1", "a:2")
        one = pb.DeadLetterSelection(address="source/1")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await at.letters.DiscardDeadLetters(pb.DiscardDeadLettersRequest(selection=one))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        request = pb.DiscardDeadLettersRequest(selection=one, reason="a typo", dry_run=True)
        assert (await at.letters.DiscardDeadLetters(request)).discarded == 0
        request.dry_run = False
        called = at.letters.DiscardDeadLetters(request, metadata=(("x-actor", "eve"),))
        assert (await called).discarded == 1
        assert at.log.events[-1].metadata.actor == "eve"
        assert (await at.replay(ALL))[-1].replayed == 1
    assert journal(at.log, "a") == [2]


@pytest.mark.parametrize(
    "selection",
    [
        pb.DeadLetterSelection(),
        pb.DeadLetterSelection(all=False),
        pb.DeadLetterSelection(address="17"),
        pb.DeadLetterSelection(all=True, consumer="nobody"),
    ],
)
async def test_refuses_a_selection_that_says_too_little(selection: pb.DeadLetterSelection) -> None:
    async with desk() as at:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await at.replay(selection)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_health_tells_of_dead_letters_and_the_service_goes_on_serving() -> None:
    async with desk(["a:1"]) as at:
        assert await at.status("dead-letters") == HealthCheckResponse.SERVING
        await at.say("a:1", "a:2")
        assert await at.status("") == HealthCheckResponse.SERVING
        call = at.health.Check(HealthCheckRequest(service="dead-letters"))
        assert (await call).status == HealthCheckResponse.NOT_SERVING
        said = dict(list(await call.trailing_metadata()))[PROBLEM_KEY]
    assert said.startswith(f"{CONSUMER} has set 2 events aside: twinlog dead-letters list tells why;")


async def test_shows_the_newest_traceback() -> None:
    async with desk(["a:1", "b:1", "a:2"]) as at:
        await at.say("a:1", "b:1", "a:2")

        async def traceback(address: str) -> str:
            shown = await at.letters.GetDeadLetter(pb.GetDeadLetterRequest(address=address))
            return str(shown.traceback)

        assert "journal.py" in await traceback("source/1")
        assert (await traceback("source/1")).endswith("Broken: cannot bear a:1\n")
        assert await traceback("source/3") == ""
        await at.replay(pb.DeadLetterSelection(address="source/1"))
        assert (await traceback("source/1")).endswith("Broken: cannot bear a:1\n")
        at.source.poison.discard("a:1")
        await at.replay(ALL)
        assert await at.listed() == ["source/2", "source/3"]
        assert (await traceback("source/3")).endswith("Broken: cannot bear a:2\n")


def test_a_traceback_is_kept_to_its_end_and_is_text() -> None:
    try:
        raise ValueError("\ud800" * 9_000 + "the end")
    except ValueError as error:
        kept = Failure.of(error, 1).traceback
    assert (len(kept), kept[0]) == (4_000, "…")
    assert kept.endswith("\\ud800the end\n")
    assert kept.encode()


async def test_groups_say_how_many_wait_behind_and_the_trend() -> None:
    async with desk(["a:1", "b:1"]) as at:
        await at.say("a:1", "b:1", "a:2", "a:3")
        grouped = await at.letters.GroupDeadLetters(pb.GroupDeadLettersRequest(trend_seconds=3600))
        by_error = {group.error: group for group in grouped.groups}
        assert by_error["cannot bear a:1"].behind == 2
        assert by_error["cannot bear b:1"].behind == 0
        assert list(by_error["cannot bear a:1"].trend) == [*[0] * 23, 1]
        assert list(by_error[""].trend) == [*[0] * 23, 2]
        assert by_error["cannot bear a:1"].oldest_parked_at.seconds > 0
        plain = await at.letters.GroupDeadLetters(pb.GroupDeadLettersRequest())
        assert all(not group.trend and not group.newest_parked_at.seconds for group in plain.groups)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await at.letters.GroupDeadLetters(pb.GroupDeadLettersRequest(trend_seconds=-1))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_trend_counts_by_age() -> None:
    now = datetime(2026, 11, 27, tzinfo=UTC)
    times = [now - timedelta(seconds=age) for age in (-1, 0, 9, 11, 239, 240, 5000)]
    assert trend(times, now, 240) == [1, *[0] * 21, 1, 3]


async def test_a_replay_under_way_is_shown_to_all() -> None:
    async with desk(["a:1", "b:1"]) as at:
        await at.say("a:1", "b:1")
        at.source.poison.clear()
        request = pb.ReplayDeadLettersRequest(selection=ALL, per_second=0.001)
        replay = at.letters.ReplayDeadLetters(request, metadata=(("x-actor", "ada"),))
        await replay.read()

        async def under_way() -> Sequence[pb.DeadLetterReplay]:
            found: Sequence[pb.DeadLetterReplay] = (
                await at.letters.GroupDeadLetters(pb.GroupDeadLettersRequest())
            ).replays
            return found

        [shown] = await under_way()
        assert (shown.selected, shown.replayed, shown.failed, shown.actor) == (2, 1, 0, "ada")
        assert shown.selection == ALL
        assert (shown.per_second, shown.started_at.seconds > 0) == (0.001, True)
        replay.cancel()
        async with asyncio.timeout(60):
            while await under_way():
                await asyncio.sleep(0.01)
        assert await at.listed() == ["source/2"]
