"""How fast positions move: events a second, from the positions of the last few looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from twinlog.v1 import inspection_pb2 as pb

_SECONDS = 3.0
"""Over how long a rate is taken."""
_Key = tuple[str, str, str]


class Rates:
    """Rates of logs and of consumers."""

    def __init__(self) -> None:
        self._points: dict[_Key, deque[tuple[float, int]]] = {}

    def note(
        self,
        service: str,
        described: pb.DescribeResponse,
        consumers: Iterable[pb.ConsumerDescription],
        at: float,
    ) -> None:
        """Takes note of positions at a moment, in seconds of a clock that only goes on."""
        for log in described.logs:
            if log.own:
                self._note((service, "log", log.log), at, log.head)
                self._note((service, "twin", log.log), at, log.last)
        for each in consumers:
            self._note((service, "consumer", each.consumer), at, each.position)

    def forget(self, service: str) -> None:
        """A service has fallen silent: its positions stand, as far as anybody knows."""
        for key in [key for key in self._points if key[0] == service]:
            del self._points[key]

    def log(self, service: str, log: str) -> float:
        """Events a second that are appended to a log."""
        return self._rate((service, "log", log))

    def twin(self, service: str, log: str) -> float:
        """Events a second that are copied into a log's stream."""
        return self._rate((service, "twin", log))

    def consumer(self, service: str, consumer: str) -> float:
        """Events a second that a consumer gets past, those included that it does not want."""
        return self._rate((service, "consumer", consumer))

    def _note(self, key: _Key, at: float, position: int) -> None:
        points = self._points.setdefault(key, deque())
        points.append((at, position))
        while len(points) > 2 and points[1][0] <= at - _SECONDS:
            points.popleft()

    def _rate(self, key: _Key) -> float:
        points = self._points.get(key)
        if not points or points[-1][0] == points[0][0]:
            return 0.0
        return max(0, points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])


def rate(per_second: float) -> str:
    if per_second <= 0:
        return "0/s"
    if per_second < 0.05:
        return "<\u202f0.1/s"
    if per_second < 10:
        return f"{per_second:.1f}/s"
    return f"{per_second:,.0f}/s".replace(",", "\u202f")
