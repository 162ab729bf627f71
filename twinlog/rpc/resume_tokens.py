"""Resume tokens: where a watch goes on, such as ``customers:4.0,orders:17.0/3f9c0a1b5d7e2c48~9d27c4e1``.

By log the position up to which changes were told, with the number of replays there; then what is watched, and whose
positions these are; for a single row its state. These three are hashes, of the state also one of each field. Where
another build of the view than its home was read, its number stands before the state, as in ``…~9d27c4e1@2``. Nothing in
it is secret, and a forged one deceives only who forged it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple

from twinlog.model.errors import InvalidArgument
from twinlog.model.row_changes import Mark

FIELD = "resume_token"
_MAX_LENGTH = 4096
_PART = re.compile(r"([a-z][a-z0-9_]*):(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,8})", re.ASCII)
_BUILD = re.compile(r"|[1-9][0-9]{0,8}", re.ASCII)
_MAX_POSITION = 2**63 - 1
_HASH_BYTES = 8
_ORIGIN_BYTES = 4
_NAME_DIGITS, _FIELD_DIGITS = 6, 14
"""Hexadecimal digits of a field in a state: those of its name come first."""
_MOST_FIELDS = 200
"""A row with more is compared as a whole, so that its token does not grow beyond what is taken back."""
_WRONG = "is not a token that this watch gave; pass the last one unchanged, or none to start anew"


class Resumed(NamedTuple):
    """What a token says."""

    marks: Mapping[str, Mark]
    """By log, up to where changes were told."""
    state: str
    """The state of the row that was told last, as :func:`state_of` gives it; empty for watches of many rows."""
    build: int
    """The build of the view that was read; 0: its home."""


def hash_of(*values: Any) -> str:
    """A hash of what is watched, or of a row: the same in every process."""
    return blake2b(repr(values).encode(), digest_size=_HASH_BYTES).hexdigest()


def state_of(row: Any) -> str:
    """The state of a row, None where there is none: the same in every process that declares the row alike."""
    names = getattr(row, "_fields", ())
    fields = [_hash_of_field(*each) for each in zip(names, row, strict=True)] if names else []
    return hash_of(row) + "".join(fields if len(fields) <= _MOST_FIELDS else [])


def _hash_of_field(name: str, value: Any) -> str:
    return _hash_of_name(name) + hash_of(value)[: _FIELD_DIGITS - _NAME_DIGITS]


@cache
def _hash_of_name(name: str) -> str:
    return hash_of(name)[:_NAME_DIGITS]


def is_same(told: str, now: str) -> bool:
    """Whether two states are of one row that has not changed.

    Two definitions of a view have rows of two shapes: of these, the fields that both have are compared.
    """
    if told == now:
        return True
    one, other = _fields(told), _fields(now)
    common = one.keys() & other.keys()
    return bool(common) and one.keys() != other.keys() and all(one[name] == other[name] for name in common)


def _fields(state: str) -> Mapping[str, str]:
    """By the hash of its name, that of each field."""
    starts = range(2 * _HASH_BYTES, len(state), _FIELD_DIGITS)
    return {state[at : at + _NAME_DIGITS]: state[at + _NAME_DIGITS : at + _FIELD_DIGITS] for at in starts}


def origin_of(secret: bytes) -> str:
    """Tells the tokens of one database of views from those of any other, by the secret that all its replicas have."""
    return blake2b(b"resume", key=secret, digest_size=_ORIGIN_BYTES).hexdigest()


def write(marks: Mapping[str, Mark], watched: str, origin: str, state: str = "", build: int = 0) -> str:
    """A token of these marks, by log."""
    told = ",".join(f"{log}:{mark.position}.{mark.part}" for log, mark in sorted(marks.items()))
    return f"{told}/{watched}~{origin}{f'@{build}' if build else ''}{state and '-'}{state}"


def read(token: str, logs: Collection[str], watched: str, origin: str) -> Resumed:
    """What a token says. Raises InvalidArgument for other texts, and for one of another watch or installation."""
    told, _, rest = token.partition("/") if len(token) <= _MAX_LENGTH else ("", "", "")
    of, _, state = rest.partition("-")
    of, _, build = of.partition("@")
    of, _, whose = of.partition("~")
    parts = [_PART.fullmatch(part) for part in told.split(",")]
    marks = {part[1]: Mark(int(part[2]), int(part[3])) for part in parts if part}
    if len(marks) != len(parts) or any(mark.position > _MAX_POSITION for mark in marks.values()):
        raise InvalidArgument({FIELD: _WRONG})
    if not _BUILD.fullmatch(build):
        raise InvalidArgument({FIELD: _WRONG})
    if of != watched or marks.keys() != set(logs):
        raise InvalidArgument({FIELD: "is of another watch; pass it with the same filter, or none"})
    if whose != origin:
        raise InvalidArgument(
            {FIELD: "is of another installation, whose positions say nothing here; pass none"}
        )
    return Resumed(marks, state, int(build or 0))
