"""``python -m proof.lowest``: runs the fast tests with the oldest releases that pyproject.toml allows.

They run in an environment of their own, on a copy of the tree: code that a newer generator has made refuses an older
protobuf. Further arguments go to pytest.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from typing import Any

from stack.topology import ROOT

_VENV = ROOT / ".data" / "lowest" / "venv"
_TREE = ROOT / ".data" / "lowest" / "tree"
_OLDEST = re.compile(r"([\w.-]+)>=([\w.]+)")
_OF_THE_REPOSITORY = ("dev", "docs")
_GENERATORS = ("grpcio-tools", "mypy-protobuf")
"""Of those, what makes code for the oldest protobuf only when it is old itself."""
_NEWER = (
    "tests/docs/test_commands.py::test_grpcurl_calls_what_there_is_with_what_it_takes",
    "tests/kernel/test_rpc_host.py::TestHealth::test_lists_all_that_can_be_asked_for",
    "tests/kernel/test_protos.py::test_a_new_field_is_welcome",
)
"""Tests of what only newer releases have: grpc.health.v1.Health/List, and the descriptors of the newest generator."""


def requirements(*extras: str) -> Sequence[str]:
    """What pyproject.toml requires: of the library, and of these extras."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    of_extras = project["optional-dependencies"]
    chosen = extras or [extra for extra in of_extras if extra not in _OF_THE_REPOSITORY]
    return [*project["dependencies"], *(each for extra in chosen for each in of_extras[extra])]


def oldest() -> dict[str, str]:
    """By package, the oldest release that an adopter may have. Raises ValueError where a requirement names none."""
    ours = [each for each in requirements("dev") if each.startswith(_GENERATORS)]
    found: dict[str, str] = {}
    for each in [*requirements(), *ours]:
        named = _OLDEST.fullmatch(each)
        if not named:
            raise ValueError(f"{each}: say name>=release, the oldest that will do")
        found[named[1]] = named[2]
    return found


def main(arguments: Sequence[str]) -> int:
    """The exit code of the tests."""
    python = _installed()
    _copy()
    _run(python, "protos/generate.py", "--python", ".")
    deselected = [f"--deselect={test}" for test in _NEWER]
    # With the oldest test tools, sockets of loops that ended are left to the collector, in whatever test it runs.
    warned = "-Wdefault::pytest.PytestUnraisableExceptionWarning"
    tests = [python, "-m", "pytest", "-q", "-n", "3", "-m", "fast", warned, *deselected, *arguments]
    return subprocess.run(tests, cwd=_TREE).returncode


def _installed() -> str:
    """The Python of the environment."""
    print("Installing the oldest releases …", flush=True)
    venv.create(_VENV, clear=True, with_pip=True)
    constraints = _VENV / "oldest.txt"
    constraints.write_text("\n".join(f"{name}=={release}" for name, release in oldest().items()))
    python = str(_VENV / "bin" / "python")
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints))
    _run(*pip, *requirements())
    # The others by themselves: all at once, pip looks for what goes together for a quarter of an hour.
    _run(*pip, *requirements(*_OF_THE_REPOSITORY))
    return python


def _copy() -> None:
    """The tree as it is, and a repository, since tests ask git for the files."""
    shutil.rmtree(_TREE, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (_TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, _TREE / name)
    _run("git", "init", "--quiet")
    _run("git", "add", "--all")


def _run(*command: str) -> None:
    _TREE.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, cwd=_TREE, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
