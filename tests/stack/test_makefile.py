"""The make targets call what a clone has after its first target: nothing of this repository is installed there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stack.topology import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
PROGRAMS = sorted(set(re.findall(r"\$\(BIN\)/([\w-]+)", MAKEFILE)) - {"python"})


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_a_target_calls_is_installed(program: str) -> None:
    assert (Path(sys.executable).parent / program).exists()


def test_there_are_some() -> None:
    assert {"pytest", "ruff", "mypy"} <= {*PROGRAMS}


def test_a_module_that_a_target_runs_ends_at_ctrl_c_without_a_word(tmp_path: Path) -> None:
    (run,) = re.findall(r"^define RUN\n(.*?)^endef$", MAKEFILE, re.DOTALL | re.MULTILINE)
    (tmp_path / "slow.py").write_text("import sys, time\nprint(sys.argv[1:], flush=True)\ntime.sleep(600)\n")
    command = [sys.executable, "-c", run, "slow", "--quick"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "['--quick']\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == -signal.SIGINT
