"""The hotel in an environment that has only the wheel: its tests pass, and compute little."""

from __future__ import annotations

import shutil
from resource import RUSAGE_CHILDREN, getrusage

from tests import servers
from tests.examples.conftest import HOTEL, LEFT_BEHIND
from tests.packaging.conftest import Adopter, output

_TRIES = 3
"""Others who share the processor's caches make one of the two dearer, but hardly each time."""
_MOST = 8.0
"""Processor time of the tests, where to collect them is 1: seconds depend on the machine and on what else it does."""


def test_it_passes_its_tests_on_the_wheel(adopter: Adopter) -> None:
    with servers.folder() as folder:
        shutil.copytree(HOTEL, folder / "hotel", ignore=LEFT_BEHIND)

        def run(*command: str) -> str:
            return output(*command, cwd=folder / "hotel", env=adopter.env)

        def tested(*options: str) -> tuple[str, float]:
            """What pytest prints, and the seconds of the processor that it takes."""
            before = getrusage(RUSAGE_CHILDREN)
            said = run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *options)
            after = getrusage(RUSAGE_CHILDREN)
            return said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        run("twinlog", "proto")
        # Whatever would otherwise be compiled while they are collected.
        run("python", "-c", "import compileall, twinlog; compileall.compile_dir(*twinlog.__path__, quiet=2)")
        for _ in range(_TRIES):
            _, collecting = tested("--collect-only")
            said, testing = tested()
            assert " passed" in said
            if testing < _MOST * collecting:
                return
        raise AssertionError("its tests compute too much; `pytest --durations=5` tells which")
