"""Predecessors: how a filtering consumer tells events that were not for it from events that were lost.

A consumer with a filter sees gaps in the sequences of a stream, and a purged message leaves the same kind of gap. So
each message says what precedes it: the last position of every kind of event, a kind being a type and a routing key.
If that does not reach back far enough, the stream itself has to be asked.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

_MAX_KINDS = 12
"""How many kinds a message names at most: a log seldom has more between two events of one consumer."""
_TYPE_CHARS = 4
_KEY_CHARS = 2
"""Characters that stand for a type and for a routing key. A collision costs a question to the stream, and no event."""


class PredecessorIndex:
    """What the publisher of a stream knows about the events before the next one."""

    def __init__(self) -> None:
        # By kind, as text; the kind that was published least recently is first.
        self._last: dict[str, str] = {}
        self._since = 0
        self._upto = 0

    def before(self, position: int, subject: str) -> str:
        """What a message says about the events before it: ``<since> <kind><last position> …``.

        Every event after ``since`` is of one of these kinds, and the last of each kind is at its last position.
        """
        if position != self._upto + 1:
            self._last, self._since = {}, position - 1
        said = " ".join([str(self._since), *self._last.values()])
        _, _, type, routing_key = subject.split(".")
        self._last.pop(kind := _short(type, _TYPE_CHARS) + _short(routing_key, _KEY_CHARS), None)
        self._last[kind] = f"{kind}{position}"
        self._upto = position
        if len(self._last) > _MAX_KINDS:
            self._since = _last(self._last.pop(next(iter(self._last))))
        return said


class Interest:
    """The events that a consumer wants, as in :meth:`twinlog.log.twin.Twin.deliver`."""

    def __init__(self, types: Sequence[str], routing_key: str) -> None:
        key = _short(routing_key, _KEY_CHARS) if routing_key else ""
        self._part = slice(
            0 if types else _TYPE_CHARS, _TYPE_CHARS + _KEY_CHARS if routing_key else _TYPE_CHARS
        )
        """The part of a kind that decides whether it is wanted."""
        self._wanted = {_short(type, _TYPE_CHARS) + key for type in types} or {key}
        self._alike: set[str] = set()

    def has_all(self, said: str, seen: int) -> bool:
        """Whether a message says about the events before it that all wanted ones are at or before ``seen``.

        Also False if it does not say enough.
        """
        try:
            since, *kinds = said.split()
            last = [_last(kind) for kind in kinds if kind[self._part] in self._wanted]
            return int(since) <= seen >= max(last, default=0)
        except ValueError:
            return False

    def named(self, said: str, seen: int) -> Sequence[tuple[str, int]]:
        """The kinds that look wanted and have an event behind ``seen``, by what a message says, each with its last."""
        try:
            named = [(kind[: _TYPE_CHARS + _KEY_CHARS], _last(kind)) for kind in said.split()[1:]]
        except ValueError:
            return []
        return [
            (kind, last)
            for kind, last in named
            if last > seen and kind[self._part] in self._wanted and kind not in self._alike
        ]

    def looks_alike(self, kind: str) -> None:
        """Notes that a kind only looks wanted: another has the same checksum."""
        self._alike.add(kind)


def _last(kind: str) -> int:
    return int(kind[_TYPE_CHARS + _KEY_CHARS :])


@cache
def _short(name: str, length: int) -> str:
    return f"{zlib.crc32(name.encode()):08x}"[-length:]
