"""What the profile makes of sampled stacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from proof.bench import profile
from stack.topology import ROOT

_LOOP = "<module> (app.py:1);run (asyncio/runners.py:118)"
STACKS = f"""\
{_LOOP};Writer._run (twinlog/log/writer.py:170);Writer._commit (twinlog/log/writer.py:200) 50
{_LOOP};Writer._run (twinlog/log/writer.py:171) 10
{_LOOP};wrap (a.py:1);send (uvloop/loop.pyx) 20
{_LOOP} 20
"""


def test_names_functions_and_scales_them_to_the_time_of_the_process() -> None:
    assert profile.functions(STACKS, 200) == [
        ("the event loop, and what it calls in C", 40, 40),
        ("`twinlog.log.writer:Writer._run`", 120, 20),
        ("`twinlog.log.writer:Writer._commit`", 100, 100),
        ("`uvloop.loop:send`", 40, 40),
    ]


def test_says_nothing_of_an_idle_process() -> None:
    assert profile.functions("<module> (app.py:1) 49", 200) == []


async def test_refuses_without_a_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_PY_SPY", ROOT / "nowhere")
    with pytest.raises(profile.Refused, match="make profile"):
        await profile.profile(1)


async def test_says_plainly_where_the_profiler_may_not_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "py-spy"
    program.write_text("#!/bin/sh\necho Permission denied >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(profile, "_PY_SPY", program)
    with pytest.raises(profile.Refused, match="order_svc \\(Permission denied\\)"):
        async with profile._sampled("order_svc", 1, tmp_path / "stacks"):
            pass
