"""Dead letters by consumer and error."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from twinlog.consume.listed import Listed, trend
from twinlog.model.times import timestamp
from twinlog.v1 import dead_letter_service_pb2 as pb

_MOST = 1_000
"""Each may have words of its own, as where an error names an id, and an answer has to fit into a message."""


class _Key(NamedTuple):
    consumer: str
    error_type: str
    error: str


class Group(NamedTuple):
    """Dead letters of one consumer with one error."""

    listed: Sequence[Listed]
    shown: pb.DeadLetterGroup

    def tell_trend(self, times: Mapping[tuple[str, int], datetime], seconds: int) -> None:
        """Takes in when they were set aside; ``times`` by consumer and position, ``seconds`` up to now."""
        name = self.shown.consumer
        known = [at for one in self.listed if (at := times.get((name, one.letter.position)))]
        self.shown.trend[:] = trend(known, self.listed[0].consumer.clock.now(), seconds)
        if known:
            self.shown.oldest_parked_at.CopyFrom(timestamp(min(known)))
            self.shown.newest_parked_at.CopyFrom(timestamp(max(known)))


def in_groups(listed: Sequence[Listed]) -> list[Group]:
    """By consumer, kind of error and error; the largest first. Of very many, the rest are together by kind."""
    groups: defaultdict[_Key, list[Listed]] = defaultdict(list)
    held_up_by = {one.lane: _group(one) for one in listed if one.is_first}
    behind: Counter[_Key] = Counter()
    for one in listed:
        groups[_group(one)].append(one)
        behind[held_up_by[one.lane]] += not one.is_first
    for group in sorted(groups, key=lambda group: -len(groups[group]))[_MOST:]:
        rest = _Key(group.consumer, group.error_type, "")
        if rest != group:
            groups[rest] += groups.pop(group)
            behind[rest] += behind.pop(group, 0)
    return [
        Group(
            found,
            pb.DeadLetterGroup(
                **group._asdict(),
                count=len(found),
                first=min(found, key=lambda one: one.letter.position).address,
                behind=behind[group],
            ),
        )
        for group, found in sorted(groups.items(), key=lambda pair: -len(pair[1]))
    ]


def _group(one: Listed) -> _Key:
    return _Key(one.consumer.name, one.letter.error_type, one.letter.error)
