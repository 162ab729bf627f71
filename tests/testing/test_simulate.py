"""Simulation of a domain that is not the shop: right handlers pass, and planted bugs are found and cut down."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partialmethod
from random import Random
from typing import Any, NoReturn

import pytest

from tests.dead_letters.journal import event
from tests.hotel import simulation as hotel
from tests.hotel.services import HOTEL, PATIENT_HOTEL
from tests.hotel.simulation import SCENARIO, HotelInvariants, script
from twinlog import Recorded
from twinlog.testing import Invariants, Kinds, MemoryLog, Scenario, Simulation, SimulationFailed, simulate
from twinlog.testing.simulation.commits import shown

SEEDS = range(12)


def test_the_hotel_keeps_every_promise() -> None:
    assert simulate(SCENARIO, HotelInvariants, seeds=SEEDS).seeds == len(SEEDS)


def test_what_is_put_off_is_tried_again_once_however_often_it_is_heard() -> None:
    # Without the saga's memory of what it heard, seeds 0, 2, 3 and 10 break a promise; without the room's, others do.
    again = Scenario(PATIENT_HOTEL, script, kinds=_heard_again)
    simulate(again, HotelInvariants, seeds=range(11))


def _heard_again(kinds: Kinds) -> Kinds:
    return {name: kinds[name] for name in ("replay", "set back")}


@pytest.mark.parametrize("bug", [hotel.no_tombstone, hotel.not_idempotent])
def test_a_planted_bug_is_found_and_can_be_replayed(
    bug: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What it is cut down to within seconds would depend on what else the machine does.
    patient = partialmethod(Simulation.shrunk, seconds=math.inf)
    monkeypatch.setattr(Simulation, "shrunk", patient)
    with bug():
        with pytest.raises(SimulationFailed) as failed:
            simulate(SCENARIO, HotelInvariants, seeds=range(200))
        found = failed.value
        assert f"replay: simulate(..., seeds=[{found.seed}])" in str(found)
        # To cut it down takes much longer than to run it: once is enough.
        ((_, again),) = Simulation(SCENARIO, HotelInvariants).sweep([found.seed]).failures
        assert (again.promise, again.facts) == (found.promise, found.facts)
        [(calls, faults)] = re.findall(
            r"^It takes (\d+) commands? and (\d+) faults?:$", str(found), re.MULTILINE
        )
        assert int(calls) + int(faults) <= 4
    assert simulate(SCENARIO, HotelInvariants, seeds=[found.seed]).seeds == 1


def test_a_bug_that_is_planted_in_a_store_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    def due(*_given: object) -> NoReturn:
        raise ArithmeticError("planted")

    monkeypatch.setattr(MemoryLog, "due", due)
    ((_, failure),) = Simulation(SCENARIO, HotelInvariants).sweep(range(1)).failures
    assert "planted" in failure.facts


def test_a_scenario_says_what_goes_wrong() -> None:
    def crashes(every: Kinds) -> Kinds:
        return {"crash": every["crash"]}

    plans = [Simulation(replace(SCENARIO, kinds=crashes)).plan(seed) for seed in range(20)]
    assert {fault.kind for plan in plans for fault in plan.faults} == {"crash"}


def test_a_handler_that_raises_breaks_the_run() -> None:
    calls = [call for seed in range(3) for call in SCENARIO.script(Random(seed))]
    wrong = [replace(call, method="NoSuchMethod") for call in calls[:1]]
    with pytest.raises(SimulationFailed, match="serves no method NoSuchMethod"):
        simulate(replace(SCENARIO, script=lambda _chance: wrong), seeds=[0])


class NoRooms(Invariants):
    """Wrong about the hotel, in the way that is asked for."""

    def event(self, event: Recorded, message: Any) -> None:
        assert message.DESCRIPTOR.name != "RoomOpened", "there are no rooms"


class Mistaken(NoRooms):
    def event(self, event: Recorded, message: Any) -> None:
        self.scene.options["hotel"]


class Async(Invariants):
    """Would never be run."""

    async def event(self, event: Recorded, message: Any) -> None:  # type: ignore[override]
        raise AssertionError(event)


class Answering(Invariants):
    """Would have its answer forgotten."""

    def event(self, event: Recorded, message: Any) -> bool:  # type: ignore[override]
        return bool(message.DESCRIPTOR.name == "RoomOpened")


@pytest.mark.parametrize(
    ("invariants", "told"),
    [
        (Async, "event is async, so that nothing of it would run"),
        (Answering, "event gives False, and nobody looks at it; assert what has to hold"),
        (NoRooms, r"\(invariants\): there are no rooms"),
        (Mistaken, r"\(no crash\): TypeError: .*test_simulate.py:\d+\)"),
    ],
)
def test_what_invariants_raise_is_told_with_its_place(invariants: type[Invariants], told: str) -> None:
    with pytest.raises(SimulationFailed, match=told):
        simulate(SCENARIO, invariants, seeds=[3])


class Misspelt(Invariants):
    """Has a check that nobody calls."""

    def at_the_end(self) -> None:
        raise AssertionError


def test_what_would_look_at_nothing_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"Misspelt overrides none of event, acknowledged.*; name its checks so"
    ):
        simulate(SCENARIO, Misspelt, seeds=[3])
    with pytest.raises(ValueError, match=r"no seed was run; give some, as seeds=range\(100\)"):
        simulate(SCENARIO, seeds=[])


class CountsOnce(Invariants):
    """Every event is the first that these options see of its kind of rooms."""

    def event(self, event: Recorded, message: Any) -> None:
        self.scene.options.append(event.address)
        assert len(set(self.scene.options)) == len(self.scene.options), "the options are another run's"


def test_options_that_hold_what_a_run_changes_are_made_anew() -> None:
    def no_options(_chance: Random) -> list[str]:
        return []

    simulation = Simulation(
        replace(SCENARIO, services=lambda _options: HOTEL, options=no_options), CountsOnce
    )
    plan = simulation.plan(3)
    assert [simulation.run(3, plan).failure for _ in range(2)] == [None, None]


def test_a_trace_shortens_uuids_and_no_other_ids() -> None:
    for id, told in {"suite": "suite", "0190a000-0000-7000-8000-00000000000a": "000a"}.items():
        assert shown(event(1, f"{id}:1")) == f"source/1 StringValue of stream {told}"
