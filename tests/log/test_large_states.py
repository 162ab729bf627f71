"""Large states: written and read in pieces, by another thread, so that the event loop has its turns."""

from __future__ import annotations

import threading
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.kernel.counter import COUNTER
from twinlog import Aggregate, StreamId, UuidMap
from twinlog.log import snapshots
from twinlog.log.snapshots import StateCodecs
from twinlog.model.apart import Apart
from twinlog.testing.internals import Snapshot, StateCodec


@dataclass(frozen=True, slots=True)
class Large:
    """Maps between other texts, some of which look like those of a map."""

    name: str = ""
    first: UuidMap = field(default_factory=UuidMap)
    words: tuple[str, ...] = ()
    second: UuidMap = field(default_factory=UuidMap)


LARGE: Aggregate[Any, Any] = Aggregate("large", Large(), COUNTER.decide, COUNTER.evolve, str)
CODEC = StateCodec(LARGE)
MANY = UuidMap({f"01890a5d-ac96-774b-bcce-{n:012x}": n for n in range(30_000)})
LONG = b64encode(bytes(300_000)).decode()


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_LARGE_TO_READ_BYTES", 1)


@pytest.mark.parametrize(
    "state",
    [
        Large(),
        Large("Ada", MANY, ("a", 'b"', "\\", '\\"'), MANY.insert("01890a5d-ac96-774b-bcce-ffffffffffff", 7)),
        Large("Ada", UuidMap(), ('"' + LONG, "x", "\\" + LONG, LONG + '"'), MANY),
        Large(LONG, MANY, (LONG, LONG)),
    ],
    ids=["empty", "maps", "texts with quotes before them", "texts that are no maps"],
)
def test_a_state_is_read_as_it_was_written(state: Large) -> None:
    written = CODEC.encode(state)
    assert CODEC.decode(written) == state
    assert CODEC.encode(CODEC.decode(written)) == written


def test_the_long_texts_are_taken_out_and_each_piece_gives_way() -> None:
    state = Large("Ada", MANY, (), MANY)
    written = CODEC.encode(state)
    turns: list[None] = []
    apart = Apart(lambda: turns.append(None))
    rest = apart.without(written)
    assert len(rest) < len(written) / 20
    assert CODEC._decoded(rest, apart) == state
    assert apart.all_taken
    assert len(turns) >= 2 * len(written) // 2**18


@pytest.mark.parametrize("damage", [b"!", b"\\u0041", b'"'])
def test_a_damaged_one_is_refused(damage: bytes) -> None:
    written = bytearray(CODEC.encode(Large("Ada", MANY)))
    written[600_000 : 600_000 + len(damage)] = damage
    with pytest.raises(ValueError):
        CODEC.decode(bytes(written))


async def test_it_is_read_by_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    decode, by = StateCodec.decode, list[bool]()

    def watched(self: StateCodec, data: bytes) -> Any:
        by.append(threading.current_thread() is threading.main_thread())
        return decode(self, data)

    monkeypatch.setattr(StateCodec, "decode", watched)
    state = Large("Ada", MANY)
    snapshot = Snapshot(StreamId("large", "a"), 1, 1, CODEC.schema, CODEC.encode(state))
    assert await StateCodecs().restored(LARGE, snapshot) == state
    monkeypatch.setattr(snapshots, "_LARGE_TO_READ_BYTES", 2**30)
    assert await StateCodecs().restored(LARGE, snapshot) == state
    assert by == [False, True]
