"""Binary formats of the values that travel to Postgres and back.

Rows travel as arrays of tuples, and within a tuple every value needs a binary format (docs/adr/0017).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import asyncpg
from pydantic_core import from_json, to_json

from twinlog.model.event import Metadata

_JSONB = b"\1"
"""The version of jsonb's binary format."""
_BASE, _NEGATIVE = 10_000, 0x4000
_HEADER = struct.Struct("!hhHh")
"""Of numeric: the number of digits in that base, the power of the first digit, the sign, and the decimals to show."""
_WITH_DIGITS = [struct.Struct(f"!hhHh{count}h") for count in range(16)]
"""The header and so many digits, as most numbers have them."""

Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"


async def set_codecs(connection: Connection) -> None:
    """Sets a connection up for metadata and mappings as jsonb, and for whole numbers beyond 64 bits as numeric."""
    codecs: Sequence[tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]] = (
        ("jsonb", _to_jsonb, _from_jsonb),
        ("numeric", _to_numeric, _from_numeric),
    )
    for type, encode, decode in codecs:
        await connection.set_type_codec(
            type, encoder=encode, decoder=decode, schema="pg_catalog", format="binary"
        )


class UnreadJson(str):
    """JSON as it stands, of which Postgres keeps more than a parser reads: of nesting, and of digits."""


def json_of(data: str | bytes) -> Any:
    """What the JSON of a column says; where no parser reads it, it is bad for its own row alone."""
    try:
        return from_json(data)
    except ValueError:
        return UnreadJson(data if isinstance(data, str) else data.decode())


def _to_jsonb(value: Metadata | Mapping[str, Any] | UnreadJson) -> bytes:
    if isinstance(value, UnreadJson):
        return _JSONB + value.encode()
    if isinstance(value, Metadata):
        value = {name: part for name, part in zip(Metadata._fields, value, strict=True) if part}
    return _JSONB + to_json(value)


def _from_jsonb(data: bytes) -> Any:
    return json_of(data.removeprefix(_JSONB))


def _to_numeric(number: int) -> bytes:
    digits, rest = [], abs(number)
    while rest:
        rest, digit = divmod(rest, _BASE)
        digits.append(digit)
    digits.reverse()
    count = len(digits)
    packing = _WITH_DIGITS[count] if count < len(_WITH_DIGITS) else struct.Struct(f"!hhHh{count}h")
    return packing.pack(count, count - 1, _NEGATIVE if number < 0 else 0, 0, *digits)


def _from_numeric(data: bytes) -> int:
    count, power, sign, _decimals = _HEADER.unpack_from(data)
    if power + 1 < count:
        raise ValueError("a value in a column of whole numbers is not whole")
    number = 0
    for digit in struct.unpack_from(f"!{count}h", data, _HEADER.size):
        number = number * _BASE + digit
    number *= int(_BASE ** (power + 1 - count))
    return -number if sign else number
