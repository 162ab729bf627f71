"""Every limit that is documented, on both of its sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.type.money_pb2 import Money as MoneyMessage

from shop.queries.v1.order_query_service_pb2 import GetOrderRequest
from tests.dead_letters.journal import Source, event, journal, replica
from tests.kernel.edge import Edge, serving
from tests.memory_shop import NoContext
from twinlog import InvalidArgument, Money, UuidMap
from twinlog.consume import dead_lettering
from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.consume.dead_letters import Failure
from twinlog.rpc import Checks, Limits, PageTokens
from twinlog.rpc import tokens as consistency_tokens
from twinlog.rpc.dead_letter_service import DeadLetterService
from twinlog.testing import MemoryLog
from twinlog.v1 import dead_letter_service_pb2 as pb

PAGES = PageTokens(b"secret")
ID = str(uuid4())


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    monkeypatch.setattr(dead_lettering, "RETRY_FIRST_SECONDS", 0.0)


def violated(check: Callable[[Checks], object]) -> list[str]:
    """The fields that a check finds wrong."""
    checks = Checks()
    check(checks)
    try:
        checks.done()
    except InvalidArgument as refusal:
        return list(refusal.violations)
    return []


def money(units: int, nanos: int = 0) -> Callable[[Checks], object]:
    return lambda c: c.money("x", MoneyMessage(units=units, nanos=nanos, currency_code="EUR"), positive=False)


def page_size(size: int) -> Callable[[Checks], object]:
    return lambda c: c.page_size("x", size)


def name(length: int, character: str = "x") -> Callable[[Checks], object]:
    return lambda c: c.name("x", character * length)


def uuid(text: str) -> Callable[[Checks], object]:
    return lambda c: c.uuid("x", text)


def position(number: int) -> Callable[[Checks], object]:
    return lambda c: c.consistency_token("x", f"orders:{number}", ["orders"])


def page_after(key: int) -> Callable[[Checks], object]:
    return lambda c: c.page_token("x", PAGES.issue("", (key,)), PAGES, "", (int,))


QUADRILLION = 10**15
WITHIN = {
    "page size": [page_size(0), page_size(1), page_size(999), page_size(1000)],
    "name": [name(1), name(199), name(200), name(200, "\U0001f600")],
    "units": [money(0), money(QUADRILLION - 1, 999_999_999), money(QUADRILLION)],
    "nanos": [money(0, 1), money(0, 999_999_999), money(1, 999_999_999)],
    "uuid": [uuid(ID), uuid(ID.upper())],
    "position": [position(0), position(2**63 - 1)],
    "page token": [page_after(2**63 - 1), page_after(1 - 2**63)],
}
BEYOND = {
    "page size": [page_size(-1), page_size(1001), page_size(2**31 - 1)],
    "name": [name(0), name(201), name(201, "\U0001f600")],
    "units": [money(QUADRILLION, 1), money(QUADRILLION + 1), money(0, -1)],
    "nanos": [money(0, 10**9), money(1, 10**9), money(1, -1)],
    "uuid": [uuid(ID[:-1]), uuid(ID + "0")],
    "position": [position(2**63), position(10**18 * 10 - 1)],
    "page token": [page_after(2**63), page_after(-(2**63))],
}


@pytest.mark.parametrize("limit", WITHIN)
def test_what_is_within_a_limit_passes(limit: str) -> None:
    assert [violated(check) for check in WITHIN[limit]] == [[]] * len(WITHIN[limit])


@pytest.mark.parametrize("limit", BEYOND)
def test_what_is_beyond_it_is_refused(limit: str) -> None:
    said = [violated(check) for check in BEYOND[limit]]
    assert all(len(fields) == 1 for fields in said), said


def test_an_amount_may_be_negative_down_to_its_limit_only() -> None:
    for units, field in ((-QUADRILLION, "x"), (-QUADRILLION - 1, "x.units")):
        assert violated(money(units)) == [field], "what is within the limit is refused for its sign alone"


def test_a_token_of_consistency_has_up_to_512_characters() -> None:
    logs = [f"log_{number:03}" for number in range(60)]
    token = consistency_tokens.write(dict.fromkeys(logs[:39], 1000))
    longest = token + "," + "a" * (512 - len(token) - 3) + ":1"
    assert len(longest) == 512
    assert len(consistency_tokens.parse(longest, [*logs, longest.rpartition(",")[2][:-2]])) == 40
    with pytest.raises(InvalidArgument):
        consistency_tokens.parse(longest + "0", [*logs, longest.rpartition(",")[2][:-2]])


def test_a_page_token_has_up_to_2048_characters() -> None:
    def issued(length: int) -> tuple[str, str]:
        key = "x" * length
        return key, PAGES.issue("", (key,))

    within, beyond = issued(1516), issued(1517)
    assert (len(within[1]), len(beyond[1])) == (2048, 2050)
    assert PAGES.read(within[1], "", (str,)) == (within[0],)
    with pytest.raises(InvalidArgument):
        PAGES.read(beyond[1], "", (str,))


async def test_a_request_has_up_to_256_kib() -> None:
    assert Limits().message_bytes == 256 * 1024
    fits = "x" * (256 * 1024 - len(GetOrderRequest(order_id="x" * 2**17).SerializeToString()) + 2**17)
    assert GetOrderRequest(order_id=fits).ByteSize() == 256 * 1024
    async with serving(Edge()) as client:
        assert await client.get(fits) == fits
        refused = await client.refusal(fits + "x")
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(("listed", "more"), [(999, False), (1000, False), (1001, True)])
async def test_a_page_holds_up_to_1000_and_says_whether_more_follow(listed: int, more: bool) -> None:
    async with dead_letters(listed) as service:
        request = pb.ListDeadLettersRequest(page_size=1000)
        page = await service.ListDeadLetters(request, NoContext())
        assert len(page.dead_letters) == min(listed, 1000)
        assert bool(page.next_page_token) == more
        if more:
            request.page_token = page.next_page_token
            assert len((await service.ListDeadLetters(request, NoContext())).dead_letters) == listed - 1000


class dead_letters:
    """A service with so many dead letters, behind each other."""

    def __init__(self, count: int) -> None:
        self._texts = [f"a:{number}" for number in range(count)]

    async def __aenter__(self) -> DeadLetterService:
        source, log = Source(), MemoryLog("own")
        source.poison = {self._texts[0]}
        operations = DeadLetterOperations(log)
        self._replica = replica(source, log)
        handler = await self._replica.__aenter__()
        operations.add(handler)
        at = await handler.handle(source.add(self._texts[0]), 0)
        if behind := source.add(*self._texts[1:]):
            await handler.handle(behind, at)
        assert journal(log, "a") == []
        return DeadLetterService(operations, PAGES)

    async def __aexit__(self, *exc: Any) -> None:
        await self._replica.__aexit__(*exc)


async def test_a_discards_reason_has_1_to_200_characters_and_a_replay_10000_a_second_at_most() -> None:
    chosen = pb.DeadLetterSelection(all=True)
    async with dead_letters(1) as service:
        for length, refused in ((0, True), (201, True), (200, False)):
            discard = pb.DiscardDeadLettersRequest(selection=chosen, reason="x" * length, dry_run=True)
            assert await refuses(service.DiscardDeadLetters(discard, NoContext())) == refused
        for per_second, refused in ((-1, True), (0, False), (10_000, False), (10_001, True)):
            replay = pb.ReplayDeadLettersRequest(selection=chosen, per_second=per_second, dry_run=True)
            assert await refuses(all_of(service.ReplayDeadLetters(replay, NoContext()))) == refused


async def all_of(stream: Any) -> list[Any]:
    return [each async for each in stream]


async def refuses(call: Any) -> bool:
    try:
        await call
    except InvalidArgument as refusal:
        assert len(refusal.violations) == 1
        return True
    return False


def test_a_failure_keeps_500_characters_of_its_error() -> None:
    for length in (499, 500, 501):
        assert len(Failure.of(ValueError("x" * length), 1).error) == min(length, 500)


def test_a_map_of_uuids_holds_numbers_of_95_bits_and_a_sign() -> None:
    for number in (2**95 - 1, -(2**95)):
        assert UuidMap().insert(ID, number)[ID] == number
        assert UuidMap({ID: number})[ID] == number
    for number in (2**95, -(2**95) - 1):
        with pytest.raises(OverflowError):
            UuidMap().insert(ID, number)


def test_an_amount_on_the_wire_has_64_bits_of_units() -> None:
    for units in (2**63 - 1, -(2**63)):
        assert Money(units * 10**9, "EUR").to_proto().units == units
    for units in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError):
            Money(units * 10**9, "EUR").to_proto()


def test_keys_fall_into_64_buckets_which_all_occur() -> None:
    events = [event(1, "a:1")._replace(partition_key=str(number)) for number in range(2000)]
    assert {int(each.subject.split(".")[1]) for each in events} == set(range(64))
