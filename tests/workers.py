"""Workers of `make test` that begin with the tests collected, as forks of one process: it takes seconds for each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from execnet import gateway_io
from execnet.gateway_base import Popen2IO

from stack.topology import ROOT
from tests import preloaded


def fork_workers(config: pytest.Config) -> None:
    """From now on xdist's workers are such forks.

    They begin as always where that cannot be: to measure coverage, each imports all by itself; and where the tests
    cannot be collected, each says why.
    """
    if not preloaded.FORKS or Path.cwd() != ROOT or config.getoption("cov_source", None):
        return
    try:
        forker = preloaded.connected(partial(_collecting, [*config.invocation_params.args]))
    except EOFError as error:
        if error.args[-1] == pytest.ExitCode.USAGE_ERROR:
            raise pytest.UsageError("no tests can be collected as asked") from None
        config.get_terminal_writer().line(
            "Workers collect the tests by themselves: this could not be done once."
        )
        return
    vars(gateway_io)["Popen2IOMaster"] = partial(_Worker, forker)


def _collecting(arguments: list[Any], theirs: int) -> Callable[[], object]:
    command = [sys.executable, "-m", "tests.workers_process", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=subprocess.DEVNULL).wait


class _Worker(Popen2IO):
    """What xdist knows of a process that it has started."""

    def __init__(self, forker: Any, _command: object, execmodel: Any) -> None:
        reads, ours = os.pipe()
        mine, writes = os.pipe()
        self._told, tells = os.pipe()
        try:
            self._pid = preloaded.forked(forker, "{}", reads, writes, tells)
        finally:
            for descriptor in (reads, writes, tells):
                os.close(descriptor)
        super().__init__(os.fdopen(ours, "wb"), os.fdopen(mine, "rb"), execmodel)

    def wait(self) -> int | None:
        """Its exit code, once it has ended."""
        code = os.read(self._told, preloaded.LARGEST_ANSWER)
        return int(code) if code else None

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
