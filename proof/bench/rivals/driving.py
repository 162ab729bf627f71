"""Drives a rival in its own process: no RPC in front of it, which the shop and the baseline do pay for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter, sleep

CUSTOMERS = 100
_MOST_SECONDS = 120


@dataclass
class Run:
    """What is driven."""

    name: str
    create: Callable[[int], object]
    """Creates order number n; returns once it is stored."""
    approved: Callable[[], int]
    """How many orders the view shows as approved."""

    def measure(self, orders: int, threads: int) -> tuple[float, float]:
        """Sagas and accepted orders a second."""
        before, start = self.approved(), perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(self.create, range(orders)):
                pass
        accepted = perf_counter() - start
        while self.approved() < before + orders:
            if perf_counter() - start > _MOST_SECONDS:
                raise TimeoutError(f"{self.approved() - before} of {orders} sagas ended")
            sleep(0.02)
        return orders / (perf_counter() - start), orders / accepted

    def report(self, orders: int, threads: Sequence[int]) -> None:
        """Measures it with each number of threads after a warm-up, and prints the best as rows."""
        self.measure(max(20, orders // 10), threads[0])
        sagas, accepted = max(self.measure(orders, number) for number in threads)
        rows = [
            {"what": f"{self.name}: sagas end to end", "unit": "sagas/s", "values": [sagas]},
            {"what": f"{self.name}: orders accepted", "unit": "calls/s", "values": [accepted]},
        ]
        print(json.dumps(rows))
