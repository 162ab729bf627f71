"""Which calls of a method are begun, which are held, and which of those are refused: in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.virtual_time import in_virtual_time, simulated
from twinlog.rpc import entrance
from twinlog.rpc.entrance import Entrance, aside, held_seconds
from twinlog.rpc.gates import Gate, Refusal

ENOUGH, MANY, FIRST, TOGETHER = (
    entrance._ENOUGH,
    entrance._MANY,
    entrance._FIRST,
    entrance._MOST_TOGETHER,
)
WAITING, SHUT = (Refusal(8, why, (), lambda: None) for why in ("many wait", "there is too much to do"))


class Method:
    """A method whose calls are numbers, and end when they are told to."""

    def __init__(self, *, limited: bool = True) -> None:
        self.gate = Gate()
        if limited:
            self.gate.too_much = lambda _waiting: WAITING
        self.entrance = Entrance(self.gate, self._begin, lambda call, why: self.refused.append((call, why)))
        self.waits_for_others = False
        self.came = 0
        self.begun: list[int] = []
        self.under_way: dict[int, asyncio.Event] = {}
        self.most = 0
        self.refused: list[tuple[int, Refusal]] = []

    def _begin(self, call: int) -> asyncio.Task[None]:
        self.begun.append(call)
        self.under_way[call] = asyncio.Event()
        self.most = max(self.most, len(self.under_way))
        return asyncio.get_running_loop().create_task(self._serve(call))

    async def _serve(self, call: int) -> None:
        with aside() if self.waits_for_others else nullcontext():
            await self.under_way[call].wait()
        del self.under_way[call]

    def come(self, calls: int) -> None:
        """So many calls come at once."""
        for _ in range(calls):
            self.came += 1
            self.entrance.come(self.came)

    async def end(self, calls: int) -> None:
        """The first so many that are under way end."""
        for ended in [*self.under_way.values()][:calls]:
            ended.set()
        await turns()

    def shut(self) -> None:
        """Shuts the gate until it is opened."""
        self.gate.refusal = SHUT


async def turns() -> None:
    """Whatever is to be done at once is done."""
    for _ in range(100):
        await asyncio.sleep(0)


@in_virtual_time
async def test_a_method_with_many_calls_begins_one_as_another_ends_the_newest_first() -> None:
    method = Method()
    method.come(MANY)
    assert method.begun == [*range(1, MANY + 1)], "a slow machine refuses nothing where few calls come"
    method.come(MANY)
    await method.end(MANY - ENOUGH)
    assert len(method.begun) == MANY
    await method.end(3)
    assert method.begun[MANY:] == [2 * MANY, 2 * MANY - 1, 2 * MANY - 2]
    assert len(method.under_way) == ENOUGH
    method.entrance.cancel()


@in_virtual_time
async def test_what_is_held_for_long_is_refused_the_oldest_first_in_parts_and_together() -> None:
    method = Method()
    method.come(MANY + 3 * TOGETHER)
    seconds = held_seconds(0)
    await asyncio.sleep(seconds * 0.99)
    assert not method.refused
    await asyncio.sleep(held_seconds(3 * TOGETHER) + 0.1)
    assert method.refused == [(MANY + 1 + number, WAITING) for number in range(3 * TOGETHER)]
    assert not method.entrance
    assert len(method.begun) == MANY


@in_virtual_time
async def test_a_crowd_is_refused_in_parts_so_that_others_have_their_turn() -> None:
    method = Method()
    method.shut()
    method.come(3 * TOGETHER)
    method.entrance.close()
    for part in (1, 2, 3):
        assert method.refused == [(1 + number, SHUT) for number in range(part * TOGETHER)]
        await asyncio.sleep(0)
    assert not method.entrance


@in_virtual_time
async def test_an_open_gate_lets_in_the_newest_first_and_more_as_those_end() -> None:
    method = Method()
    method.shut()
    method.come(ENOUGH)
    method.gate.open(None)
    await turns()
    assert method.begun == [*range(ENOUGH, ENOUGH - FIRST, -1)]
    method.shut()
    await method.end(1)
    assert len(method.begun) == FIRST, "one of them has shut it"
    method.gate.open(None)
    await method.end(FIRST)
    assert len(method.begun) == 4 * FIRST
    await method.end(2 * FIRST)
    assert len(method.begun) == 8 * FIRST
    assert not method.refused
    method.entrance.cancel()


@in_virtual_time
async def test_what_is_held_is_refused_at_once_as_the_server_stops_and_nothing_is_held_then() -> None:
    method = Method()
    method.come(MANY + TOGETHER + 1)
    method.entrance.close()
    await turns()
    assert len(method.refused) == TOGETHER + 1
    method.come(1)
    assert len(method.begun) == MANY + 1
    method.entrance.cancel()


@in_virtual_time
async def test_nothing_is_refused_before_the_server_stops_and_what_comes_is_begun() -> None:
    """Whoever is refused comes again, and finds the server closed."""
    method = Method()
    method.come(MANY + TOGETHER)
    method.gate.stopping = True
    await asyncio.sleep(10.0)
    method.come(1)
    assert (len(method.begun), method.refused) == (MANY + 1, [])
    method.entrance.close()
    assert len(method.refused) == TOGETHER
    method.entrance.cancel()


@in_virtual_time
async def test_a_server_that_has_ended_leaves_no_timer() -> None:
    method = Method()
    method.shut()
    method.come(1)
    method.entrance.cancel()
    await asyncio.sleep(10.0)
    assert not method.refused


@in_virtual_time
async def test_what_ends_after_the_server_begins_none_of_what_was_held() -> None:
    method = Method()
    method.come(MANY + 3 * TOGETHER)
    method.entrance.close()
    method.entrance.cancel()
    await method.end(MANY)
    assert (len(method.begun), len(method.refused)) == (MANY, TOGETHER)


@in_virtual_time
async def test_calls_that_wait_for_others_keep_none_from_being_begun() -> None:
    method = Method()
    method.waits_for_others = True
    method.come(MANY + 1)
    await turns()
    method.come(MANY)
    await turns()
    assert len(method.begun) == 2 * MANY + 1
    method.waits_for_others = False
    await method.end(2 * MANY)
    method.come(MANY + 1)
    assert len(method.begun) == 3 * MANY + 1, "they have left, and count as before"
    method.entrance.cancel()


@in_virtual_time
async def test_methods_without_a_limit_hold_nothing() -> None:
    method = Method(limited=False)
    method.shut()
    method.come(MANY + 1)
    assert len(method.begun) == MANY + 1


def test_a_refusal_takes_longer_where_many_are_held() -> None:
    once = held_seconds(0)
    assert [held_seconds(held) / once for held in (125, 250, 1_250, 20_000)] == [1.5, 2, 6, 6]


ACTIONS = st.one_of(
    st.tuples(st.just("come"), st.integers(1, 12)),
    st.tuples(st.just("end"), st.integers(1, 12)),
    st.tuples(st.sampled_from(["shut", "open"]), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 4)),
)


@given(st.lists(ACTIONS, max_size=30))
def test_a_call_is_begun_or_refused_once_and_none_waits_where_there_is_room(
    actions: Sequence[tuple[str, int]],
) -> None:
    with pytest.MonkeyPatch.context() as small:
        for name, value in {"_ENOUGH": 4, "_MANY": 8, "_FIRST": 2, "_MOST_TOGETHER": 3}.items():
            small.setattr(entrance, name, value)
        simulated(_acted(actions))


async def _acted(actions: Sequence[tuple[str, int]]) -> None:
    method = Method()
    for action, number in actions:
        if action == "wait":
            await asyncio.sleep(0.1 * number)
        elif action == "end":
            await method.end(number)
        elif action == "come":
            method.come(number)
        elif action == "shut":
            method.shut()
        else:
            method.gate.open(None)
        await turns()
        known = [*method.begun, *(call for call, _ in method.refused)]
        assert len(known) + len(method.entrance) == method.came
        assert len(set(known)) == len(known)
        assert method.most <= 8
        assert not method.entrance or method.gate.refusal or method.under_way, "none would be begun"
    await asyncio.sleep(held_seconds(method.came) + 0.1 * method.came)
    assert not method.entrance, "it was begun, or refused"
