"""Resume tokens: where a watch goes on, such as ``customers:4.0,orders:17.0/3f9c0a1b5d7e2c48~9d27c4e1``.

By log the position up to which changes were told, with the number of replays there; then what is watched, and whose
positions these are; for a single row its state. These three are hashes. Where another build of the view than its home
was read, its number stands before the state, as in ``…~9d27c4e1@2``. Nothing in it is secret, and a forged one
deceives only who forged it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from twinlog.model.errors import InvalidArgument
from twinlog.model.row_changes import Mark

FIELD = "resume_token"
_MAX_LENGTH = 1024
_PART = re.compile(r"([a-z][a-z0-9_]*):(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,8})", re.ASCII)
_BUILD = re.compile(r"|[1-9][0-9]{0,8}", re.ASCII)
_MAX_POSITION = 2**63 - 1
_HASH_BYTES = 8
_ORIGIN_BYTES = 4
_WRONG = "is not a token that this watch gave; pass the last one unchanged, or none to start anew"


class Resumed(NamedTuple):
    """What a token says."""

    marks: Mapping[str, Mark]
    """By log, up to where changes were told."""
    state: str
    """The hash of the row that was told last; empty for watches of many rows."""
    build: int
    """The build of the view that was read; 0: its home."""


def hash_of(*values: Any) -> str:
    """A hash of what is watched, or of a row: the same in every process."""
    return blake2b(repr(values).encode(), digest_size=_HASH_BYTES).hexdigest()


def origin_of(secret: bytes) -> str:
    """Tells the tokens of one database of views from those of any other, by the secret that all its replicas have."""
    return blake2b(b"resume", key=secret, digest_size=_ORIGIN_BYTES).hexdigest()


def write(marks: Mapping[str, Mark], watched: str, origin: str, state: str = "", build: int = 0) -> str:
    """A token of these marks, by log."""
    told = ",".join(f"{log}:{mark.position}.{mark.part}" for log, mark in sorted(marks.items()))
    return f"{told}/{watched}~{origin}{f'@{build}' if build else ''}{state and '-'}{state}"


def read(token: str, logs: Collection[str], watched: str, origin: str) -> Resumed:
    """What a token says. Raises InvalidArgument for what is none, and for one of another watch or installation."""
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
