"""A domain module is light: it loads no server, no client and no settings, and takes a few milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from stack.topology import ROOT

DOMAINS = ["order_svc.domain", "customer_svc.domain", "saga_orchestrator.credit_saga"]
HEAVY = {"asyncio", "asyncpg", "grpc", "nats", "pydantic", "pydantic_settings", "structlog", "uvloop"}
ASKING = ["dead_letters", "diff", "log", "sagas", "snapshots", "state", "status", "views"]
"""Commands that ask services over gRPC."""
MAX_SECONDS = 0.060
TRIES = 15

_LOADED = """
import json, sys
before = set(sys.modules)
import {modules}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
_TIMED = """
import time
began = time.process_time()
import {modules}
print(time.process_time() - began)
"""


def python(program: str, *modules: str) -> str:
    command = [sys.executable, "-c", program.format(modules=", ".join(modules))]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout


def loaded(*modules: str) -> list[str]:
    """What importing these loads besides, in a fresh process."""
    found: list[str] = json.loads(python(_LOADED, *modules))
    return found


def seconds(*modules: str) -> float:
    """The processor time of importing these in a fresh process."""
    return float(python(_TIMED, *modules))


def test_domains_load_nothing_heavy() -> None:
    assert not HEAVY & {name.split(".")[0] for name in loaded(*DOMAINS)}


def test_tests_of_domains_load_no_server() -> None:
    names = {name.split(".")[0] for name in loaded("twinlog.testing")}
    assert not (HEAVY - {"asyncio", "structlog", "pydantic"}) & names


def test_commands_that_ask_services_load_no_service() -> None:
    """People wait for them: what a service is made of would double the time that each takes to start."""
    names = {name.split(".")[0] for name in loaded(*(f"twinlog.cli.{module}" for module in ASKING))}
    assert not (HEAVY - {"asyncio", "grpc"}) & names


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_takes_little_longer_than_its_messages(domain: str) -> None:
    """On a busy machine the best of several tries counts: others can make it slower, never faster."""
    messages = [name for name in loaded(domain) if name.startswith(("google.", "shop.", "twinlog.v1."))]
    assert any(name.endswith("events_pb2") for name in messages)
    whole, own = [], []
    for _ in range(TRIES):
        whole.append(seconds(domain))
        own.append(seconds(*messages))
        if (best := min(whole) - min(own)) < MAX_SECONDS:
            return
    raise AssertionError(
        f"{domain} takes {best:.3f} s longer than its messages; {MAX_SECONDS:g} s are allowed"
    )
