"""The distributions of twinlog, and an environment outside the checkout that has the wheel installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from stack.topology import ROOT

_OURS = ("twinlog", "__editable__", "__pycache__")
"""Beginnings of what an environment may have of this project itself."""


@dataclass(frozen=True)
class Distributions:
    """What `make build` makes."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Adopter:
    """A folder outside the checkout, and an environment whose only twinlog is the wheel's."""

    folder: Path
    bin: Path

    @property
    def env(self) -> dict[str, str]:
        """Of whatever runs there, as after `. .venv/bin/activate`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**inherited, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    def run(self, *command: str | Path) -> str:
        """What a command prints; the test fails with it where the command does."""
        return output(*command, cwd=self.folder, env=self.env)


@pytest.fixture(scope="package")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The sdist, and the wheel built from it; by the generator that is installed, since tests download nothing."""
    folder = tmp_path_factory.mktemp("dist")
    options = ("--no-isolation", "--skip-dependency-check", f"--outdir={folder}")
    output(sys.executable, "-m", "build", *options, ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Distributions(wheel, sdist)


@pytest.fixture(scope="package")
def adopter(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Adopter:
    """Its dependencies are links to those installed here: pip finds them, and refuses where the wheel wants others."""
    folder = tmp_path_factory.mktemp("adopter")
    venv.create(folder / ".venv", symlinks=True)
    there = Adopter(folder, folder / ".venv" / "bin")
    site = Path(there.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(_OURS):
            (site / path.name).symlink_to(path)
    wanted = f"twinlog[embedded,testing] @ {distributions.wheel.as_uri()}"
    there.run("python", "-m", "pip", "install", "--quiet", "--no-index", "--no-compile", wanted)
    return there


def output(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a command prints; the test fails with it where the command does."""
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
