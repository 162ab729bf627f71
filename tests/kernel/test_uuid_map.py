"""The persistent map of UUIDs behaves as a dict of them would, and what is derived from it leaves it as it was."""

from __future__ import annotations

import doctest
import time
import tracemalloc
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from twinlog import UuidMap
from twinlog.model import apart, uuid_map
from twinlog.testing.internals import RandomIds

# Few and close ones too: those that differ only in their first bits, and those that are records of others.
KEYS = st.one_of(
    st.uuids(),
    st.integers(0, 3).map(lambda number: UUID(int=number << 124)),
    st.integers(0, 300).map(lambda number: UUID(int=number)),
).map(str)
VALUES = st.one_of(st.integers(0, 3), st.integers(-(1 << 95), (1 << 95) - 1))
ADAPTER = TypeAdapter(UuidMap)
ENTRIES = st.lists(st.tuples(KEYS, VALUES), max_size=200)


def test_the_worked_example_is_true() -> None:
    failures, examples = doctest.testmod(uuid_map)
    assert failures == 0
    assert examples > 5


@given(entries=ENTRIES, others=st.lists(KEYS, max_size=5))
def test_it_is_what_a_dict_is(entries: list[tuple[str, int]], others: list[str]) -> None:
    expected: dict[str, int] = {}
    actual = UuidMap()
    for key, value in entries:
        expected[key] = value
        actual = actual.insert(key, value)
    for key in [*expected, *others]:
        assert actual.get(key) == expected.get(key)
        assert actual.get(key, 7) == expected.get(key, 7)
        assert (key in actual) == (key in expected)
    assert dict(actual.items()) == expected
    assert len(actual) == len(expected)
    assert actual == expected == UuidMap(expected)


@given(entries=ENTRIES, later=ENTRIES)
def test_what_comes_later_leaves_it_as_it_was(
    entries: list[tuple[str, int]], later: list[tuple[str, int]]
) -> None:
    first = UuidMap(dict(entries))
    derived = first
    for key, value in later:
        derived = derived.insert(key, value)
    assert first == dict(entries)
    assert derived == dict(entries) | dict(later)


@given(steps=st.lists(st.tuples(st.booleans(), KEYS, VALUES), max_size=200), kept=ENTRIES)
def test_what_is_removed_leaves_nothing_behind(
    steps: list[tuple[bool, str, int]], kept: list[tuple[str, int]]
) -> None:
    expected, actual = dict(kept), UuidMap(dict(kept))
    for inserts, key, value in steps:
        before, held = dict(expected), actual
        if inserts:
            expected[key] = value
            actual = actual.insert(key, value)
        else:
            expected.pop(key, None)
            actual = actual.remove(key)
        assert held == before
    assert actual == expected
    shape, _ = actual._packed()
    assert shape == UuidMap(expected)._packed()[0], "its tree is that of a map that never had more"


def test_an_entry_of_many_is_removed_by_itself() -> None:
    many = UuidMap({str(UUID(int=number)): number for number in range(1000)})
    for number in range(1000):
        many = many.remove(str(UUID(int=number)))
        assert len(many) == 999 - number
        if number % 125 == 0:
            left = UuidMap({str(UUID(int=each)): each for each in range(number + 1, 1000)})
            assert many._packed()[0] == left._packed()[0], "its tree is that of a map that never had more"
    assert many._root == b""
    assert many.remove("no id") is many


def test_a_key_that_looks_like_the_middle_of_others_is_not_found() -> None:
    first, second = UUID(int=1), UUID(int=2)
    records = first.bytes + (5).to_bytes(12) + second.bytes + (6).to_bytes(12)
    between = str(UUID(bytes=records[8:24]))
    holds = UuidMap({str(first): 5, str(second): 6})
    assert between not in holds
    assert holds.insert(between, 7) == {str(first): 5, str(second): 6, between: 7}


@pytest.mark.parametrize("key", ["", "order", "0190a000-0000-7000-8000-0000000000"])
def test_what_is_no_uuid_is_not_there_and_cannot_be_put_there(key: str) -> None:
    holds = UuidMap()
    assert key not in holds
    assert holds.get(key, 3) == 3
    with pytest.raises(KeyError):
        holds[key]
    with pytest.raises(ValueError):
        holds.insert(key, 1)


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        UuidMap().insert(str(UUID(int=1)), 1 << 95)


@given(entries=ENTRIES, later=ENTRIES)
def test_a_snapshot_gives_back_the_same_map(
    entries: list[tuple[str, int]], later: list[tuple[str, int]]
) -> None:
    holds = UuidMap(dict(entries))
    stored = ADAPTER.dump_json(holds)
    restored = ADAPTER.validate_json(stored)
    assert restored == holds
    assert restored._root == holds._root, "of the same shape, so that it goes on like the other"
    assert ADAPTER.dump_json(restored) == stored
    for key, value in later:
        holds, restored = holds.insert(key, value), restored.insert(key, value)
    assert restored == holds


@pytest.mark.parametrize(
    "damage",
    [
        lambda shape, records: ("", records),
        lambda shape, records: (shape, ""),
        lambda shape, records: (shape, records[:-4]),
        lambda shape, records: (shape, records + records),
        lambda shape, records: (shape + shape, records),
        lambda shape, records: (shape[:8], records),
        lambda shape, records: ("/" * 4000, records),
        lambda shape, records: (shape, "ä"),
        lambda shape, records: (shape, records + "%"),
        lambda shape, records: {str(UUID(int=1)): 1},
    ],
)
def test_a_damaged_snapshot_is_refused(damage: Callable[[str, str], object]) -> None:
    """One that was written as an object, as before, too: the hash of the state's schema tells them apart before."""
    whole = UuidMap({str(UUID(int=number)): number for number in range(100)})
    with pytest.raises(ValueError):
        ADAPTER.validate_python(damage(*whole._packed()))


def test_a_large_map_is_written_in_pieces_with_a_turn_for_others_before_each() -> None:
    turns = list[None]()
    large = UuidMap({str(UUID(int=number)): number for number in range(20_000)})
    whole, context = ADAPTER.dump_json(large), apart.Apart(lambda: turns.append(None))
    beside = ADAPTER.dump_json(large, context=context)
    assert len(turns) == 3, "560 kB in pieces of 196"
    assert len(beside) < len(whole) / 100, "what pydantic writes at once"
    assert context.filled(beside) == whole


def test_maps_and_texts_of_any_size_are_written_as_they_are_without_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apart, "_PIECE_BYTES", 3 * 28)
    maps = TypeAdapter(dict[str, UuidMap])
    state = {
        f'apart-0;"{size}': UuidMap({str(UUID(int=number)): -number for number in range(size)})
        for size in (0, 1, 3, 4, 70, 1000)
    }
    context = apart.Apart()
    assert context.filled(maps.dump_json(state, context=context)) == maps.dump_json(state)
    assert maps.validate_json(maps.dump_json(state)) == state


def test_an_entry_takes_a_few_dozen_bytes() -> None:
    ids, holds, count = RandomIds(), UuidMap(), 20_000
    keys = [str(ids.uuid7()) for _ in range(count)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for key in keys:
        holds = holds.insert(key, 1_000_000_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(holds) == count
    assert (after - before) / count < 60


def test_a_hundred_thousand_entries_are_stored_and_read_by_leaves() -> None:
    """The time of the thread, so that what else runs does not count; an object of JSON took ten times as long."""
    ids = RandomIds()
    holds = UuidMap({str(ids.uuid7()): 0 for _ in range(100_000)})
    started = time.thread_time()
    stored = ADAPTER.dump_json(holds)
    encoded = time.thread_time()
    restored = ADAPTER.validate_json(stored)
    assert time.thread_time() - encoded < 0.25
    assert encoded - started < 0.1
    assert len(stored) < 40 * 100_000
    assert restored._root == holds._root
