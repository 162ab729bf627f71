"""Fields of a state that hold many values, as a dict or a tuple does: written and read some thousand at a time.

pydantic writes and reads a state in one call, which gives other threads no turn: 0.1 s and 0.6 s for 800,000 values. So
such fields of a dataclass are left out of that call, and done in pieces of their own. The bytes are the same. What
remains is a dict that grows, which moves all of its entries at once: 10 to 20 ms for 350,000.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from pydantic_core import SchemaError, SchemaSerializer, SchemaValidator

from twinlog.model.apart import Apart

_ITEMS = 2_000
"""Values of a piece."""
_KINDS: Mapping[str, type] = {"dict": dict, "list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_PLAIN = {"type", "keys_schema", "values_schema", "items_schema", "variadic_item_index"}
"""What the schema of a field may say: whatever else there is holds for all of it, and could not be told of a piece."""


class _Field(NamedTuple):
    """How one field is written and read."""

    kind: type
    write: Callable[[Any], bytes]
    read: Callable[..., Any]


class LargeFields:
    """The fields of a dataclass that can be done in pieces; of another class none."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """``schema``: pydantic's, of the class."""
        self._fields = dict(_fields(schema))

    def set_apart(self, state: Any, apart: Apart) -> Any:
        """The state with something in place of each large field, which is written already."""
        marks = {
            name: apart.put_json([*_written(field, value, apart.give_way)])
            for name, field in self._fields.items()
            if len(value := getattr(state, name)) > _ITEMS and type(value) is field.kind
        }
        return _with(state, marks)

    def without(self, read: bytes, apart: Apart) -> tuple[bytes, Mapping[str, Any]]:
        """The JSON of a state with the large fields empty, and their values. Raises what pydantic does over one."""
        parts, values, start = list[bytes](), dict[str, Any](), 0
        for name, begin, end, pieces in _containers(read, apart.give_way) if self._fields else ():
            field = self._fields.get(name)
            if field and len(pieces) > 1 and (read[begin : begin + 1] == b"{") == (field.kind is dict):
                values[name] = _joined(field, pieces, apart)
                parts.append(read[start : begin + 1])
                start = end - 1
        return b"".join([*parts, read[start:]]), values

    def filled(self, state: Any, values: Mapping[str, Any]) -> Any:
        """The state with the values of its large fields."""
        return _with(state, values)


def _fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, _Field]]:
    if schema["type"] != "dataclass" or schema["post_init"] or schema["schema"]["type"] != "dataclass-args":
        return
    for each in schema["schema"]["fields"]:
        of = each["schema"]
        of = of["schema"] if of["type"] == "default" else of
        if of["type"] in _KINDS and not of.keys() - _PLAIN and len(_items(of)) == 1:
            pieces = of if of["type"] == "dict" else {"type": "list", "items_schema": _items(of)[0]}
            try:
                write, read = SchemaSerializer(pieces, schema.get("config")), SchemaValidator(pieces)
            except (SchemaError, KeyError):  # of a class that refers to itself, say
                continue
            yield each["name"], _Field(_KINDS[of["type"]], write.to_json, read.validate_json)


def _items(schema: Mapping[str, Any]) -> list[Any]:
    """The schema of its values; none, or several, where each place of a tuple has its own."""
    found = schema.get("items_schema", {"type": "any"})
    if schema["type"] != "tuple":
        return [found]
    return [*found] if "variadic_item_index" in schema else []


def _written(field: _Field, value: Any, give_way: Callable[[], object]) -> Iterator[bytes]:
    opening, closing = (b"{", b"}") if field.kind is dict else (b"[", b"]")
    items = iter(value.items() if field.kind is dict else value)
    collect: Callable[[Iterable[Any]], Any] = dict if field.kind is dict else list
    before = opening
    while piece := collect(islice(items, _ITEMS)):
        give_way()
        yield before
        yield field.write(piece)[1:-1]
        before = b","
    yield closing


def _joined(field: _Field, pieces: Iterable[bytes], apart: Apart) -> Any:
    is_dict, is_set = field.kind is dict, field.kind in (set, frozenset)
    whole: Any = {} if is_dict else set() if is_set else []
    add = whole.update if is_dict or is_set else whole.extend
    for piece in pieces:
        apart.give_way()
        add(field.read(b"{" + piece + b"}" if is_dict else b"[" + piece + b"]", context=apart))
    apart.give_way()
    return whole if isinstance(whole, field.kind) else field.kind(whole)


def _with(state: Any, values: Mapping[str, Any]) -> Any:
    if not values:
        return state
    changed = copy.copy(state)
    for name, value in values.items():
        object.__setattr__(changed, name, value)  # it may be frozen; nobody else has it yet
    return changed


# What pydantic writes has no spaces. A value may hold others, two deep; one that is deeper is read as a whole.
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_VALUE = rb"(?:" + _TEXT + rb"|[-+.\w]++)"
for _ in range(2):
    _VALUE = (
        rb"(?:" + _VALUE + rb"|\[(?:" + _VALUE + rb",?+)*+\]|\{(?:" + _TEXT + rb":" + _VALUE + rb",?+)*+\})"
    )
_COUNT = b"{1,%d}+" % _ITEMS
_NAME = re.compile(rb'"(\w+)":')
_SCALAR = re.compile(_TEXT + rb"|[-+.\w]++", re.DOTALL)
_SOME = {
    b"{": re.compile(rb"(?:" + _TEXT + rb":" + _VALUE + rb"(?:,|(?=\})))" + _COUNT, re.DOTALL),
    b"[": re.compile(rb"(?:" + _VALUE + rb"(?:,|(?=\])))" + _COUNT, re.DOTALL),
}
_CLOSING = {b"{": b"}", b"[": b"]"}


def _containers(read: bytes, give_way: Callable[[], object]) -> Iterator[tuple[str, int, int, list[bytes]]]:
    """The fields of a JSON object that are objects or arrays: name, begin, end, and the values between in pieces.

    It ends where something is not as pydantic writes it, or lies too deep.
    """
    at = 1
    while named := _NAME.match(read, at):
        begin = named.end()
        opening = read[begin : begin + 1]
        if opening in _SOME:
            pieces, at = _pieces(read, begin + 1, _SOME[opening], give_way)
            if read[at : at + 1] != _CLOSING[opening]:
                return
            at += 1
            yield named[1].decode(), begin, at, pieces
        elif scalar := _SCALAR.match(read, begin):
            at = scalar.end()
        at += 1  # a comma, or the end


def _pieces(
    read: bytes, at: int, some: re.Pattern[bytes], give_way: Callable[[], object]
) -> tuple[list[bytes], int]:
    pieces = []
    while found := some.match(read, at):
        give_way()
        pieces.append(found[0].removesuffix(b","))
        at = found.end()
    return pieces, at
