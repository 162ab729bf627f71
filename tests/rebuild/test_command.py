"""What `twinlog views rebuild` prints to be done next works where it was printed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from stack.topology import ROOT
from tests.rebuild.conftest import Stays
from twinlog.cli import again


async def said(command: str) -> str:
    """What a command prints, in a shell that has the folder of no environment in its PATH."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": os.defpath}
    process = await asyncio.create_subprocess_shell(
        command, cwd=ROOT, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_what_is_printed_to_be_done_next_works_as_it_stands(stays: Stays) -> None:
    await stays.write("ann")
    printed = await said(f"{sys.executable} -m twinlog views rebuild stays --at {stays.address}")
    [line] = [line for line in printed.splitlines() if line.startswith("next: ")]
    assert "-m twinlog views switch stays --build 2" in line
    assert "build 2 of stays is live" in await said(line.removeprefix("next: "))


def test_the_command_is_named_as_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "twinlog"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert again.command() == "bin/twinlog"
    monkeypatch.setenv("PATH", str(program.parent))
    assert again.command() == "twinlog"
    monkeypatch.setattr(sys, "argv", ["/somewhere/twinlog/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert again.command() == ".venv/bin/python -m twinlog"
