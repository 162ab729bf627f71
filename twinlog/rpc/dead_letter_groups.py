"""Dead letters by consumer and error."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from twinlog.consume.listed import Listed, trend
from twinlog.model.times import timestamp
from twinlog.v1 import dead_letter_service_pb2 as pb


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
    """By consumer, kind of error and error; the largest first."""
    groups: defaultdict[tuple[str, str, str], list[Listed]] = defaultdict(list)
    held_up_by = {one.lane: _group(one) for one in listed if one.is_first}
    behind: Counter[tuple[str, str, str]] = Counter()
    for one in listed:
        groups[_group(one)].append(one)
        behind[held_up_by[one.lane]] += not one.is_first
    return [
        Group(
            found,
            pb.DeadLetterGroup(
                consumer=group[0],
                error_type=group[1],
                error=group[2],
                count=len(found),
                first=found[0].address,
                behind=behind[group],
            ),
        )
        for group, found in sorted(groups.items(), key=lambda pair: -len(pair[1]))
    ]


def _group(one: Listed) -> tuple[str, str, str]:
    return (one.consumer.name, one.letter.error_type, one.letter.error)
