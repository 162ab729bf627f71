"""Tests that are imported and collected once; each mutant meets them in a fork of that process."""

from __future__ import annotations

import ast
import os
import pickle
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil
import pytest
from coverage import Coverage

from proof.mutants.functions import functions, replace
from proof.mutants.mutations import Mutant

ROOT = Path(__file__).parents[2]
OPTIONS = ("-q", "-s", "-m", "fast", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", "--timeout=60")
_WALL_SECONDS = 3600
_LOOK_SECONDS = 0.02
_IDLE_LOOKS = 250
"""Without any use of the processor: a test that waits for what never comes. Looks and not seconds, because where others
take the processor, this process looks as seldom as that one works."""
_SPARE_SECONDS = 10
"""Of processor time, beyond three times what the tests take without a mutant: one may loop endlessly."""


class Examples:
    """A plugin: a failing example is not made smaller, and the next mutant meets the same examples."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        from hypothesis import HealthCheck, Phase, settings  # not before pytest does

        settings.register_profile(
            "mutants",
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            phases=[Phase.explicit, Phase.generate],
            derandomize=True,
            database=None,
        )


@dataclass
class Reached:
    """What the tests do where nothing is changed."""

    tests: Mapping[tuple[str, int], Collection[str]]
    """By path and line; as line 0: any line of the module."""
    seconds: Mapping[str, float]
    """Of processor time, by test."""
    imported: frozenset[tuple[str, int]]
    """Lines that run while the tests are imported: a function that is replaced later has no effect there."""
    failing: Sequence[str]

    @cached_property
    def _lines(self) -> Counter[tuple[str, str]]:
        """How many lines of a module a test reaches; of all modules, under an empty path."""
        lines = ((path, test) for (path, line), tests in self.tests.items() if line for test in tests)
        return Counter(each for path, test in lines for each in ((path, test), ("", test)))

    def of(self, mutant: Mutant, seconds: float) -> Sequence[str]:
        """As many of the tests that reach it as take about so long, first those that do least outside of its module."""
        found = self.tests.get((mutant.path, mutant.line)) or self.tests.get((mutant.path, 0), ())
        lines, path = self._lines, mutant.path
        chosen: list[str] = []
        for test in sorted(found, key=lambda test: (-lines[path, test] / lines["", test], test)):
            if seconds <= 0:
                break
            seconds -= self.seconds[test]
            chosen.append(test)
        return chosen


class Warm(Examples):
    """A plugin that hands the collected tests to `then`, instead of running them."""

    def __init__(self, rooms: Sequence[str], then: Callable[[Warm], None]) -> None:
        self._then = then
        self._coverage = Coverage(
            data_file=None, config_file=False, include=[f"{ROOT / room}/*" for room in rooms]
        )

    def collect(self, *arguments: str, measure: bool) -> int:
        """The exit code of pytest."""
        if measure:
            self._coverage.start()
        return pytest.main([*OPTIONS, *arguments], plugins=[self])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._session = session
        self._items = {item.nodeid: item for item in session.items}
        self._functions = functions()
        self._then(self)
        return True

    def reached(self) -> Reached:
        """Runs all tests once, in a fork."""
        with tempfile.NamedTemporaryFile() as file:
            if self._fork(lambda: self._measure(file.name), seconds=3600):
                raise RuntimeError("the tests came to no end, though nothing was changed")
            self._coverage.stop()
            with open(file.name, "rb") as written:
                return Reached(*pickle.load(written))

    def notices(self, mutant: Mutant, tests: Sequence[str], seconds: float) -> bool | None:
        """Whether one of the tests fails; None where it takes a new import to tell."""
        file = ROOT / mutant.path

        def run() -> int:
            if not replace(self._functions, str(file), ast.parse(file.read_text()), mutant.tree):
                return 2
            items = [self._items[test] for test in tests]
            return int(any(self._fails(*pair) for pair in zip(items, [*items[1:], None], strict=True)))

        code = self._fork(run, bound(seconds))
        return None if code == 2 else code != 0

    def _fails(self, item: pytest.Item, then: pytest.Item | None) -> bool:
        before = self._session.testsfailed
        self._session.shouldfail = self._session.shouldstop = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=then)
        return self._session.testsfailed > before

    def _measure(self, file: str) -> int:
        seconds, failing = {}, []
        items = [*self._items.values()]
        for item, then in zip(items, [*items[1:], None], strict=True):
            self._coverage.switch_context(item.nodeid)
            began = time.process_time()
            if self._fails(item, then):
                failing.append(item.nodeid)
            seconds[item.nodeid] = time.process_time() - began
        self._coverage.stop()
        lines, imported = self._lines(failing)
        Path(file).write_bytes(pickle.dumps((lines, seconds, frozenset(imported), failing)))
        return 0

    def _lines(self, failing: Sequence[str]) -> tuple[dict[tuple[str, int], set[str]], set[tuple[str, int]]]:
        """The tests by the line that they reach, and the lines that run before any test."""
        lines: dict[tuple[str, int], set[str]] = {}
        imported = set()
        data = self._coverage.get_data()
        for file in data.measured_files():
            path = str(Path(file).relative_to(ROOT))
            for line, contexts in data.contexts_by_lineno(file).items():
                lines[path, line] = {*contexts} - {"", *failing}
                lines.setdefault((path, 0), set()).update(lines[path, line])
                if "" in contexts:
                    imported.add((path, line))
        return lines, imported

    def _fork(self, work: Callable[[], int], seconds: float) -> int:
        """The exit code of the work, in a fork that may take so much processor time; not 0 where it is killed."""
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 1
            try:
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, 1)
                os.dup2(nowhere, 2)
                limit(seconds)
                code = work()
            finally:
                os._exit(code)
        return exit_code(child)


def bound(seconds: float) -> float:
    """How much processor time tests may take that take so much without a mutant."""
    return seconds * 3 + _SPARE_SECONDS


def limit(seconds: float) -> None:
    """Lets this process take so much processor time, and no more."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))


def exit_code(child: int) -> int:
    """Waits for the end of a process; not 0 where it is killed."""
    return 1 if _hangs(child) else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _hangs(child: int) -> bool:
    """Waits for the end of a process; kills one that takes too long, or that does nothing at so many looks on end."""
    process = psutil.Process(child)
    began = time.monotonic()
    idle_looks, used, used_below = 0, 0.0, 0.0
    while process.status() != psutil.STATUS_ZOMBIE:
        times = process.cpu_times()
        is_idle = process.status() == psutil.STATUS_SLEEPING and times.user + times.system <= used
        idle_looks, used = idle_looks + 1 if is_idle else 0, times.user + times.system
        if idle_looks > _IDLE_LOOKS and (below := _used_below(process)) > used_below:
            idle_looks, used_below = 0, below
        if idle_looks > _IDLE_LOOKS or time.monotonic() - began > _WALL_SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _used_below(process: psutil.Process) -> float:
    """The processor time of the programs that it has started, and waits for."""
    used = 0.0
    for each in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            used += times.user + times.system
    return used
