"""The make targets call what a clone has after its first target: nothing of this repository is installed there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from stack.topology import ROOT

PROGRAMS = sorted(set(re.findall(r"\$\(BIN\)/([\w-]+)", (ROOT / "Makefile").read_text())) - {"python"})


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_a_target_calls_is_installed(program: str) -> None:
    assert (Path(sys.executable).parent / program).exists()


def test_there_are_some() -> None:
    assert {"pytest", "ruff", "mypy"} <= {*PROGRAMS}
