"""Large states: written and read in pieces, by another thread, so that the event loop has its turns."""

from __future__ import annotations

import gc
import threading
import weakref
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import pytest
from pydantic import TypeAdapter

from tests.kernel.counter import COUNTER
from twinlog import Aggregate, StreamId, UuidMap
from twinlog.log import collector, snapshots
from twinlog.log.large_fields import LargeFields
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
LONG = b64encode(bytes(300_000)).decode()


@cache
def many() -> UuidMap:
    """Made when it is first used: each worker that collects these tests would wait for it."""
    return UuidMap({f"01890a5d-ac96-774b-bcce-{n:012x}": n for n in range(30_000)})


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_LARGE_TO_READ_BYTES", 1)


@pytest.mark.parametrize(
    "made",
    [
        Large,
        lambda: Large(
            "Ada", many(), ("a", 'b"', "\\", '\\"'), many().insert("01890a5d-ac96-774b-bcce-ffffffffffff", 7)
        ),
        lambda: Large("Ada", UuidMap(), ('"' + LONG, "x", "\\" + LONG, LONG + '"'), many()),
        lambda: Large(LONG, many(), (LONG, LONG)),
    ],
    ids=["empty", "maps", "texts with quotes before them", "texts that are no maps"],
)
def test_a_state_is_read_as_it_was_written(made: Callable[[], Large]) -> None:
    state = made()
    written = CODEC.encode(state)
    assert CODEC.decode(written) == state
    assert CODEC.encode(CODEC.decode(written)) == written


def test_the_long_texts_are_taken_out_and_each_piece_gives_way() -> None:
    state = Large("Ada", many(), (), many())
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
    written = bytearray(CODEC.encode(Large("Ada", many())))
    written[600_000 : 600_000 + len(damage)] = damage
    with pytest.raises(ValueError):
        CODEC.decode(bytes(written))


async def test_it_is_read_by_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    decode, by = StateCodec.decode, list[bool]()

    def watched(self: StateCodec, data: bytes) -> Any:
        by.append(threading.current_thread() is threading.main_thread())
        return decode(self, data)

    monkeypatch.setattr(StateCodec, "decode", watched)
    state = Large("Ada", many())
    snapshot = Snapshot(StreamId("large", "a"), 1, 1, CODEC.schema, CODEC.encode(state))
    assert await StateCodecs().restored(LARGE, snapshot) == state
    monkeypatch.setattr(snapshots, "_LARGE_TO_READ_BYTES", 2**30)
    assert await StateCodecs().restored(LARGE, snapshot) == state
    assert by == [False, True]


class Guest(NamedTuple):
    name: str
    nights: tuple[int, ...]


@dataclass(frozen=True)
class Many:
    """Fields that hold many values, of each kind, between others."""

    name: str = ""
    amounts: dict[str, int] = field(default_factory=dict)
    by_number: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    guests: list[Guest] = field(default_factory=list)
    days: frozenset[int] = frozenset()
    anything: set[str] = field(default_factory=set)
    pair: tuple[str, int] = ("", 0)
    deep: list[list[list[list[int]]]] = field(default_factory=list)
    holds: UuidMap = field(default_factory=UuidMap)
    last: str = ""


ODD = ('"', "\\", '}"{', "],[", "a\nb", "ä€", ":,", "")
N = 4_001


@cache
def many_values() -> list[Many]:
    """Made when they are first used, too."""
    return [
        Many(),
        Many(
            "x",
            {"a": 1},
            {1: {"b": [0.5]}},
            ODD,
            [Guest("Ada", (1, 2))],
            frozenset({1}),
            {"s"},
            ("p", 1),
            [[[[1]]]],
        ),
        Many(
            '"name":{',
            {f"{ODD[n % 8]}{n}": n * 10**12 for n in range(N)},
            {n: {"x": [n / 4, -1e-9], ODD[n % 8]: []} for n in range(N)},
            tuple(f"{ODD[n % 8]}{n}" for n in range(N)),
            [Guest(ODD[n % 8], tuple(range(n % 3))) for n in range(N)],
            frozenset(range(N)),
            {str(n) for n in range(N)},
            ('"', 7),
            [[[[n]]] for n in range(N)],
            many(),
            "}]",
        ),
    ]


OF_MANY: Aggregate[Any, Any] = Aggregate("many", Many(), COUNTER.decide, COUNTER.evolve, str)


@pytest.mark.parametrize("which", range(3), ids=["none", "few", "many"])
def test_many_values_are_written_as_at_once_and_read_as_they_were(which: int) -> None:
    state = many_values()[which]
    codec = StateCodec(OF_MANY)
    written = codec.encode(state)
    assert written == TypeAdapter(Many).dump_json(state)
    assert codec.decode(written) == state


def test_many_values_are_written_and_read_in_pieces() -> None:
    codec, turns = StateCodec(OF_MANY), list[None]()
    apart = Apart(lambda: turns.append(None))
    spared = codec._large.set_apart(many_values()[2], apart)
    pieces = 6 * 3 + 3  # of six fields, and of the one that lies too deep to be read so
    assert len(turns) == pieces
    assert len(codec._adapter.dump_json(spared, context=apart, warnings=False)) < 10_000
    turns.clear()
    _, values = codec._large.without(codec.encode(many_values()[2]), Apart(lambda: turns.append(None)))
    assert values.keys() == {"amounts", "by_number", "words", "guests", "days", "anything"}
    assert values["amounts"] == many_values()[2].amounts
    assert len(turns) > 2 * 6 * 3


@pytest.mark.parametrize(
    ("old", "new"),
    [(b':3000000000000000,"', b':"three",'), (b'"words":[', b'"words":[7,'), (b'"days":[', b'"days":[')],
    ids=["a value that is none", "another type", "cut off"],
)
def test_damage_within_many_values_is_refused(old: bytes, new: bytes) -> None:
    codec = StateCodec(OF_MANY)
    written = codec.encode(many_values()[2])
    damaged = written.replace(old, new, 1) if old != new else written[: written.index(old) + 900]
    assert damaged != written
    with pytest.raises(ValueError):
        codec.decode(damaged)


def test_fields_of_any_kind_are_done_in_pieces_where_all_their_values_are_alike() -> None:
    large = {"amounts", "by_number", "words", "guests", "days", "anything", "deep"}
    assert LargeFields(TypeAdapter(Many).core_schema)._fields.keys() == large


@dataclass(frozen=True)
class Counted:
    """Makes something of its values, so that it has to be made of all of them at once."""

    values: tuple[int, ...] = ()
    sum: int = 0

    def __post_init__(self) -> None:
        if sum(self.values) != self.sum:
            raise ValueError("that is not their sum")


def test_a_class_that_looks_at_its_values_is_given_all_of_them() -> None:
    codec = StateCodec(Aggregate("counted", Counted(), COUNTER.decide, COUNTER.evolve, str))
    state = Counted(tuple(range(N)), sum(range(N)))
    assert codec.decode(codec.encode(state)) == state


def test_no_full_pass_of_the_collector_begins_while_one_is_read_or_looks_at_it_later() -> None:
    state = Many(guests=[Guest(str(n), ()) for n in range(50_000)])
    codec, passes = StateCodec(OF_MANY), list[int]()
    written, thresholds, apart = codec.encode(state), gc.get_threshold(), gc.get_freeze_count()

    def note(phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            passes.append(info["generation"])

    gc.callbacks.append(note)
    try:
        with ThreadPoolExecutor(2) as threads:
            read = list(threads.map(codec.decode, [written, written]))
    finally:
        gc.callbacks.remove(note)
    assert read == [state, state]
    assert 1 in passes
    assert 2 not in passes
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() >= apart + 2 * len(state.guests)
    del read
    assert gc.get_freeze_count() < apart + 2 * len(state.guests), "it goes when nobody has it"


def test_now_and_then_all_objects_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "_ALL_AFTER", 2)
    kept = collector._Collector()
    with kept.spared():
        circle = Circle()
        there = weakref.ref(circle)
    del circle
    gc.collect()
    assert there() is not None, "it was set apart with all others"
    with kept.spared():
        pass
    assert there() is None


class Circle:
    """Holds itself."""

    def __init__(self) -> None:
        self.own = self
