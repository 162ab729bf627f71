"""Where the microseconds of a saga go, by function and by statement: ``python -m proof.bench.profile [--quick]``.

Every process is sampled by py-spy while as many sagas run as there can, system after system; Postgres counts for
itself.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg

from proof.bench import budget, measure
from proof.bench.report import machine, number, table
from proof.bench.systems import System, started
from stack.topology import ROOT
from twinlog.dev import EmbeddedPostgres, stop

_PY_SPY = ROOT / ".venv-bench" / "bin" / "py-spy"
_SAMPLE = ("record", "--rate", "250", "--gil", "--format", "raw")
_TOP = 15
_TOO_FEW = 50
"""Samples from which nothing follows: the process was idle."""
_NEARLY_ALL = 0.95
_LOOP = "the event loop, and what it calls in C"
_FRAME = re.compile(r"(?P<function>.+) \((?P<path>.+?)(\.pyx?)?(:\d+)?\)")
_STATEMENTS = """SELECT datname, regexp_replace(query, '\\s+', ' ', 'g'), calls, total_exec_time * 1000
    FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid ORDER BY total_exec_time DESC LIMIT $1"""
_NOTE = """Made by `make profile`; [budget.md](budget.md) says what follows from it. By process: processor time, from
`/proc`, the profiler's not in it. By function: samples that hold the interpreter, 250 a second, scaled to the time of
the process; with what it calls, and itself alone. One that only passes on to another is left out. By statement: from
`pg_stat_statements`, time on the clock, so waiting for a processor is in it; those of a microsecond or more. Being
sampled slows a process, which makes batches smaller and sagas dearer: the sums to quote are those of `make bench`.
"""


class Refused(Exception):
    """Nothing can be profiled here; the message says what is needed."""


async def profile(orders: int) -> str:
    """The page. ``orders``: of each system. Raises Refused."""
    if not _PY_SPY.exists():
        raise Refused(f"{_PY_SPY.relative_to(ROOT)} is missing: make profile installs it, where it can")
    if "POSTGRES_URL" in os.environ:
        raise Refused("POSTGRES_URL: a profile needs a server of its own, which counts statements; unset it")
    data, parts = ROOT / ".data" / "bench", ["# Profile", "", _NOTE]
    await _prepare(data)
    async with started(data, kept=True) as (shop, systems):
        server = await asyncpg.connect(f"{shop.postgres_url}/postgres")
        try:
            for system in systems:
                await measure.rates(system, orders // 5)
            for system in systems:
                parts += [f"## {system.name.capitalize()}", "", *await _of(system, orders, server)]
        finally:
            await server.close()
    return "\n".join([*parts, machine(), ""])


async def _prepare(data: Path) -> None:
    """A server that is to count statements has to know before it starts."""
    shutil.rmtree(data, ignore_errors=True)
    async with EmbeddedPostgres(data / "postgres") as postgres:
        server = await asyncpg.connect(f"{postgres.url}/postgres")
        await server.execute("CREATE EXTENSION pg_stat_statements")
        await server.execute("ALTER SYSTEM SET shared_preload_libraries = pg_stat_statements")
        await server.close()


async def _of(system: System, orders: int, server: asyncpg.Connection[Any]) -> list[str]:
    with TemporaryDirectory() as folder:
        files = {process: Path(folder) / str(pid) for process, pid in system.pids.items()}
        async with AsyncExitStack() as samplers:
            for process, file in files.items():
                await samplers.enter_async_context(_sampled(process, system.pids[process], file))
            await server.execute("SELECT pg_stat_statements_reset()")
            rates, spent = await budget.of_sagas(system, orders)
            statements = await server.fetch(_STATEMENTS, _TOP)
        found = {process: functions(file.read_text(), spent[process]) for process, file in files.items()}
    print(f"{system.name}: {rates.sagas:,.0f} sagas/s while sampled", flush=True)
    processes = [*spent.items(), ("**all**", sum(spent.values()))]
    lines = _numbers(("process", "µs a saga"), "<>", processes)
    for process, times in found.items():
        if times:
            head: Sequence[str] = ("function", "µs a saga", "of it itself")
            lines += [f"### {process}, by function", "", *_numbers(head, "<>>", times)]
    rows = [
        (row[0], _quoted(row[1]), row[2] / orders, row[3] / orders) for row in statements if row[3] >= orders
    ]
    head = ("database", "statement", "calls a saga", "µs a saga")
    return [*lines, "### Postgres, by statement", "", *_numbers(head, "<<>>", rows)]


def _numbers(head: Sequence[str], sides: str, rows: Iterable[Sequence[str | float]]) -> list[str]:
    """A table and an empty line."""
    said = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    return [*table(head, sides, said), ""]


@asynccontextmanager
async def _sampled(process: str, pid: int, file: Path) -> AsyncIterator[None]:
    """Writes a process's stacks to a file when the block ends."""
    options = (*_SAMPLE, "--output", file, "--pid", str(pid))
    sampler = await asyncio.create_subprocess_exec(_PY_SPY, *options, stdout=PIPE, stderr=PIPE)
    assert sampler.stdout and sampler.stderr
    try:
        if not await sampler.stdout.readline():  # it says that it samples
            words = (await sampler.stderr.read()).decode(errors="replace").partition("\n")[0]
            raise Refused(
                f"py-spy may not look into {process} ({words}): run as root or set kernel.yama.ptrace_scope=0; "
                "a container needs the capability SYS_PTRACE"
            )
        yield
    finally:
        await stop(sampler, signal.SIGINT)


def functions(stacks: str, micros: float) -> list[tuple[str, float, float]]:
    """The most expensive functions of sampled stacks: their share of ``micros``, and what of it is their own.

    One that only passes on to another is left out: the other says the same.
    """
    inclusive, alone, passed = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        names = [_name(frame) for frame in stack.split(";")]
        inclusive.update(dict.fromkeys(names, int(count)))
        passed.update(dict.fromkeys(pairwise(names), int(count)))
        alone[names[-1]] += int(count)
    samples = alone.total()
    if samples < _TOO_FEW:
        return []
    most, each = _NEARLY_ALL * samples, micros / samples
    passing = {caller for (caller, _), count in passed.items() if count > _NEARLY_ALL * inclusive[caller]}
    loop = sum(alone[name] for name, count in inclusive.items() if count > most) * each
    found = [
        (f"`{name}`", count * each, alone[name] * each)
        for name, count in inclusive.most_common()
        if count <= most and name not in passing
    ]
    return [(_LOOP, loop, loop), *found[:_TOP]]


def _name(frame: str) -> str:
    """py-spy's "Writer._run (twinlog/writer.py:170)" as "twinlog.writer:Writer._run"."""
    found = _FRAME.fullmatch(frame)
    return f"{found['path'].replace('/', '.')}:{found['function']}" if found else frame


def _quoted(statement: str) -> str:
    return f"`{statement[:90]}`".replace("|", r"\|")


if __name__ == "__main__":
    quick = "--quick" in sys.argv
    folder = ROOT / ".data" / "bench-quick" if quick else ROOT / "docs" / "bench"
    try:
        page = asyncio.run(profile(2_000 if quick else 10_000))
    except Refused as refusal:
        sys.exit(str(refusal))
    except KeyboardInterrupt:
        sys.exit(130)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile.md").write_text(page)
    print(page)
