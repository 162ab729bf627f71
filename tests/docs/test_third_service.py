"""The service of docs/third-service.md, added to a clone. tests/packaging runs it outside of one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stack.topology import ROOT
from tests.docs.third_service import write_files

_BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has or would take, the page's files, and the code generated from all protos."""
    folder = tmp_path_factory.mktemp("clone")
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    write_files(folder)
    run(folder, sys.executable, "protos/generate.py", "--python", ".")
    if (warm := ROOT / ".mypy_cache").exists():
        shutil.copytree(warm, folder / ".mypy_cache")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "ruff check --no-cache .",
        "ruff format --no-cache --check .",
        "mypy --package stamps_svc --package tests.test_stamps",
        "buf lint image.binpb --config protos/buf.yaml",
        "buf breaking image.binpb --against protos/released.txtpb --config protos/buf.yaml",
    ],
)
def test_make_lint_stays_green(clone: Path, command: str) -> None:
    if "image.binpb" in command:
        run(clone, sys.executable, "protos/generate.py", "--image", "image.binpb")
    name, *arguments = command.split()
    run(clone, _BIN / name, *arguments)


def run(folder: Path, *command: str | Path) -> str:
    """What a command prints; the test fails with it where the command does."""
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
