"""One scrape: a thread asks the event loop for samples, and never waits long for it.

A loop that hangs makes the scrape say so (``twinlog_up`` is 0); a concern whose server does not answer is left out, and
counted (``twinlog_scrape_failures``). The process' own figures do not need the loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator, Mapping, Sequence

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from twinlog.observe.metrics.metric import Concern, Metric, Sample
from twinlog.observe.metrics.tallies import Histogram

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
METRICS = (UP, FAILURES)

_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}


def registry(concerns: Sequence[Concern], loop: asyncio.AbstractEventLoop) -> CollectorRegistry:
    """What a process tells: the samples of the concerns, its process_ metrics, and what others have registered."""
    found = CollectorRegistry()
    ProcessCollector(registry=found)
    found.register(_Scrape(concerns, loop))
    found.register(_Others())
    return found


class _Others(Collector):
    """The metrics that an adopter has made with prometheus_client, which puts them into its own registry."""

    def collect(self) -> Iterator[Family]:
        try:
            told = [family for family in REGISTRY.collect() if not family.name.startswith("process_")]
        except Exception as error:  # one of theirs takes no other from a scrape
            structlog.get_logger().debug("metrics.left_out", concern="others", why=str(error))
            return
        yield from told


class _Scrape(Collector):
    def __init__(self, concerns: Sequence[Concern], loop: asyncio.AbstractEventLoop) -> None:
        self._concerns = concerns
        self._loop = loop

    def collect(self) -> Iterator[Family]:
        samples = self._asked()
        yield from families([*samples, Sample(UP, 1)] if samples is not None else [Sample(UP, 0)])

    def _asked(self) -> Sequence[Sample] | None:
        """What the loop answers; None where it does not."""
        asking = sampled(self._concerns)
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


async def sampled(concerns: Sequence[Concern]) -> Sequence[Sample]:
    """The samples of all concerns, each within its time, and which of them failed."""
    found = await asyncio.gather(*(_samples(concern) for concern in concerns))
    return [
        *(sample for samples in found for sample in samples or ()),
        *(
            Sample(FAILURES, samples is None, (concern.name,))
            for concern, samples in zip(concerns, found, strict=True)
        ),
    ]


async def _samples(concern: Concern) -> Sequence[Sample] | None:
    try:
        async with asyncio.timeout(CONCERN_SECONDS):
            return await concern.samples()
    except Exception as error:  # an outage of its server, or a defect: it leaves the others theirs
        structlog.get_logger().debug("metrics.left_out", concern=concern.name, why=str(error))
        return None


def families(samples: Sequence[Sample]) -> Iterator[Family]:
    """The samples as prometheus_client knows them, by metric."""
    by_metric: Mapping[Metric, list[Sample]] = {sample.metric: [] for sample in samples}
    for sample in samples:
        by_metric[sample.metric].append(sample)
    for metric, its in by_metric.items():
        name = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
        family = _FAMILIES[metric.kind](name, metric.help, labels=metric.labels)
        for sample in its:
            _add(family, sample)
        yield family


def _add(family: Family, sample: Sample) -> None:
    labels, value = [*sample.labels], sample.value
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Histogram)
        family.add_metric(labels, buckets=[*value.buckets()], sum_value=value.sum)
    else:
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        assert not isinstance(value, Histogram)
        family.add_metric(labels, float(value))
