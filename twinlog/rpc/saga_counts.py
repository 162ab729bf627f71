"""How many sagas there are: counted again only after some time, where counting takes long."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import NamedTuple

from twinlog.log.saga_list import SagaList
from twinlog.model.saga_list import ChosenSagas
from twinlog.v1 import saga_service_pb2 as pb

_SHARE = 20
"""A count is kept for so many times as long as it took: counting takes 5 % of the time at most."""
_MOST_KEPT = 100
_Key = tuple[frozenset[int], bytes]


class _Count(NamedTuple):
    number: int
    until: float


class SagaCounts:
    """Counts of one list."""

    def __init__(self, sagas: SagaList) -> None:
        self._list = sagas
        self._kept: OrderedDict[_Key, _Count] = OrderedDict()

    async def of(self, chosen: ChosenSagas, asked: pb.SagaFilter) -> int:
        """How many sagas are chosen; ``asked``: the filter that says so, for which the count is kept."""
        key = (frozenset(map(int, chosen.statuses)), asked.SerializeToString(deterministic=True))
        began = time.monotonic()
        kept = self._kept.get(key)
        if kept and began < kept.until:
            return kept.number
        number = (await self._list.select(chosen, 1)).total
        now = time.monotonic()
        self._kept[key] = _Count(number, now + _SHARE * (now - began))
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return number
