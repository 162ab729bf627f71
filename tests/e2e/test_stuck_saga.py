"""docs/how-to/stuck-saga.md, command by command, with the real grpcurl and a saga that is stuck."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from saga_orchestrator.credit_saga import saga_id
from shop.orders.v1.order_pb2 import ORDER_STATE_REJECTED, REJECTION_REASON_ABORTED
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from stack.topology import ROOT
from tests.e2e.client import Client
from tests.e2e.test_grpcurl import grpcurl
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="package")

COMMANDS = re.findall(
    r"^\$ grpcurl -plaintext (.*)$", (ROOT / "docs/how-to/stuck-saga.md").read_text(), re.MULTILINE
)


async def follow(client: Client, word: str, saga: str, **changes: str) -> Any:
    """What the page's one command with a word in it answers, for a saga of this shop."""
    [command] = [command for command in COMMANDS if word in command]
    command = command.replace("127.0.0.1:50053", client.shop.sagas).replace("'$SAGA'", saga)
    for before, after in changes.items():
        command = command.replace(before, after)
    answer = await grpcurl(*shlex.split(command))
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


async def test_a_stuck_saga_is_found_explained_and_brought_on(client: Client) -> None:
    customer = await client.customer("1000")
    async with client.without("customer_svc"):
        created = await client.create(customer, "1", SAGA_MODE_ORCHESTRATION)
        saga = saga_id(created.order_id)

        async def is_listed() -> bool:
            found = await follow(client, "SAGA_STATUS_RUNNING", saga, **{"60s": "0s"})
            return saga in {each["saga_id"] for each in found.get("sagas", [])}

        await until(is_listed)
        await follow(client, "SAGA_STATUS_NEEDS_ATTENTION", saga)
        [awaited] = (await follow(client, "/GetSaga", saga))["saga"]["awaited"]
        assert (awaited["owner"], awaited["consumer"]) == ("customer_svc", "customer_svc.sagas")
        assert f"customer_svc at {client.shop.customers} does not answer" in awaited["unknown_because"]
        planned = await follow(client, "dry_run", saga)
        assert saga in {outcome["saga_id"] for outcome in planned["outcomes"] if "problem" not in outcome}
        assert (await follow(client, "its service is back", saga))["applied"] == 1
        assert (await follow(client, "the customer gave up", saga))["applied"] == 1

    async def rejected() -> bool:
        order = await client.get(created.order_id, created.consistency_token)
        return order.state == ORDER_STATE_REJECTED and order.rejection_reason == REJECTION_REASON_ABORTED

    await until(rejected)
