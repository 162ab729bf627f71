"""Measurements that run in their own process and print their rows as JSON."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from proof.bench.report import Row
from stack.topology import ROOT

_TIMEOUT_SECONDS = 240.0


class Failed(RuntimeError):
    """A measurement ended with an error; the message has its last words."""


async def rows(command: Sequence[str | Path], env: Mapping[str, str]) -> list[Row]:
    """Runs it. Raises Failed, also where it takes longer than four minutes."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **env},
    )
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            out, words = await process.communicate()
    except TimeoutError:
        raise Failed(f"it was not done after {_TIMEOUT_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Failed(" ".join(words.decode(errors="replace").split("\n")[-3:]).strip())
    return [Row(**row) for row in json.loads(out.splitlines()[-1])]
