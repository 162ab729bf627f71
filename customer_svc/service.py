"""The edge of customer_svc: a request becomes a command, an outcome becomes a response."""

from __future__ import annotations

from customer_svc.domain import CUSTOMER, ChangeCreditLimit, CreateCustomer
from shop.customers.v1 import customer_service_pb2 as pb
from shop.customers.v1.customer_service_pb2_grpc import CustomerServiceServicer
from twinlog import Ids, Transaction, Writer
from twinlog.rpc import Checks, Context, call_metadata, request_identity, tokens


class CustomerService(CustomerServiceServicer):
    """shop.customers.v1.CustomerService."""

    def __init__(self, writer: Writer, *, ids: Ids) -> None:
        self._writer = writer
        self._ids = ids

    async def CreateCustomer(
        self, request: pb.CreateCustomerRequest, context: Context
    ) -> pb.CreateCustomerResponse:
        checks = Checks()
        given = checks.uuid("customer_id", request.customer_id, required=False)
        name = checks.name("name", request.name)
        limit = checks.money("credit_limit", request.credit_limit, positive=False)
        identity = request_identity(checks, request, pb.CreateCustomerResponse)
        checks.done()
        customer_id = given or str(self._ids.uuid7())

        def create(tx: Transaction) -> pb.CreateCustomerResponse:
            tx.do(CUSTOMER, customer_id, CreateCustomer(customer_id, name, limit))
            return pb.CreateCustomerResponse(customer_id=customer_id)

        outcome = await self._writer.execute(
            create,
            metadata=call_metadata(context, "CreateCustomer"),
            request=identity,
            preload=[(CUSTOMER, given)] if given else [],
            assume_empty=[] if given else [(CUSTOMER, customer_id)],
        )
        outcome.result.consistency_token = tokens.write({"customers": outcome.position})
        return outcome.result

    async def ChangeCreditLimit(
        self, request: pb.ChangeCreditLimitRequest, context: Context
    ) -> pb.ChangeCreditLimitResponse:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id)
        limit = checks.money("credit_limit", request.credit_limit, positive=False)
        identity = request_identity(checks, request, pb.ChangeCreditLimitResponse)
        checks.done()

        def change(tx: Transaction) -> pb.ChangeCreditLimitResponse:
            tx.do(CUSTOMER, customer_id, ChangeCreditLimit(limit))
            return pb.ChangeCreditLimitResponse()

        outcome = await self._writer.execute(
            change,
            metadata=call_metadata(context, "ChangeCreditLimit"),
            request=identity,
            preload=[(CUSTOMER, customer_id)],
        )
        outcome.result.consistency_token = tokens.write({"customers": outcome.position})
        return outcome.result
