"""The console: what is asked of it, and who watches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.observe.metrics.tallies import Histogram

REQUESTS = Metric(
    "twinlog_console_requests_total",
    "counter",
    "Pages that were asked for, and actions, by the page's path and the status of the response.",
    ("page", "status"),
)
DURATION = Metric(
    "twinlog_console_request_duration_seconds",
    "histogram",
    "Time from a request to its response, with what the services took; live streams have none.",
    ("page",),
)
VIEWERS = Metric(
    "twinlog_console_viewers", "gauge", "Live streams that are open now: pages that are watched."
)
LOADED = Metric(
    "twinlog_console_watched_urls",
    "gauge",
    "URLs that are loaded every second, because somebody watches them, however many do.",
)


class Pages:
    """Counts what a console is asked. Paths are those of its routes, such as ``/log/{log}/{position}``: few."""

    name = "pages"

    def __init__(self, watched: Callable[[], tuple[int, int]]) -> None:
        """``watched``: how many live streams are open, and of how many URLs."""
        self._watched = watched
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._seconds: dict[str, Histogram] = defaultdict(Histogram)

    def answered(self, page: str, status: int, seconds: float) -> None:
        self._requests[page, status] += 1
        self._seconds[page].observe(seconds)

    async def samples(self) -> Sequence[Sample]:
        viewers, urls = self._watched()
        return [
            *(
                Sample(REQUESTS, count, (page, str(status)))
                for (page, status), count in self._requests.items()
            ),
            *(Sample(DURATION, seconds, (page,)) for page, seconds in self._seconds.items()),
            Sample(VIEWERS, viewers),
            Sample(LOADED, urls),
        ]
