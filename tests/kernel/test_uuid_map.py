"""The persistent map of UUIDs behaves as a dict of them would, and what is derived from it leaves it as it was."""

from __future__ import annotations

import doctest
import tracemalloc
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from twinlog import UuidMap
from twinlog.model import uuid_map
from twinlog.testing.internals import RandomIds

# Few and close ones too: those that differ only in their first bits, and those that are records of others.
KEYS = st.one_of(
    st.uuids(),
    st.integers(0, 3).map(lambda number: UUID(int=number << 124)),
    st.integers(0, 300).map(lambda number: UUID(int=number)),
).map(str)
VALUES = st.one_of(st.integers(0, 3), st.integers(-(1 << 95), (1 << 95) - 1))
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


@given(entries=ENTRIES)
def test_a_snapshot_has_it_as_an_object(entries: list[tuple[str, int]]) -> None:
    adapter, holds = TypeAdapter(UuidMap), UuidMap(dict(entries))
    assert adapter.validate_json(adapter.dump_json(holds)) == holds
    assert adapter.json_schema() == TypeAdapter(dict[str, int]).json_schema()


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
