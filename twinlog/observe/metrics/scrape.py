"""One scrape: a thread asks the event loop for samples, and never waits long for it.

A loop that hangs makes the scrape say so (``twinlog_up`` is 0); a concern whose server does not answer is left out, and
counted (``twinlog_scrape_failures``). The process' own figures do not need the loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from math import inf
from time import monotonic

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from twinlog._aio.reasons import reason
from twinlog.observe.metrics.exposition import text
from twinlog.observe.metrics.metric import Concern, Metric, Sample

CONCERN_SECONDS = 2.0
"""How long a concern may take to answer."""
LOOP_SECONDS = 3.0
"""How long the event loop may take altogether; Prometheus gives up after ten by default."""

UP = Metric(
    "twinlog_up",
    "gauge",
    "Whether the event loop answered this scrape; 0: it hangs, and all other twinlog_ metrics are left out.",
)
FAILURES = Metric(
    "twinlog_scrape_failures",
    "gauge",
    "Whether the metrics of a concern are left out of this scrape, because what they are read from did not answer.",
    ("concern",),
)
_OPEN_METRICS = "application/openmetrics-text"


class Exposition:
    """What a process tells: the samples of the concerns, its process_ metrics, and what others have registered."""

    def __init__(self, concerns: Sequence[Concern], loop: asyncio.AbstractEventLoop) -> None:
        self._concerns = concerns
        self._loop = loop
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._beside = CollectorRegistry()
        self._beside.register(_Others(self._process))
        self._asking = {open_metrics: _Shared() for open_metrics in (False, True)}

    def page(self, accept: str = "") -> tuple[str, bytes]:
        """The content type and the bytes; called by any thread but the loop's. ``accept``: what the client reads."""
        encode, content_type = choose_encoder(accept)
        open_metrics = content_type.startswith(_OPEN_METRICS)
        told = self._asking[open_metrics].of(lambda: self._told(open_metrics))
        # A label's value is whatever a name in Python can be, which UTF-8 is not.
        return content_type, told.encode(errors="replace") + self._others(encode)

    def _told(self, open_metrics: bool) -> str:
        told = self._asked(open_metrics)
        return text([Sample(UP, 0)], open_metrics=open_metrics) if told is None else told

    def _asked(self, open_metrics: bool) -> str | None:
        """What the loop answers; None where it does not."""
        asking = _answer(self._concerns, open_metrics)
        try:
            answer = asyncio.run_coroutine_threadsafe(asking, self._loop)
        except RuntimeError:  # it is closed
            asking.close()
            return None
        try:
            return answer.result(LOOP_SECONDS)
        except (TimeoutError, concurrent.futures.CancelledError):
            answer.cancel()
            return None

    def _others(self, encode: Callable[[CollectorRegistry], bytes]) -> bytes:
        try:
            return encode(self._beside)
        except Exception as error:  # one of theirs takes no other from a scrape
            structlog.get_logger().debug("metrics.left_out", concern="others", why=reason(error))
            return encode(self._process)


class _Others(Collector):
    """The metrics that an adopter has made with prometheus_client, which puts them into its own registry.

    It puts those of the process there as well, and an adopter may have taken them out.
    """

    def __init__(self, process: CollectorRegistry) -> None:
        self._process = process

    def collect(self) -> Iterator[Family]:
        found = [*REGISTRY.collect()]
        yield from found
        if not any(family.name.startswith("process_") for family in found):
            yield from self._process.collect()


class _Shared:
    """An answer that all share who ask while it is being made: a crowd of scrapers asks the servers twice at most."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._began = -inf
        self._answer = ""

    def of(self, make: Callable[[], str]) -> str:
        """An answer that was begun after this call."""
        asked = monotonic()
        with self._turn:
            if self._began <= asked:
                self._began = monotonic()
                self._answer = make()
            return self._answer


async def _answer(concerns: Sequence[Concern], open_metrics: bool) -> str:
    # Written on the loop, which counts nothing meanwhile: a histogram's sum is that of its count.
    return text([*await sampled(concerns), Sample(UP, 1)], open_metrics=open_metrics)


async def sampled(concerns: Sequence[Concern]) -> Sequence[Sample]:
    """The samples of all concerns, each within its time, and which of them failed."""
    found = await asyncio.gather(*(_samples(concern) for concern in concerns))
    failures = [
        Sample(FAILURES, samples is None, (concern.name,))
        for concern, samples in zip(concerns, found, strict=True)
    ]
    return [*chain.from_iterable([samples or () for samples in found]), *failures]


async def _samples(concern: Concern) -> Sequence[Sample] | None:
    try:
        async with asyncio.timeout(CONCERN_SECONDS):
            return await concern.samples()
    except Exception as error:  # an outage of its server, or a defect: it leaves the others theirs
        structlog.get_logger().debug("metrics.left_out", concern=concern.name, why=reason(error))
        return None
