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

_BOUND_SECONDS = 250.0
_IMPORTED_AFTER_SECONDS = 2.0
"""Of a processor, for a worker."""


@pytest.mark.parametrize(("moment", "jobs"), [("while workers start", 2), ("while a worker simulates", 1)])
def test_ctrl_c_ends_it_quietly(moment: str, jobs: int) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seconds", "600", "--jobs", str(jobs)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + _BOUND_SECONDS
    # The resource tracker of multiprocessing is one child more.
    while len(started := psutil.Process(process.pid).children()) <= jobs:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if moment == "while a worker simulates":
        while started[-1].cpu_times().user < _IMPORTED_AFTER_SECONDS:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=_BOUND_SECONDS)
    assert (process.returncode, err) == (130, "")
    assert "Traceback" not in out
    _, left = psutil.wait_procs(started, timeout=_BOUND_SECONDS)
    assert not left
