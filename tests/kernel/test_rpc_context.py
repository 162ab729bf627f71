"""What a call carries, over a real server."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from structlog.contextvars import get_contextvars

from shop.customers.v1.customer_service_pb2 import (
    ChangeCreditLimitRequest,
    CreateCustomerRequest,
    CreateCustomerResponse,
)
from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, GetOrderResponse
from tests.kernel.edge import Edge, echo, serving
from twinlog import InvalidArgument, Metadata
from twinlog.rpc import Checks, Context, call_metadata
from twinlog.rpc.commands import request_identity

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def metadata_of(sent: Mapping[str, str]) -> Metadata:
    """What the method of a call makes of what the client sent."""
    seen: list[Metadata] = []

    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        seen.append(call_metadata(context, "GetOrder"))
        _, trace_id, span_id, _ = (seen[-1].traceparent or "---").split("-")
        trace = {"trace_id": trace_id, "span_id": span_id} if trace_id else {}
        assert get_contextvars() == {"correlation_id": seen[-1].correlation_id, **trace}
        return await echo(request, context)

    async with serving(Edge(get)) as client:
        await client.get(metadata=sent)
    return seen[0]


async def test_what_the_client_sends_is_taken() -> None:
    assert await metadata_of(
        {"x-correlation-id": "order 7", "x-actor": "ann", "traceparent": TRACE}
    ) == Metadata("order 7", "rpc/GetOrder", TRACE, "ann")


async def test_what_it_does_not_send_is_made_up() -> None:
    metadata = await metadata_of({})

    assert UUID(metadata.correlation_id).version == 7
    assert metadata[1:] == ("rpc/GetOrder", "", "client", {})


async def test_what_begins_with_the_prefix_is_kept_under_the_rest_of_its_name() -> None:
    metadata = await metadata_of({"x-extra-tenant": "acme", "x-extra-user-id": "7", "x-other": "no"})
    assert metadata.extra == {"tenant": "acme", "user-id": "7"}


@pytest.mark.parametrize(
    "sent",
    [
        {"x-extra-": "a"},
        {"x-extra-tenant": ""},
        {"x-extra-tenant": "x" * 129},
        {"x-extra-" + "n" * 33: "a"},
        {f"x-extra-{n}": "a" for n in range(9)},
    ],
    ids=["no name", "empty", "long", "long name", "many"],
)
async def test_what_cannot_be_kept_is_refused(sent: Mapping[str, str]) -> None:
    class Context:
        def invocation_metadata(self) -> list[tuple[str, str]]:
            return list(sent.items())

        def time_remaining(self) -> None:
            return None

    with pytest.raises(InvalidArgument, match="x-extra-"):
        call_metadata(Context(), "GetOrder")


@pytest.mark.parametrize("text", ["x" * 129, ""])
async def test_what_is_malformed_is_replaced(text: str) -> None:
    metadata = await metadata_of({"x-correlation-id": text, "x-actor": "a" * 129, "traceparent": "00-1-2"})

    assert UUID(metadata.correlation_id).version == 7
    assert metadata[1:] == ("rpc/GetOrder", "", "client", {})


async def test_calls_do_not_see_each_others_correlation() -> None:
    async with serving(Edge()) as client:
        await client.get(metadata={"x-correlation-id": "one"})

    assert get_contextvars() == {}


def customer(request_id: str = ID, name: str = "Ann") -> CreateCustomerRequest:
    return CreateCustomerRequest(request_id=request_id, name=name)


def test_a_request_is_known_by_its_id_and_content() -> None:
    identity = request_identity(Checks(), customer(), CreateCustomerResponse)

    assert identity is not None
    assert identity.request_id == ID
    assert identity.reply_type is CreateCustomerResponse
    assert identity == request_identity(Checks(), customer(ID.upper()), CreateCustomerResponse)
    assert len(identity.fingerprint) == 32


def test_another_content_or_type_has_another_fingerprint() -> None:
    requests = [
        customer(),
        customer(name="Bob"),
        ChangeCreditLimitRequest(request_id=ID, customer_id="Ann"),
        CreateCustomerRequest(request_id=ID, customer_id="Ann"),
    ]
    identities = [request_identity(Checks(), request, StringValue) for request in requests]

    assert len({identity.fingerprint for identity in identities if identity}) == len(requests)


def test_reading_the_identity_leaves_the_request_as_it_is() -> None:
    request = customer()
    request_identity(Checks(), request, CreateCustomerResponse)

    assert request == customer()


def test_without_an_id_there_is_no_identity() -> None:
    assert request_identity(Checks(), customer(""), CreateCustomerResponse) is None


def test_an_id_that_is_no_uuid_is_refused_with_whatever_else_is_wrong() -> None:
    checks = Checks()
    checks.violate("name", "is missing")
    assert request_identity(checks, customer("again"), CreateCustomerResponse) is None
    with pytest.raises(InvalidArgument) as refusal:
        checks.done()

    assert list(refusal.value.violations) == ["name", "request_id"]
