"""How tests are shared out: groups stay whole, and one worker begins where nothing waits."""

from __future__ import annotations

import os
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from stack.topology import ROOT
from tests import preloaded, workers
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


def test_what_a_dead_worker_leaves_is_run_by_another_without_the_test_it_died_in() -> None:
    for dies_in in TESTS:
        for others_have_ended in (False, True):
            workers = [_Worker("gw0"), _Worker("gw1")]
            scheduler = _scheduler(workers)
            scheduler.schedule()
            dead = _run(scheduler, workers, until=dies_in, others_first=others_have_ended)
            assert dead
            assert scheduler.remove_node(dead) == dies_in
            workers.remove(dead)
            new = _Worker("gw2")
            scheduler.add_node(new)
            scheduler.add_node_collection(new, TESTS)
            scheduler.schedule()
            _run(scheduler, [*workers, new])
            ran = [*dead.given[: dead.ran], *(test for worker in [*workers, new] for test in worker.given)]
            assert sorted([*ran, dies_in]) == TESTS, (dies_in, others_have_ended)
            assert scheduler.tests_finished


@pytest.mark.skipif(not preloaded.FORKS, reason="workers are forks on Linux only")
def test_workers_begin_with_the_tests_collected(request: pytest.FixtureRequest) -> None:
    measured = request.config.getoption("cov_source", None)
    elsewhere = request.config.invocation_params.dir != ROOT
    if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and not measured and not elsewhere:
        assert request.config.pluginmanager.hasplugin("forks of workers"), (
            f"{worker} has collected them itself"
        )


@pytest.mark.skipif(not preloaded.FORKS, reason="workers are forks on Linux only")
def test_what_cannot_be_collected_as_asked_ends_the_run_and_all_else_begins_as_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    config: Any = SimpleNamespace(
        getoption=lambda *_: None,
        invocation_params=SimpleNamespace(args=()),
        get_terminal_writer=lambda: SimpleNamespace(line=said.append),
    )
    monkeypatch.chdir(ROOT)
    for code in (pytest.ExitCode.USAGE_ERROR, 1):

        def ended(_start: object, code: int = code) -> None:
            raise EOFError("", code)

        monkeypatch.setattr(preloaded, "connected", ended)
        with pytest.raises(pytest.UsageError) if code == 4 else nullcontext():
            workers.fork_workers(config)
    assert len(said) == 1


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


def _run(
    scheduler: Any, workers: list[_Worker], *, until: str = "", others_first: bool = False
) -> _Worker | None:
    """Has them run what they are given, as far as they begin it; gives the one whose next test is this one."""
    while True:
        able = [worker for worker in workers if worker.ran < len(worker.given) - (not worker.shutting_down)]
        stopped = [worker for worker in able if worker.given[worker.ran] == until]
        others = [worker for worker in able if worker not in stopped]
        if stopped and not (others and others_first):
            return stopped[0]
        if not others:
            return None
        others[0].ran += 1
        scheduler.mark_test_complete(others[0], TESTS.index(others[0].given[others[0].ran - 1]))


def _scheduler(workers: list[_Worker]) -> Any:
    config: Any = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=False), getvalue=lambda _name: ["popen"] * len(workers)
    )
    scheduler: Any = FromBothEnds(config, None, lambda nodeid: "a.py" if nodeid.startswith("a.py") else "")
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, TESTS)
    return scheduler
