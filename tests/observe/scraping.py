"""What a scrape says, read by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.memory_shop import Node
from twinlog.observe.metrics.exposition import text
from twinlog.observe.metrics.metric import Concern, Metric
from twinlog.observe.metrics.scrape import sampled

_TRIES = 60
Labels = frozenset[tuple[str, str]]


class Scrape:
    """The values of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {each.name: each for each in text_string_to_metric_families(text)}
        self.samples: Mapping[tuple[str, Labels], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        """The names of all series."""
        return {name for name, _ in self.samples}

    def value(self, name: str, /, **labels: str) -> float:
        """The value of one series."""
        return self.samples[name, frozenset(labels.items())]

    def sum(self, name: str, /, **labels: str) -> float:
        """The sum of all series that have these labels, among others."""
        wanted = labels.items()
        return sum(value for (its, has), value in self.samples.items() if its == name and wanted <= has)


async def scraped(url: str) -> str:
    """What an address answers."""
    return await asyncio.to_thread(get, url)


def get(url: str) -> str:
    """The same, for a thread. A page that says that services have not answered yet is asked for again."""
    for _ in range(_TRIES):
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                answer: bytes = response.read()
            return answer.decode()
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503:
                    raise
            time.sleep(1.0)
    raise TimeoutError(f"{url} says that it has no answer yet")


async def scrape_of(node: Node) -> Scrape:
    """What a service in memory would tell."""
    assert node.metrics
    return Scrape(text(await sampled(node.metrics.concerns(node))))


async def values_of(concern: Concern) -> Scrape:
    """What one concern tells."""
    return Scrape(text(await concern.samples()))


def series(metric: Metric) -> set[str]:
    """The names of the series of a metric."""
    if metric.kind == "histogram":
        return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    return {metric.name}
