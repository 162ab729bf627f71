"""What services say of themselves, and what it means that one is late."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.console.shop import hanging
from tests.waiting import until
from twinlog.console import looks
from twinlog.console.answers import Answer, Why
from twinlog.console.drawing import draw
from twinlog.console.looks import SLOW, Look, Looking, Said
from twinlog.console.rendering import environment
from twinlog.console.services import Services, loading
from twinlog.v1 import inspection_pb2 as pb


class Late:
    """A service that answers when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.asked = 0

    async def __call__(
        self, service: str, method: Callable[[Any], Any], request: Any, /, *, seconds: float
    ) -> Answer[Any]:
        self.asked += 1
        await self.may.wait()
        described = isinstance(request, pb.DescribeRequest)
        return Answer(service, pb.DescribeResponse() if described else pb.ListConsumersResponse())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service is silent at once, until it is known to be slow; whatever comes then comes late."""
    monkeypatch.setattr(looks, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(looks, "DEADLINE_SECONDS", 0.0)
    hanging.add("svc")
    yield
    hanging.discard("svc")


@asynccontextmanager
async def looking(service: Late) -> AsyncIterator[Looking]:
    async with Looking({"svc": "host:1"}, service) as made:
        yield made


async def test_a_console_that_stops_while_it_waits_for_an_answer_logs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks, "DEADLINE_SECONDS", 600.0)
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    service = Late()
    async with looking(service):
        await until(lambda: service.asked == 2)
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    await asyncio.sleep(0)  # what waits for their ends hears of them
    gc.collect()
    assert not told


async def said(made: Looking) -> Said:
    return (await made.look()).services["svc"]


async def test_one_that_is_late_is_silent_until_it_answers_and_slow_when_it_is_late_again() -> None:
    service, turns = Late(), list[bool]()
    async with looking(service) as made:
        made.on_turn = lambda: turns.append(made.silence("svc") is not None)
        await until(lambda: made.silence("svc") is not None)
        silent = await said(made)
        assert (silent.silent_since is not None, silent.problem) == (True, "no answer in 0 s")
        assert [*silent.problems()] == [("silent", "no answer in 0 s")]
        # As one that was stopped and goes on: the very answer that it owed comes, and it is no more than late.
        service.may.set()
        await until(lambda: made.lives("svc"))
        assert turns[:2] == [True, False]

        async def slow() -> bool:
            return [signal for signal, _ in (await said(made)).problems()] == [SLOW]

        await until(slow)
    slow_one = Said("svc", "host:1", pb.DescribeResponse(), slow_seconds=3)
    assert [*slow_one.problems()] == [
        (SLOW, "it answers, and takes 3 s: it has much to do, or its machine has")
    ]
    [box] = draw(Look({"svc": slow_one})).logs
    assert box.box.state == "warn"


async def test_who_leaves_while_one_is_asked_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "DEADLINE_SECONDS", 3_600.0)
    said = list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))
    service = Late()
    async with looking(service):
        await until(lambda: service.asked == 2)
    for _ in range(10):  # in which what was canceled ends
        await asyncio.sleep(0)
    gc.collect()
    assert said == []


async def test_what_does_not_come_from_one_that_lives_is_told_to_be_slow_and_given_time_where_nobody_waits() -> (
    None
):
    services = Services({"svc": "host:1"}, {})
    late = Answer[Any]("svc", None, Why.SLOW, "no answer in 1 s", "DEADLINE_EXCEEDED")
    assert services._told(late, 1.0) is late
    services.looking._said["svc"] = Said("svc", "host:1", pb.DescribeResponse())
    assert services._told(late, 1.0).problem == "it is slow, and has not answered this in 1 s"
    services.looking._patience["svc"] = 7.0
    with loading():
        assert services._seconds("svc", 1.0) == 1.0
    with loading(patient=True):
        assert services._seconds("svc", 1.0) >= 7.0


def test_a_service_that_serves_calls_for_attention_and_leads_to_what_can_be_done() -> None:
    """The same difference as in health and `twinlog status`."""

    def told(*problems: tuple[str, str]) -> Said:
        made = [pb.Problem(signal=signal, problem=problem) for signal, problem in problems]
        return Said("svc", "host:1", pb.DescribeResponse(problems=made))

    macros: Any = environment().get_template("macros.html").module
    for one, state, word in (
        (told(), "ok", "up"),
        (told(("dead-letters", "1 is aside")), "warn", "attention"),
        (replace(told(), slow_seconds=3), "warn", "slow"),
        (told(("dead-letters", "1 is aside"), ("", "no NATS")), "bad", "problem"),
        (replace(told(), silent_since=datetime.now(UTC)), "silent", "no answer"),
        (Said("svc", "host:1"), "silent", "not heard of yet"),
    ):
        assert (one.state, f">{word}<" in macros.service_state(one)) == (state, True), word
    assert 'href="/dead-letters"' in macros.signaled("dead-letters")
