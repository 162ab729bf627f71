"""What `make run` prints once everything is up."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from stack.console import console, say
from stack.shop import Shop
from stack.topology import ROOT
from twinlog.dev import EmbeddedNats, EmbeddedPostgres


async def stay_up(shop: Shop) -> None:
    """Prints the addresses and commands to try, then waits until it is canceled."""
    say("\n[bold]Up.[/] Ctrl-C stops everything.\n")
    if shop.console:
        say(f"  [bold]{'Make an order, and watch it:':<28} {shop.console}/try[/]")
        say(f"  {'All that runs:':<28} {shop.console}\n")
    for what, where in _addresses(shop).items():
        say(f"  {what:<28} {where}")
    say("\nIn another terminal, one after the other:\n")
    for purpose, command in commands(shop):
        say(f"[dim]# {purpose}[/]")
        console.print(command, markup=False)
    say()
    await asyncio.get_running_loop().create_future()


def commands(shop: Shop) -> Sequence[tuple[str, str]]:
    """A walk through the shop: the purpose of each command, and the command for a shell. Every call makes new ids."""
    customer_id, order_id = str(uuid4()), str(uuid4())
    customer = {"customer_id": customer_id, "name": "Ada Lovelace", "credit_limit": _euros(15)}
    order = {"order_id": order_id, "customer_id": customer_id, "total": _euros(12, 340_000_000)}
    by_id = {"order_id": order_id}
    orders, queries = "shop.orders.v1.OrderService", "shop.queries.v1.OrderQueryService"
    return [
        (
            "create a customer",
            _call(shop.customers, "shop.customers.v1.CustomerService/CreateCustomer", customer),
        ),
        (
            "let saga_orchestrator run the sagas of new orders; SAGA_MODE_CHOREOGRAPHY leaves them to the services",
            _call(shop.orders, f"{orders}/SetSagaMode", {"saga_mode": "SAGA_MODE_ORCHESTRATION"}),
        ),
        ("create an order", _call(shop.orders, f"{orders}/CreateOrder", order)),
        ("get it", _call(shop.queries, f"{queries}/GetOrder", by_id)),
        ("watch it until its saga has ended", _call(shop.queries, f"{queries}/WatchOrder", by_id)),
        (
            "its timeline: who did what because of what",
            _call(shop.queries, f"{queries}/GetOrderTimeline", by_id),
        ),
        ("its saga, step by step", _call(shop.sagas, "shop.sagas.v1.SagaService/GetSaga", by_id)),
        (
            "the events that customer_svc could not handle; every service has such a list",
            _call(shop.customers, "twinlog.v1.DeadLetterService/ListDeadLetters", {}),
        ),
    ]


def _addresses(shop: Shop) -> dict[str, str]:
    return {
        **shop.addresses,
        **{
            f"metrics of {name.removeprefix('twinlog.')}": f"http://{at}/metrics"
            for name, at in shop.metrics.items()
        },
        "Postgres": _shown(shop.postgres) if shop.postgres else "yours (POSTGRES_URL)",
        "NATS": _shown(shop.nats) if shop.nats else "yours (NATS_URL)",
    }


def _shown(server: EmbeddedPostgres | EmbeddedNats) -> str:
    """A server's URL without the password, which this user's files alone hold."""
    url = urlsplit(server.url)
    kept = _relative(server.folder / "password")
    return f"{url.scheme}://{url.username}@{url.hostname}:{url.port}, its password is in {kept}"


def _relative(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _call(address: str, method: str, request: dict[str, Any]) -> str:
    return shlex.join([_grpcurl(), "-plaintext", "-d", json.dumps(request), address, method])


def _grpcurl() -> str:
    """The one on the PATH, else the one in this environment."""
    here = Path(sys.executable).with_name("grpcurl")
    return str(here) if here.exists() and not shutil.which("grpcurl") else "grpcurl"


def _euros(units: int, nanos: int = 0) -> dict[str, Any]:
    return {"currency_code": "EUR", "units": units, "nanos": nanos}
