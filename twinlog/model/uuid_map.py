"""Persistent maps for states: an update gives a new map in O(log n), and the old one stays as it is."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from twinlog.model.ids import uuid_bytes, uuid_text

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_KEY, _VALUE = 16, 12
_RECORD = _KEY + _VALUE
_LEAF = 32 * _RECORD
_WAYS = 16

_Node: TypeAlias = "bytes | tuple[_Node, ...]"
"""A leaf: up to 32 records of key and value, one behind the other; or sixteen nodes, by four bits of the key."""


class UuidMap(Mapping[str, int]):
    """UUIDs, as lower-case text, and a whole number of up to 95 bits for each, in 30 to 50 bytes an entry.

    For maps that only ever grow: :data:`Map` takes about 200.
    """

    __slots__ = ("_root",)

    def __init__(self, entries: Mapping[str, int] = {}) -> None:
        """Raises ValueError on a key that is no UUID, and OverflowError on a number that is too large."""
        self._root = _node([uuid_bytes(key) + _bytes(value) for key, value in entries.items()], 0)

    def insert(self, key: str, value: int) -> UuidMap:
        """A map that differs in this entry. Raises ValueError and OverflowError as its maker does."""
        new = UuidMap()
        new._root = _inserted(self._root, uuid_bytes(key), _bytes(value), 0)
        return new

    def __getitem__(self, key: str) -> int:
        try:
            packed: bytes = uuid_bytes(key)
        except ValueError:
            raise KeyError(key) from None
        node, depth = self._root, 0
        while isinstance(node, tuple):
            node, depth = node[_way(packed, depth)], depth + 1
        at = _find(node, packed)
        if at < 0:
            raise KeyError(key)
        return int.from_bytes(node[at + _KEY : at + _RECORD], signed=True)

    def __iter__(self) -> Iterator[str]:
        return (uuid_text(record[:_KEY]) for leaf in _leaves(self._root) for record in _records(leaf))

    def __len__(self) -> int:
        return sum(len(leaf) for leaf in _leaves(self._root)) // _RECORD

    def items(self) -> ItemsView[str, int]:
        return _Items(self)

    def __repr__(self) -> str:
        return f"UuidMap({dict(self.items())})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import (
            core_schema,  # costs as much as the rest of a domain module, and only snapshots need it
        )

        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.dict_schema(core_schema.str_schema(), core_schema.int_schema()),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda map: dict(map.items())),
        )


class _Items(ItemsView[str, int]):
    """Without looking every key up."""

    _mapping: UuidMap

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for leaf in _leaves(self._mapping._root):
            for record in _records(leaf):
                yield uuid_text(record[:_KEY]), int.from_bytes(record[_KEY:], signed=True)


def _inserted(node: _Node, key: bytes, value: bytes, depth: int) -> _Node:
    if isinstance(node, tuple):
        way = _way(key, depth)
        return (*node[:way], _inserted(node[way], key, value, depth + 1), *node[way + 1 :])
    at = _find(node, key)
    if at >= 0:
        return node[: at + _KEY] + value + node[at + _RECORD :]
    leaf = node + key + value
    return leaf if len(leaf) <= _LEAF else _node(_records(leaf), depth)


def _node(records: Sequence[bytes], depth: int) -> _Node:
    """The node of records whose keys share the bits that come before ``depth``."""
    if len(records) * _RECORD <= _LEAF:
        return b"".join(records)
    ways: list[list[bytes]] = [[] for _ in range(_WAYS)]
    for record in records:
        ways[_way(record, depth)].append(record)
    return tuple(_node(way, depth + 1) for way in ways)


def _records(leaf: bytes) -> Sequence[bytes]:
    return [leaf[at : at + _RECORD] for at in range(0, len(leaf), _RECORD)]


def _way(key: bytes, depth: int) -> int:
    """Four bits of a key, from its end on: there UUIDs of every version are random."""
    return key[_KEY - 1 - depth // 2] >> depth % 2 * 4 & _WAYS - 1


def _find(leaf: bytes, key: bytes) -> int:
    """Where a key's record begins; -1 where there is none."""
    at = leaf.find(key)
    while at % _RECORD and at >= 0:
        at = leaf.find(key, at + 1)
    return at


def _leaves(node: _Node) -> Iterator[bytes]:
    if isinstance(node, tuple):
        for each in node:
            yield from _leaves(each)
    else:
        yield node


def _bytes(value: int) -> bytes:
    return value.to_bytes(_VALUE, signed=True)
