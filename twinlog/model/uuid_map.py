"""A compact persistent map from UUIDs to whole numbers, for states that hold many of them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import ItemsView, Iterator, Mapping, Sequence
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload
from uuid import UUID

from twinlog.model.apart import in_base64, of_base64
from twinlog.model.forms import WrongValue, shown
from twinlog.model.ids import uuid_bytes, uuid_text

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema
    from pydantic_core.core_schema import SerializationInfo, ValidationInfo

_KEY_BYTES, _VALUE_BYTES = 16, 12
_RECORD_BYTES = _KEY_BYTES + _VALUE_BYTES
_LEAF_BYTES = 32 * _RECORD_BYTES
_WAYS = 16
_INNER = 255
"""In the shape of a stored tree: a node of sixteen; any other byte is the number of records in a leaf."""

T = TypeVar("T")
_Node: TypeAlias = "bytes | tuple[_Node, ...]"
"""A leaf of up to 32 records, each a key and its value; or sixteen nodes, chosen by four bits of the key."""


class UuidMap(Mapping[str, int]):
    """A persistent map: :meth:`insert` and :meth:`remove` return a new map in O(log n); the old one stays as it was.

    Keys are UUIDs in lower-case text; values are whole numbers of up to 95 bits and a sign. An entry takes 30 to 50
    bytes, where :data:`~twinlog.model.maps.Map` takes about 200. A customer's holds, say:

    >>> order = "0190a000-0000-7000-8000-000000000001"
    >>> before = UuidMap()
    >>> after = before.insert(order, 12_340_000_000)
    >>> after[order]
    12340000000
    >>> order in before
    False
    >>> after.insert(order, 0)
    UuidMap({'0190a000-0000-7000-8000-000000000001': 0})

    It is read like any other mapping and equals a dict with the same entries. In snapshots it is its leaves in base64,
    40 characters an entry, written and read leaf by leaf, so that a large one takes milliseconds.

    How it works: keys and values lie side by side in ``bytes``, 28 bytes a record, in leaves of up to 32 records. A
    33rd record splits its leaf into sixteen, by the last four bits of each key, then by the four bits before them:

    >>> holds = UuidMap({f"0190a000-0000-7000-8000-{n:012x}": n for n in range(33)})
    >>> len(holds._root), sum(len(leaf) // 28 for leaf in holds._root)
    (16, 33)

    An insertion copies one leaf and the tuples above it; all other leaves are shared between the two maps.
    """

    __slots__ = ("_root",)

    def __init__(self, entries: Mapping[str, int] = {}) -> None:
        """Raises ValueError on a key that is not a UUID's text and on a value that is no whole number, and
        OverflowError on one that is too large."""
        if not isinstance(entries, Mapping):
            raise WrongValue(f"UuidMap: entries is {shown(entries)}; give a mapping from UUIDs, as texts")
        self._root = _node([_key(key) + _bytes(value) for key, value in entries.items()], 0)

    def insert(self, key: str, value: int) -> UuidMap:
        """A map with this entry added or replaced. Raises ValueError and OverflowError, as the constructor does."""
        new = UuidMap.__new__(UuidMap)
        new._root = _inserted(self._root, _key(key), _bytes(value), 0)
        return new

    def remove(self, key: str) -> UuidMap:
        """A map without this entry; the same map if there is none. An entry that was inserted and removed leaves no
        trace."""
        try:
            root = _removed(self._root, _key(key), 0)
        except WrongValue:
            raise
        except ValueError:
            return self
        if root is self._root:
            return self
        new = UuidMap.__new__(UuidMap)
        new._root = root
        return new

    def __getitem__(self, key: str) -> int:
        found = self._found(key)
        if found is None:
            raise KeyError(key)
        return found

    @overload
    def get(self, key: str, default: None = None, /) -> int | None: ...
    @overload
    def get(self, key: str, default: int | T, /) -> int | T: ...
    def get(self, key: str, default: int | T | None = None, /) -> int | T | None:
        """The value of a key, or ``default``. Nothing is raised inside: most keys are looked up before they are set."""
        found = self._found(key)
        return default if found is None else found

    def __contains__(self, key: object) -> bool:
        if isinstance(key, str):
            return self._found(key) is not None
        if isinstance(key, UUID):  # which would never be found
            raise _wrong_key(key)
        return False

    def _found(self, key: str) -> int | None:
        try:
            packed: bytes = uuid_bytes(key)
        except ValueError:
            return None
        except (TypeError, AttributeError) as error:
            raise _wrong_key(key) from error
        node, depth = self._root, 0
        while isinstance(node, tuple):
            node, depth = node[_way(packed, depth)], depth + 1
        at = _find(node, packed)
        return None if at < 0 else int.from_bytes(node[at + _KEY_BYTES : at + _RECORD_BYTES], signed=True)

    def __iter__(self) -> Iterator[str]:
        return (uuid_text(record[:_KEY_BYTES]) for leaf in _leaves(self._root) for record in _records(leaf))

    def __bool__(self) -> bool:
        return bool(self._root)

    def __len__(self) -> int:
        return sum(len(leaf) for leaf in _leaves(self._root)) // _RECORD_BYTES

    def items(self) -> ItemsView[str, int]:
        return _Items(self)

    def part(self, skip: int, most: int) -> dict[str, int]:
        """So many entries after the first ``skip``, in the map's own order; leaves before them are only counted."""
        entries: dict[str, int] = {}
        for leaf in _leaves(self._root):
            if (records := len(leaf) // _RECORD_BYTES) > skip:
                for record in _records(leaf[skip * _RECORD_BYTES :])[: most - len(entries)]:
                    entries[uuid_text(record[:_KEY_BYTES])] = int.from_bytes(record[_KEY_BYTES:], signed=True)
                if len(entries) == most:
                    break
            skip = max(0, skip - records)
        return entries

    def differing(self, other: UuidMap) -> list[str]:
        """The keys of entries that only one of both has; the leaves that both share are not looked at."""
        return [
            *map(uuid_text, sorted({record[:_KEY_BYTES] for record in _differing(self._root, other._root)}))
        ]

    def __repr__(self) -> str:
        return f"UuidMap({dict(self.items())})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # It costs as much as the rest of a domain module, and only snapshots need it.
        from pydantic_core import core_schema

        parts = core_schema.tuple_schema([core_schema.str_schema(), core_schema.str_schema()])
        return core_schema.with_info_after_validator_function(
            cls._unpacked,
            parts,
            serialization=core_schema.plain_serializer_function_ser_schema(cls._packed, info_arg=True),
        )

    def _packed(self, info: SerializationInfo | None = None) -> tuple[str, str]:
        """The shape of the tree, a byte a node, the upper ones first, and the records in the order of their leaves."""
        shape, leaves = bytearray(), []
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            if isinstance(node, tuple):
                shape.append(_INNER)
                nodes.extend(reversed(node))
            else:
                shape.append(len(node) // _RECORD_BYTES)
                leaves.append(node)
        return b64encode(shape).decode(), in_base64(b"".join(leaves), info and info.context)

    @classmethod
    def _unpacked(cls, packed: tuple[str, str], info: ValidationInfo | None = None) -> UuidMap:
        """Raises ValueError where the parts do not belong together."""
        shape = b64decode(packed[0], validate=True)
        records = of_base64(packed[1], info and info.context)
        ends = [*accumulate([size * _RECORD_BYTES for size in shape if size != _INNER], initial=0)]
        leaves = iter([records[start:end] for start, end in pairwise(ends)])
        at = 0

        def node() -> _Node:
            nonlocal at
            size, at = shape[at], at + 1
            if size != _INNER:
                return next(leaves)
            below = shape[at : at + _WAYS]
            if len(below) < _WAYS or _INNER in below:
                return tuple([node() for _ in range(_WAYS)])
            at += _WAYS  # all are leaves, as with most nodes
            return tuple(islice(leaves, _WAYS))

        new = cls()
        try:
            new._root = node()
        except (IndexError, RecursionError) as error:
            raise ValueError("the shape of the map is cut off") from error
        if at != len(shape) or ends[-1] != len(records):
            raise ValueError("the map has other records than its shape says")
        return new


class _Items(ItemsView[str, int]):
    """Iterates without looking up every key."""

    _mapping: UuidMap

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for leaf in _leaves(self._mapping._root):
            for record in _records(leaf):
                yield uuid_text(record[:_KEY_BYTES]), int.from_bytes(record[_KEY_BYTES:], signed=True)


def _inserted(node: _Node, key: bytes, value: bytes, depth: int) -> _Node:
    if isinstance(node, tuple):
        way = _way(key, depth)
        return (*node[:way], _inserted(node[way], key, value, depth + 1), *node[way + 1 :])
    at = _find(node, key)
    if at >= 0:
        return node[: at + _KEY_BYTES] + value + node[at + _RECORD_BYTES :]
    leaf = node + key + value
    return leaf if len(leaf) <= _LEAF_BYTES else _node(_records(leaf), depth)


def _removed(node: _Node, key: bytes, depth: int) -> _Node:
    """The node without a key, itself where it has none."""
    if not isinstance(node, tuple):
        at = _find(node, key)
        return node if at < 0 else node[:at] + node[at + _RECORD_BYTES :]
    way = _way(key, depth)
    before = node[way]
    after = _removed(before, key, depth + 1)
    if after is before:
        return node
    nodes = (*node[:way], after, *node[way + 1 :])
    if tuple in map(type, nodes) or sum(map(len, nodes)) > _LEAF_BYTES:
        return nodes
    return b"".join(_leaves(nodes))


def _node(records: Sequence[bytes], depth: int) -> _Node:
    """The node of records whose keys agree in the bits above ``depth``."""
    if len(records) * _RECORD_BYTES <= _LEAF_BYTES:
        return b"".join(records)
    ways: list[list[bytes]] = [[] for _ in range(_WAYS)]
    for record in records:
        ways[_way(record, depth)].append(record)
    return tuple(_node(way, depth + 1) for way in ways)


def _records(leaf: bytes) -> Sequence[bytes]:
    return [leaf[at : at + _RECORD_BYTES] for at in range(0, len(leaf), _RECORD_BYTES)]


def _way(key: bytes, depth: int) -> int:
    """Four bits of a key, counted from its end, where UUIDs of every version are random."""
    return key[_KEY_BYTES - 1 - depth // 2] >> depth % 2 * 4 & _WAYS - 1


def _find(leaf: bytes, key: bytes) -> int:
    """The offset of a key's record, or -1."""
    at = leaf.find(key)
    while at % _RECORD_BYTES and at >= 0:
        at = leaf.find(key, at + 1)
    return at


def _leaves(node: _Node) -> Iterator[bytes]:
    nodes = [node]
    while nodes:
        last = nodes.pop()
        if isinstance(last, tuple):
            nodes.extend(reversed(last))
        else:
            yield last


def _differing(one: _Node, other: _Node) -> Iterator[bytes]:
    """The records that only one of two nodes has, which stand at the same place of their trees."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        for each, beside in zip(one, other, strict=True):
            if each is not beside:
                yield from _differing(each, beside)
    elif one != other:
        yield from set(_all(one)) ^ set(_all(other))


def _all(node: _Node) -> Iterator[bytes]:
    return (record for leaf in _leaves(node) for record in _records(leaf))


def _bytes(value: int) -> bytes:
    if isinstance(value, int) and value is not True and value is not False:
        return value.to_bytes(_VALUE_BYTES, signed=True)
    raise WrongValue(f"UuidMap: a value is {shown(value)}; give a whole number")


def _key(key: str) -> bytes:
    try:
        return uuid_bytes(key)
    except (TypeError, AttributeError) as error:
        raise _wrong_key(key) from error


def _wrong_key(key: object) -> WrongValue:
    return WrongValue(f"UuidMap: a key is {shown(key)}; give the text of a UUID, as str(order_id)")
