"""`python -m tests.simulation` ends quietly at Ctrl-C, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from stack.topology import ROOT

_JOBS = 2
_BOUND_SECONDS = 250.0


@pytest.mark.parametrize("moment", ["while workers start", "while workers simulate"])
def test_ctrl_c_ends_it_quietly(moment: str) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seconds", "600", "--jobs", str(_JOBS)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + _BOUND_SECONDS
    # The resource tracker of multiprocessing is one child more.
    while len(started := psutil.Process(process.pid).children()) <= _JOBS:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if moment == "while workers simulate":
        while min(each.cpu_times().user for each in started[-_JOBS:]) < 2.0:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=_BOUND_SECONDS)
    assert (process.returncode, err) == (130, "")
    assert "Traceback" not in out
    _, left = psutil.wait_procs(started, timeout=_BOUND_SECONDS)
    assert not left
