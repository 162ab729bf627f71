"""The edge and the wiring, the same for all versions."""

from collections.abc import Mapping

from twinlog import (
    Address,
    Aggregate,
    NotFound,
    PostgresViews,
    ServiceSpec,
    Settings,
    Shutdown,
    Transaction,
    ViewStore,
    load,
    open_service,
)
from twinlog.rpc import Checks, Commands, Context, ReadModel

from account_svc.parts import Account, AccountRow, Command, Open, PayIn, Version
from ledger.v1 import accounts_pb2 as pb
from ledger.v1.accounts_pb2_grpc import AccountServiceServicer, add_AccountServiceServicer_to_server

PACKAGE = "account_svc.sql"
ROWS: Mapping[str, type] = {"accounts": AccountRow}


class AccountSettings(Settings):
    accounts_address: Address = "127.0.0.1:50071"
    """Where account_svc serves."""


class AccountNotFound(NotFound):
    """There is no such account."""

    reason = "ACCOUNT_NOT_FOUND"


def spec(version: Version) -> ServiceSpec:
    return ServiceSpec(
        name="account_svc",
        log="accounts",
        database="ledger_accounts",
        domain="ledger",
        settings=AccountSettings,
        address="accounts_address",
        aggregates=(version.account,),
        schema=version.schema,
        migrations=(PACKAGE,),
    )


class AccountService(AccountServiceServicer):
    def __init__(self, version: Version, commands: Commands, reads: ReadModel, views: ViewStore) -> None:
        self._account: Aggregate[Account, Command] = version.account
        self._accounts = version.accounts
        self._commands = commands
        self._reads = reads
        self._views = views

    async def Open(self, request: pb.OpenRequest, context: Context) -> pb.Done:
        checks = Checks()
        account_id = checks.uuid("account_id", request.account_id)
        command = Open(account_id, checks.name("owner", request.owner))
        return await self._execute(request, context, checks, account_id, command)

    async def PayIn(self, request: pb.PayInRequest, context: Context) -> pb.Done:
        checks = Checks()
        account_id = checks.uuid("account_id", request.account_id)
        if request.euros <= 0:
            checks.violate("euros", "has to be more than 0")
        return await self._execute(request, context, checks, account_id, PayIn(request.euros))

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.Account:
        checks = Checks()
        account_id = checks.uuid("account_id", request.account_id)
        await self._reads.fresh(checks, request, context)
        row = (await self._views.rows(self._accounts, [account_id])).get(account_id)
        if row is None:
            raise AccountNotFound
        return pb.Account(**row._asdict())

    async def _execute(
        self,
        request: pb.OpenRequest | pb.PayInRequest,
        context: Context,
        checks: Checks,
        account_id: str,
        command: Command,
    ) -> pb.Done:
        def work(tx: Transaction) -> pb.Done:
            tx.do(self._account, account_id, command)
            return pb.Done()

        return await self._commands.execute(request, context, checks, work, pb.Done)


async def serve(version: Version, shutdown: Shutdown) -> None:
    async with open_service(spec(version), load(AccountSettings), shutdown) as service:
        views = PostgresViews(service.log, PACKAGE, ROWS)
        reads = ReadModel(service, views, {"accounts": [version.accounts]}, name="views")
        reads.subscribe()
        edge = AccountService(version, Commands(service.log, service.writer), reads, views)
        await service.serve((edge, add_AccountServiceServicer_to_server, "ledger.v1.AccountService"))
