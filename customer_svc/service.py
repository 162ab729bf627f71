"""The edge of customer_svc: a request becomes a command, an outcome becomes a response."""

from __future__ import annotations

from customer_svc.domain import CUSTOMER, ChangeCreditLimit, CreateCustomer, CustomerNotFound, EraseCustomer
from shop.customers.v1 import customer_service_pb2 as pb
from shop.customers.v1.customer_service_pb2_grpc import CustomerServiceServicer
from twinlog import FailedPrecondition, Ids, Personal
from twinlog.rpc import Checks, Commands, Context, Currencies


class PlainEvents(FailedPrecondition):
    """Events {positions} of the customers log hold the name in plain text, and would keep it; to erase the rest and be
    told of these, set accept_plain_events."""

    reason = "PLAIN_EVENTS"


class CustomerService(CustomerServiceServicer):
    """shop.customers.v1.CustomerService."""

    def __init__(self, commands: Commands, *, ids: Ids, personal: Personal) -> None:
        self._commands = commands
        self._ids = ids
        self._personal = personal

    async def CreateCustomer(
        self, request: pb.CreateCustomerRequest, context: Context
    ) -> pb.CreateCustomerResponse:
        checks = Checks()
        given = checks.uuid("customer_id", request.customer_id, required=False)
        name = checks.name("name", request.name)
        limit = checks.money("credit_limit", request.credit_limit, positive=False)
        customer_id = given or str(self._ids.uuid7())
        command = CreateCustomer(customer_id, name, limit)
        response = pb.CreateCustomerResponse(customer_id=customer_id)
        return await self._commands.do(
            request, context, checks, CUSTOMER, customer_id, command, response, new=not given
        )

    async def ChangeCreditLimit(
        self, request: pb.ChangeCreditLimitRequest, context: Context
    ) -> pb.ChangeCreditLimitResponse:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id)
        # The customer decides: only its own currency is the right one, however it came by that.
        limit = checks.money("credit_limit", request.credit_limit, positive=False, currencies=Currencies.ANY)
        command, response = ChangeCreditLimit(limit), pb.ChangeCreditLimitResponse()
        return await self._commands.do(request, context, checks, CUSTOMER, customer_id, command, response)

    async def EraseCustomer(
        self, request: pb.EraseCustomerRequest, context: Context
    ) -> pb.EraseCustomerResponse:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id)
        self._commands.check(request, checks, pb.EraseCustomerResponse)
        if not (await self._commands.state(CUSTOMER, customer_id)).exists:
            raise CustomerNotFound
        plain = self._personal.plain(await self._commands.history(CUSTOMER, customer_id))
        positions = [event.position for event in plain]
        if positions and not request.accept_plain_events:
            raise PlainEvents(positions=", ".join(map(str, positions)))
        # First the key, then the record: what is recorded is true. A crash between the two is mended by a retry.
        await self._personal.erase(customer_id)
        command, response = EraseCustomer(), pb.EraseCustomerResponse(plain_positions=positions)
        return await self._commands.do(request, context, checks, CUSTOMER, customer_id, command, response)
