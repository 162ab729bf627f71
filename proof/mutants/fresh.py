"""Tests in their own process, which imports a module as a mutant has it; nothing is written."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

from proof.mutants.mutations import Mutant
from proof.mutants.warm import OPTIONS, ROOT, Examples

_WALL_SECONDS = 600


def notices(mutant: Mutant, tests: Sequence[str]) -> bool:
    """Whether one of the tests fails."""
    functions = dict.fromkeys(test.partition("[")[0] for test in tests)
    command = [sys.executable, "-m", "proof.mutants.fresh", mutant.path, *functions]
    try:
        ended = subprocess.run(
            command,
            input=ast.unparse(mutant.tree).encode(),
            cwd=ROOT,
            timeout=_WALL_SECONDS,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return True
    return ended.returncode != 0


def main(path: str, source: str, tests: Sequence[str]) -> int:
    """The exit code of pytest, where the module has another source."""
    file = ROOT / path
    code = compile(source, str(file), "exec")
    sound = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        return code if Path(loader.path) == file else sound(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]
    return pytest.main([*OPTIONS, "-x", *tests], plugins=[Examples()])


if __name__ == "__main__":
    ended = main(sys.argv[1], sys.stdin.read(), sys.argv[2:])
    sys.stdout.flush()
    os._exit(ended)
