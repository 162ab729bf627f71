"""Gaps: how the consumer of some events knows that what it was not sent was not for it.

A consumer with a filter sees gaps in the sequences of a stream, and a message that was purged leaves the same gap. So
each message says what lies before it: of every kind of event (its type and tag), the last position. Where that does not
reach back far enough, the stream itself has to be asked.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

_KINDS = 12
"""Kinds of events that a message names, at most: a log seldom has more between two events of one consumer."""
_TYPE = 4
_TAG = 2
"""Characters that stand for a type and for a tag. Two that are the same by chance cost a question, and no event."""


class PredecessorIndex:
    """What the publisher of a stream knows of the events before the next one."""

    def __init__(self) -> None:
        # By kind, as it is said; the one that has not come for longest is first.
        self._last: dict[str, str] = {}
        self._since = 0
        self._upto = 0

    def before(self, position: int, subject: str) -> str:
        """What a message says of the events before it: ``<since> <kind><last position> …``.

        Every event after ``since`` is of one of these kinds, and none of a kind comes after its last position.
        """
        if position != self._upto + 1:
            self._last, self._since = {}, position - 1
        said = " ".join([str(self._since), *self._last.values()])
        _, _, type, routing_key = subject.split(".")
        self._last.pop(kind := _short(type, _TYPE) + _short(routing_key, _TAG), None)
        self._last[kind] = f"{kind}{position}"
        self._upto = position
        if len(self._last) > _KINDS:
            self._since = _last(self._last.pop(next(iter(self._last))))
        return said


class Interest:
    """What a consumer wants, as :meth:`twinlog.log.twin.Twin.deliver` takes it."""

    def __init__(self, types: Sequence[str], routing_key: str) -> None:
        of_tag = _short(routing_key, _TAG) if routing_key else ""
        self._part = slice(0 if types else _TYPE, _TYPE + _TAG if routing_key else _TYPE)
        """What of a kind decides whether it is wanted."""
        self._wanted = {_short(type, _TYPE) + of_tag for type in types} or {of_tag}

    def has_all(self, said: str, seen: int) -> bool:
        """Whether, by what a message says of the events before it, none that is wanted comes after ``seen``.

        False also where it does not say enough.
        """
        try:
            since, *kinds = said.split()
            last = [_last(kind) for kind in kinds if kind[self._part] in self._wanted]
            return int(since) <= seen >= max(last, default=0)
        except ValueError:
            return False


def _last(kind: str) -> int:
    return int(kind[_TYPE + _TAG :])


@cache
def _short(name: str, length: int) -> str:
    return f"{zlib.crc32(name.encode()):08x}"[-length:]
