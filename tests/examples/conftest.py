"""The hotel in a folder of its own, where nothing of this checkout but twinlog can be imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from stack.topology import ROOT

HOTEL = ROOT / "examples" / "hotel"
LEFT_BEHIND = shutil.ignore_patterns("__pycache__", ".*_cache", ".twinlog", ".venv", "*_pb2*")
"""What is not in git."""


@dataclass(frozen=True)
class Example:
    """A copy of an example, and what its commands run in."""

    folder: Path
    env: Mapping[str, str]

    def run(self, *command: str | Path) -> str:
        """What a command prints; the test fails with it where the command does."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=250,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def twinlog(self, *arguments: str) -> str:
        """The same of the command `twinlog`."""
        return self.run(sys.executable, "-m", "twinlog", *arguments)


def copy_of(name: str, folder: Path) -> Example:
    """An example in a folder of its own, with its code generated."""
    installed = folder / "installed"
    installed.mkdir()
    (installed / "twinlog").symlink_to(ROOT / "twinlog")
    shutil.copytree(HOTEL.parent / name, folder / name, ignore=LEFT_BEHIND)
    inherited = {name: value for name, value in os.environ.items() if not name.endswith(("_URL", "_ADDRESS"))}
    inherited["METRICS_ADDRESS"] = inherited["CONSOLE_ADDRESS"] = "127.0.0.1:0"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    example = Example(folder / name, {**inherited, "PYTHONPATH": str(installed), "PATH": path})
    example.twinlog("proto")
    return example


@pytest.fixture
def hotel(tmp_path: Path) -> Example:
    """The hotel, with its code generated."""
    return copy_of("hotel", tmp_path)
