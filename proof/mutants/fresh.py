"""Tests in their own process, which imports a module as a mutant has it; nothing is written."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

from proof.mutants.mutations import Mutant
from proof.mutants.warm import OPTIONS, ROOT, Examples, bound, exit_code, limit

_START_SECONDS = 60
"""Of processor time: to import and collect the tests."""


def notices(mutant: Mutant, tests: Sequence[str], seconds: Mapping[str, float]) -> bool:
    """Whether one of the tests fails. ``seconds``: of processor time, by test, without a mutant."""
    functions = dict.fromkeys(_function(test) for test in tests)
    taken = sum(each for test, each in seconds.items() if _function(test) in functions)
    command = [sys.executable, "-m", "proof.mutants.fresh", str(bound(taken) + _START_SECONDS), mutant.path]
    with tempfile.TemporaryFile() as source:
        source.write(ast.unparse(mutant.tree).encode())
        source.seek(0)
        with subprocess.Popen(
            [*command, *functions],
            cwd=ROOT,
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as child:
            return exit_code(child.pid) != 0


def _function(test: str) -> str:
    return test.partition("[")[0]


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
    limit(float(sys.argv[1]))
    ended = main(sys.argv[2], sys.stdin.read(), sys.argv[3:])
    sys.stdout.flush()
    os._exit(ended)
