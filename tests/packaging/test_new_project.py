"""A project that `twinlog new` makes, from the wheel alone: its tests, then its service on embedded servers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stack.topology import ROOT
from tests import servers
from tests.packaging.conftest import Adopter, Distributions, output
from tests.programs import Program, program
from twinlog.dev import free_port

_NAME = "library"


async def test_it_passes_its_tests_and_runs(adopter: Adopter, distributions: Distributions) -> None:
    with servers.folder() as folder:
        made = adopter.run("twinlog", "new", _NAME, "--in", folder)
        assert f"  PIP_FIND_LINKS={distributions.wheel.parent.as_uri()} make install\n" in made
        project = folder / _NAME
        run(adopter, project, "twinlog", "proto")
        run(adopter, project, "twinlog", "proto", "--check")
        tested = run(adopter, project, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
        assert " passed" in tested
        assert "Warning" not in tested
        address = f"127.0.0.1:{free_port()}"
        async with running(adopter, project, address) as dev:
            added = await call(address, "AddTask", title="Return the books", repeats=True)
            await call(address, "CompleteTask", task_id=added["task_id"])
            tasks: list[dict[str, Any]] = []

            async def both_are_listed() -> bool:
                tasks[:] = (await call(address, "ListTasks")).get("tasks", [])
                return len(tasks) == 2 and any(task.get("done") for task in tasks)

            await dev.until(both_are_listed)
            assert sorted(task.get("done", False) for task in tasks) == [False, True]

            found = json.loads(await ask(adopter, project, "status", "--json", "--at", address))
            assert [service["service"] for service in found["services"]] == ["library_svc"]
            logged = await ask(adopter, project, "log", "--json", "--after", "0", "--at", address)
            types = [json.loads(line)["type"] for line in logged.splitlines()]
            assert types[:3] == [f"library.v1.{name}" for name in ("TaskAdded", "TaskCompleted", "TaskAdded")]

            audited = json.loads(await ask(adopter, project, "audit", "--wait", "180", "--json"))
            assert (audited["clean"], audited["settled"]) == (True, True), audited
            assert audited["figures"]["checked"]["view rows"] >= 2

            change(project / "library_svc" / "view.py")
            await dev.says("view.py changed")
            await dev.says("rpc.serving", times=2)
            assert len((await call(address, "ListTasks"))["tasks"]) == 2


def change(file: Path) -> None:
    file.write_text(f"{file.read_text()}# Changed.\n")


def run(adopter: Adopter, project: Path, *command: str) -> str:
    """What a command prints in the project; the test fails with it where the command does."""
    return output(*command, cwd=project, env=without_servers(adopter))


ANY_PORTS = {"METRICS_ADDRESS": "127.0.0.1:0", "CONSOLE_ADDRESS": "127.0.0.1:0"}


def without_servers(adopter: Adopter) -> dict[str, str]:
    """The environment, without servers that it may name."""
    return {name: value for name, value in adopter.env.items() if name not in ("POSTGRES_URL", "NATS_URL")}


async def ask(adopter: Adopter, project: Path, *arguments: str) -> str:
    return await asyncio.to_thread(run, adopter, project, "twinlog", *arguments)


async def call(address: str, method: str, **request: Any) -> dict[str, Any]:
    """A call of the service, as its README shows them."""
    command = (
        Path(sys.executable).with_name("grpcurl"), "-plaintext", "-d", json.dumps(request), address,
        f"library.v1.TaskService/{method}",
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(await asyncio.to_thread(output, *command, cwd=ROOT))
    return answer


@asynccontextmanager
async def running(adopter: Adopter, project: Path, address: str) -> AsyncIterator[Program]:
    """`twinlog dev`, once it is up. Ctrl-C has to end it, and all that it started."""
    env = without_servers(adopter)
    # The fixture links packages, and no programs: nats-server is beside this Python.
    env["PATH"] += f"{os.pathsep}{Path(sys.executable).parent}"
    env |= {"LIBRARY_ADDRESS": address, **ANY_PORTS}
    async with program(adopter.bin / "twinlog", "dev", env=env, cwd=project) as dev:
        await dev.says("twinlog status")
        yield dev
        assert await dev.ends_at(signal.SIGINT) == 0, dev.said
        leftover = [
            int(file.read_text().split("\n", 1)[0]) for file in (project / ".twinlog").rglob("*.pid")
            if file.name != "dev.pid"
        ]  # fmt: skip
        assert not [pid for pid in leftover if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
