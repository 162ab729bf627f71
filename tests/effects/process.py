"""A replica whose effects write lines into a file, the provider of the crash test.

Usage: ``python -m tests.effects.process <database> <file>``, with POSTGRES_URL and NATS_URL in the environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from tests.dead_letters.journal import JOURNAL, Write
from tests.forks import forking
from twinlog import (
    Address,
    Aggregate,
    Attempt,
    Dispatch,
    Effects,
    Events,
    ServiceSpec,
    Settings,
    Shutdown,
    load,
    on,
    open_service,
    run,
)

CALL_SECONDS = 0.01


class ReplicaSettings(Settings):
    """The settings of the replica."""

    replica_address: Address = "127.0.0.1:0"
    """Not used: it only has effects."""


SAID: Aggregate[str, str] = Aggregate(
    "said",
    "",
    decide=lambda _said, text: _say(text),
    evolve=lambda _said, event: _text(event),
    partition_key=lambda text: text.partition(":")[0],
)
"""The events that call for effects: each ``key:number``."""


def _say(text: str) -> Events:
    return [StringValue(value=text)]


def _text(event: Message) -> str:
    assert isinstance(event, StringValue)
    return event.value


def spec(database: str) -> ServiceSpec:
    """The replica's log lies in a database of its name."""
    return ServiceSpec(
        name="mailer",
        log=database,
        database=database,
        domain="tests",
        settings=ReplicaSettings,
        address="replica_address",
        aggregates=(SAID, JOURNAL),
    )


def effects(log: str, file: Path) -> Effects:
    """Each call is one line of the file: who, under which key, and what."""

    async def send(event: StringValue, attempt: Attempt) -> Dispatch:
        with file.open("a") as lines:
            lines.write(f"{os.getpid()} {attempt.key} {event.value}\n")
        await asyncio.sleep(CALL_SECONDS)
        key, _, number = event.value.partition(":")
        return on(JOURNAL, key).do(Write(int(number)))

    return Effects(log=log, actor="mailer", name="mail", rules={StringValue: send})


async def main(shutdown: Shutdown) -> None:
    """Has effects until it is killed."""
    database, file = sys.argv[1:]
    async with open_service(spec(database), load(ReplicaSettings), shutdown) as service:
        service.subscribe(effects(database, Path(file)))
        await shutdown.wait()


if __name__ == "__main__":
    forking(lambda: run(main))
