"""The hotel in an environment that has only the wheel: its tests pass, and compute little."""

from __future__ import annotations

import shutil
from resource import RUSAGE_CHILDREN, getrusage

from tests import servers
from tests.examples.conftest import HOTEL, LEFT_BEHIND
from tests.packaging.conftest import Adopter, output

_MOST_SECONDS = 10.0
"""Of a processor's time, which does not depend on what else the machine does."""


def test_it_passes_its_tests_on_the_wheel(adopter: Adopter) -> None:
    with servers.folder() as folder:
        shutil.copytree(HOTEL, folder / "hotel", ignore=LEFT_BEHIND)

        def run(*command: str) -> str:
            return output(*command, cwd=folder / "hotel", env=adopter.env)

        run("twinlog", "proto")
        # What would otherwise be compiled while its tests run.
        run("python", "-c", "import compileall, twinlog; compileall.compile_dir(*twinlog.__path__, quiet=2)")
        before = getrusage(RUSAGE_CHILDREN)
        assert " passed" in run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
        after = getrusage(RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert seconds < _MOST_SECONDS, "its tests compute too much; `pytest --durations=5` tells which"
