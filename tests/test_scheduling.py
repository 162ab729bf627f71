"""How tests are shared out: groups stay whole, and one worker begins where nothing waits."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests import preloaded
from tests.scheduling import FromBothEnds

TESTS = ["a.py::one", "a.py::two", "b.py::one", "c.py::one", "c.py::two", "d.py::one"]


def test_the_last_worker_begins_at_the_end() -> None:
    workers = [_Worker(f"gw{number}") for number in range(3)]
    scheduler = _scheduler(workers)
    scheduler.schedule()
    assert [worker.given[0] for worker in workers] == ["a.py::one", "b.py::one", "d.py::one"]


def test_every_test_is_run_once_whoever_is_quick() -> None:
    for quick in range(3):
        workers = [_Worker(f"gw{number}") for number in range(3)]
        scheduler = _scheduler(workers)
        scheduler.schedule()
        while working := [worker for worker in workers if worker.ran < len(worker.given)]:
            next_ = workers[quick] if workers[quick] in working else working[0]
            next_.ran += 1
            scheduler.mark_test_complete(next_, TESTS.index(next_.given[next_.ran - 1]))
        assert sorted(test for worker in workers for test in worker.given) == TESTS
        assert scheduler.tests_finished


@pytest.mark.skipif(not preloaded.FORKS, reason="workers are forks on Linux only")
def test_workers_begin_with_the_tests_collected(request: pytest.FixtureRequest) -> None:
    measured = request.config.getoption("cov_source", None)
    if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and not measured:
        assert request.config.pluginmanager.hasplugin("forks of workers"), (
            f"{worker} has collected them itself"
        )


class _Worker:
    """As much of one as the scheduler tells."""

    shutting_down = False

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.given: list[str] = []
        self.ran = 0

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += [TESTS[index] for index in indices]

    def shutdown(self) -> None:
        self.shutting_down = True


def _scheduler(workers: list[_Worker]) -> Any:
    config: Any = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=False), getvalue=lambda _name: ["popen"] * len(workers)
    )
    scheduler: Any = FromBothEnds(config, None, lambda nodeid: "a.py" if nodeid.startswith("a.py") else "")
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, TESTS)
    return scheduler
