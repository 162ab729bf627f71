"""The ledger: two versions of a service run side by side on one log, in each step of a rolling change of its events."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from tests import mypy_cache
from tests.examples.conftest import Example, copy_of
from tests.programs import program
from twinlog.cli.reflected import pool_of
from twinlog.dev import free_port
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

_CALL_SECONDS = 60.0


@pytest.fixture
def ledger(tmp_path: Any) -> Example:
    """The ledger, with its code generated."""
    return copy_of("ledger", tmp_path)


class Account(NamedTuple):
    """What is known of an account."""

    owner: str
    currency: str
    cents: int
    fees_cents: int


class Replica:
    """A running version of the service."""

    def __init__(self, channel: grpc.aio.Channel, pool: DescriptorPool) -> None:
        self._channel = channel
        self._methods = pool.FindServiceByName("ledger.v1.AccountService").methods_by_name
        self._token = ""

    async def open(self) -> str:
        """A new account."""
        account_id = str(uuid4())
        await self._call("Open", account_id=account_id, owner="Ada")
        return account_id

    async def pay_in(self, account_id: str, euros: int) -> str:
        """Gives the consistency token."""
        return str((await self._call("PayIn", account_id=account_id, euros=euros)).consistency_token)

    async def account(self, account_id: str, token: str) -> Account:
        found = await self._call("GetAccount", account_id=account_id, consistency_token=token)
        return Account(found.owner, found.currency, found.cents, found.fees_cents)

    async def refused(self, account_id: str) -> str:
        """Why a payment is refused; empty where it is not."""
        try:
            await self.pay_in(account_id, 1)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {error.details()}"
        return ""

    async def _call(self, method: str, **fields: Any) -> Any:
        described = self._methods[method]
        request, response = GetMessageClass(described.input_type), GetMessageClass(described.output_type)
        call = self._channel.unary_unary(
            f"/ledger.v1.AccountService/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return await call(request(**fields), timeout=_CALL_SECONDS)


class Ledger:
    """The service in whichever versions are started, on one log."""

    def __init__(self, example: Example, postgres_url: str, nats_url: str, namespace: str) -> None:
        self._example = example
        self._env = {
            **example.env,
            "POSTGRES_URL": postgres_url,
            "NATS_URL": nats_url,
            "TWINLOG_NAMESPACE": namespace,
        }
        self._address = ""

    @asynccontextmanager
    async def version(self, name: str) -> AsyncIterator[Replica]:
        """A replica of this version, for the block."""
        address = f"127.0.0.1:{free_port()}"
        command, env = (sys.executable, "-m", "account_svc", name), {**self._env, "ACCOUNTS_ADDRESS": address}
        async with program(*command, env=env, cwd=self._example.folder) as replica:
            await replica.serves(address)
            with grpc.insecure_channel(address) as channel:
                pool, _ = pool_of(channel)
                pool.FindServiceByName("ledger.v1.AccountService")  # while it is there to be asked
            async with grpc.aio.insecure_channel(address) as asked:
                self._address = address
                yield Replica(asked, pool)
        print(replica.said)

    async def events(self) -> Sequence[pb.LoggedEvent]:
        """All events, as the replica that was started last tells them."""
        async with self._inspection() as asked:
            return [said.event async for said in asked.ReadLog(pb.ReadLogRequest()) if said.HasField("event")]

    async def types(self) -> set[str]:
        """Short names of the types that the log has."""
        return {each.type.rpartition(".")[2] for each in await self.events()}

    async def cents(self, account_id: str, version: int = 0) -> float:
        """What an account has, or had, by its stream."""
        async with self._inspection() as asked:
            request = pb.GetStreamRequest(stream=f"account/{account_id}", upto_version=version)
            return float((await asked.GetStream(request)).state["cents"])

    @asynccontextmanager
    async def _inspection(self) -> AsyncIterator[Any]:
        async with grpc.aio.insecure_channel(self._address) as channel:
            yield InspectionServiceStub(channel)


async def _read(process: asyncio.subprocess.Process) -> str:
    assert process.stdout
    return (await process.stdout.read()).decode()


async def test_a_rolling_change_of_events(
    ledger: Example, postgres_url: str, nats_url: str, namespace: str
) -> None:
    """Before beside during, then during beside after: nobody is refused, and all see the same."""
    running = Ledger(ledger, postgres_url, nats_url, namespace)
    async with AsyncExitStack() as second, AsyncExitStack() as third:
        async with running.version("before") as before:
            old = await before.open()
            await before.pay_in(old, 10)

            # The first step: who reads. Both write the events that both know.
            during = await second.enter_async_context(running.version("during"))
            for turn in (before, during, before):
                token = await turn.pay_in(old, 10)
            shared = await during.open()
            token = await before.pay_in(shared, 5)
            assert await running.types() == {"Opened", "Greeted", "PaidIn"}
            for each in (before, during):
                assert await each.account(old, token) == Account("Ada", "EUR", 3_600, 400)
                assert await each.account(shared, token) == Account("Ada", "EUR", 400, 100)

        # The second step, when nobody is left who does not read the new ones: who writes.
        after = await third.enter_async_context(running.version("after"))
        for turn in (after, during, after):
            token = await turn.pay_in(old, 10)
        new = await after.open()
        token = await during.pay_in(new, 7)
        for each in (during, after):
            assert await each.account(old, token) == Account("Ada", "EUR", 6_300, 700)
            assert await each.account(new, token) == Account("Ada", "EUR", 600, 100)
        await second.aclose()

        assert await running.types() == {"Opened", "Greeted", "PaidIn", "MoneyPaidIn", "FeeCharged"}
        [first, greeting, paid, *_] = await running.events()
        assert first.read_as.events[0].payload["currency"] == "EUR"
        assert greeting.HasField("read_as")
        assert [*greeting.read_as.events] == []
        assert [each.type for each in paid.read_as.events] == [
            "ledger.v1.MoneyPaidIn",
            "ledger.v1.FeeCharged",
        ]
        assert (await running.cents(old), await running.cents(old, version=3)) == (6_300, 900)


def test_it_passes_its_checks(ledger: Example) -> None:
    ledger.run("ruff", "check", "--no-cache", ".")
    ledger.run("ruff", "format", "--check", "--no-cache", ".")
    with mypy_cache.shared() as cache:
        ledger.run("mypy", "--cache-dir", cache)


async def test_written_too_early_new_events_are_refused_stream_by_stream(
    ledger: Example, postgres_url: str, nats_url: str, namespace: str
) -> None:
    """Why it takes two steps: the first version cannot go on with an account that has an event of the second."""
    running = Ledger(ledger, postgres_url, nats_url, namespace)
    async with running.version("after") as after, running.version("before") as before:
        theirs, ours = await after.open(), await before.open()
        await after.pay_in(theirs, 10)
        assert (await before.refused(theirs)).startswith("FAILED_PRECONDITION")
        assert await before.refused(ours) == ""
        assert await after.refused(ours) == await after.refused(theirs) == ""
