"""Everything goes wrong, and the promises hold; where a handler is wrong, that is found."""

from dataclasses import replace
from typing import Any

import pytest
from twinlog.testing import Scenario, SimulationFailed, simulate

from payments_svc.provider import FakeProvider
from rooms_svc.domain import ROOM, Room
from tests.simulation import SCENARIO, AllOrNothing


def only(kind: str) -> Scenario:
    """One kind of fault, which finds sooner what it is about."""
    return replace(SCENARIO, kinds=lambda kinds: {kind: kinds[kind]})


def test_every_trip_is_all_done_or_all_undone() -> None:
    simulate(SCENARIO, AllOrNothing, seeds=range(10))


def test_a_room_without_tombstones_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    evolve = ROOM.evolve

    def forgetful(room: Room, event: Any) -> Room:
        return replace(evolve(room, event), freed=frozenset())

    monkeypatch.setitem(vars(ROOM), "evolve", forgetful)
    with pytest.raises(SimulationFailed, match="RoomFreed"):
        simulate(only("replay"), AllOrNothing, seeds=range(50))


def test_a_provider_that_ignores_the_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def charge(provider: FakeProvider, trip_id: str, cents: int, *, key: str) -> bool:
        provider.charged[trip_id] = provider.charged.get(trip_id, 0) + cents
        return True

    monkeypatch.setattr(FakeProvider, "charge", charge)
    with pytest.raises(SimulationFailed, match="charged once"):
        simulate(only("lost answers"), AllOrNothing, seeds=range(50))
