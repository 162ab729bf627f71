"""The hotel in an environment that has only the wheel: its code is generated, and its tests pass."""

from __future__ import annotations

import shutil

from tests import servers
from tests.examples.conftest import HOTEL, LEFT_BEHIND
from tests.packaging.conftest import Adopter, output


def test_it_passes_its_tests_on_the_wheel(adopter: Adopter) -> None:
    with servers.folder() as folder:
        shutil.copytree(HOTEL, folder / "hotel", ignore=LEFT_BEHIND)

        def run(*command: str) -> str:
            return output(*command, cwd=folder / "hotel", env=adopter.env)

        run("twinlog", "proto")
        assert " passed" in run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
