"""States with very many entries: a part of them is told, with a way to the rest, and what changed is told exactly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict
from rpds import HashTrieMap

from tests.inspection.conftest import customer, inspection, order
from tests.memory_shop import MemoryShop
from twinlog import Aggregate, UuidMap
from twinlog.model.maps import EMPTY, Map
from twinlog.rpc import state_parts
from twinlog.rpc.state_parts import FIRST, MOST_ENTRIES, Part, changes, told
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.moment_pb2 import Moment

SEED = 20260131
MANY = 5 * MOST_ENTRIES


@dataclass(frozen=True, slots=True)
class Shelf:
    books: UuidMap = field(default_factory=UuidMap)
    names: dict[str, int] = field(default_factory=dict)
    loans: Map[str, int] = field(default_factory=HashTrieMap)
    readers: tuple[str, ...] = ()
    rooms: dict[str, dict[str, int]] = field(default_factory=dict)
    title: str = ""

    def __post_init__(self) -> None:
        assert not self.title or len(self.books) == len(self.names), "a part of it is no shelf"


SHELF: Aggregate[Any, Any] = Aggregate(
    "shelf", Shelf(), lambda _state, _command: (), lambda state, _event: state, lambda _state: "shelf"
)


def ids(count: int, seed: int = SEED) -> list[str]:
    random = Random(seed)
    return [
        f"{random.getrandbits(32):08x}-0000-7000-8000-{random.getrandbits(48):012x}" for _ in range(count)
    ]


def shelf() -> Shelf:
    return Shelf(
        UuidMap({id: n for n, id in enumerate(ids(MANY))}),
        {f"n{n}": n for n in range(MANY)},
        HashTrieMap({f"l{n}": n for n in range(MANY)}),
        tuple(f"r{n}" for n in range(MANY)),
        {"first": {f"x{n}": n for n in range(MANY)}, "second": {}},
        "a title",
    )


def test_of_each_large_field_a_part_is_told_and_all_parts_are_all() -> None:
    state = shelf()
    whole: dict[str, Any] = {
        "books": dict(state.books),
        "names": state.names,
        "loans": dict(sorted(state.loans.items())),
        "readers": [*state.readers],
        "rooms.first": state.rooms["first"],
    }
    for path, entries in whole.items():
        seen: list[Any] = []
        for after in range(0, MANY, MOST_ENTRIES):
            found = told(SHELF, state, Part(path, after))
            [field] = [each for each in found.large if each.path == path]
            assert (field.entries, field.after, field.told) == (MANY, after, MOST_ENTRIES), path
            assert {each.path: each.after for each in found.large} == dict.fromkeys(whole, 0) | {path: after}
            value: Any = found.value
            for name in path.split("."):
                value = value[name]
            part = [*value.items()] if isinstance(value, dict) else value
            more = [part.pop()] if after + MOST_ENTRIES < MANY else []
            if more:
                assert f"and {MANY - after - MOST_ENTRIES:,} more" in str(more[0]), path
            seen += part
        assert seen == ([*entries.items()] if isinstance(entries, dict) else entries), path
        beyond = told(SHELF, state, Part(path, 2 * MANY))
        assert [(each.after, each.told) for each in beyond.large if each.path == path] == [(MANY, 0)]


def test_a_small_state_is_told_whole() -> None:
    state = Shelf(UuidMap({id: 1 for id in ids(3)}), {"n": 1}, EMPTY, ("r",), {"a": {"b": 2}})
    value, large = told(SHELF, state)
    assert (value["books"], value["names"], value["readers"], value["rooms"]) == (
        dict(state.books),
        {"n": 1},
        ["r"],
        {"a": {"b": 2}},
    )
    assert not large


def test_what_changed_is_told_exactly_wherever_it_lies() -> None:
    before = shelf()
    gone, other = [*before.books][-1], [*before.books][MANY // 2]
    [new] = ids(1, SEED + 1)
    after = dataclasses.replace(
        before,
        books=before.books.remove(gone).insert(other, -7).insert(new, 8),
        names={**before.names, "n499": 0},
        loans=before.loans.remove("l7"),
        readers=(*before.readers[:-1], "other", "one more"),
        rooms={**before.rooms, "second": {"y": 1}},
    )
    restored = dataclasses.replace(after, books=UuidMap(dict(after.books)))  # shares no leaf with the other
    expected = {
        f"books.{gone}": (str(before.books[gone]), ""),
        f"books.{other}": (str(before.books[other]), "-7"),
        f"books.{new}": ("", "8"),
        "names.n499": ("499", "0"),
        "loans.l7": ("7", ""),
        f"readers.{MANY - 1}": (f'"r{MANY - 1}"', '"other"'),
        f"readers.{MANY}": ("", '"one more"'),
        "rooms.second.y": ("", "1"),
    }
    for state in (after, restored):
        found, more = changes(SHELF, before, state, 10)
        assert {each.path: (each.before, each.after) for each in found} == expected
        assert more == 0
    assert changes(SHELF, after, restored, 10) == ([], 0)
    few, more = changes(SHELF, before, after, 2)
    assert (len(few), len(few) + more) == (2, len(expected))


def test_where_there_was_nothing_each_field_is_new() -> None:
    found, more = changes(SHELF, None, shelf(), 20)
    assert [each.path for each in found] == [each.name for each in dataclasses.fields(Shelf)]
    assert more == 0
    assert all(each.after and not each.before and len(each.after) < 3_000 for each in found)


def test_maps_differ_where_one_has_what_the_other_has_not() -> None:
    random = Random(SEED)
    for _ in range(200):
        one = {id: random.randint(0, 1) for id in ids(random.randint(0, 90), random.randint(0, 5))}
        other = {
            **one,
            **{id: random.randint(0, 1) for id in ids(random.randint(0, 40), random.randint(0, 5))},
        }
        for id in [id for id in other if random.random() < 0.3]:
            del other[id]
        differing = {id for id in one.keys() | other.keys() if one.get(id) != other.get(id)}
        before, after = UuidMap(one), UuidMap(other)
        shared = before
        for id in differing:
            shared = shared.insert(id, other[id]) if id in other else shared.remove(id)
        assert set(before.differing(after)) == set(before.differing(shared)) == differing, (one, other)
        skip, most = random.randint(0, 100), random.randint(1, 60)
        assert [*before.part(skip, most).items()] == [*before.items()][skip : skip + most]


async def test_a_stream_tells_part_of_a_large_state_and_each_change(
    shop: MemoryShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_parts, "MOST_ENTRIES", 2)
    customer_id = await customer(shop)
    for _ in range(5):
        await order(shop, customer_id)
    await shop.settle()
    stream = f"customer/{customer_id}"
    async with inspection(shop.customer_svc) as stub:
        found = await stub.GetStream(pb.GetStreamRequest(stream=stream, with_states=True, changes_only=True))
        since = await stub.GetStream(pb.GetStreamRequest(stream=stream, since=Moment(version=1)))
        path = max(found.large, key=lambda each: each.entries).path
        rest = await stub.GetStream(pb.GetStreamRequest(stream=stream, entries_of=path, entries_after=2))
        wrong = {}
        cases: dict[str, dict[str, Any]] = {
            "no such field": {"entries_of": "name"},
            "of none": {"entries_after": 1},
            "negative": {"entries_of": path, "entries_after": -1},
        }
        for name, fields in cases.items():
            try:
                wrong[name] = await stub.GetStream(pb.GetStreamRequest(stream=stream, **fields))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, name
    assert not wrong
    first, then = (MessageToDict(each.state)[path] for each in (found, rest))
    assert (len(first), first["…"]) == (3, "and 3 more")
    assert (len(then), then["…"]) == (3, "and 1 more")
    assert not (first.keys() & then.keys()) - {"…"}
    assert not any(each.HasField("state") for each in found.states)
    reserved = [each for each in found.states if any(change.path.startswith(path) for change in each.changes)]
    assert len(reserved) == 5
    assert len({change.path for change in since.changes if change.path.startswith(f"{path}.")}) == 5


def test_entries_keep_their_order_however_often_a_state_is_made() -> None:
    assert told(SHELF, shelf()) == told(SHELF, shelf(), FIRST)
