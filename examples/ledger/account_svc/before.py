"""The first version: it writes whole euros, a payment and its fee in one event, and a greeting."""

from dataclasses import replace
from typing import Any

from google.protobuf.message import Message
from twinlog import Aggregate, Events, FailedPrecondition, Recorded, View

from account_svc.parts import FEE_EUROS, Account, AccountRow, Command, Open, PayIn, Version, key
from ledger.v1.accounts_pb2 import Greeted, Opened, PaidIn


def decide(account: Account, command: Command) -> Events:
    match command:
        case Open() if account.account_id:
            return []
        case Open(account_id, owner):
            return [
                Opened(account_id=account_id, owner=owner),
                Greeted(account_id=account_id, words=f"Welcome, {owner}"),
            ]
        case PayIn() if not account.account_id:
            raise FailedPrecondition("There is no such account.")
        case PayIn(euros):
            return [PaidIn(account_id=account.account_id, euros=euros, fee_euros=FEE_EUROS)]
    return []


def evolve(account: Account, event: Message) -> Account:
    match event:
        case Opened():
            return Account(event.account_id, "EUR")
        case PaidIn():
            return replace(account, cents=account.cents + 100 * (event.euros - event.fee_euros))
    return account


def show(row: AccountRow | None, _event: Recorded, message: Any) -> AccountRow:
    row = row or AccountRow(message.account_id)
    match message:
        case Opened():
            return row._replace(owner=message.owner, currency="EUR")
        case PaidIn():
            fees = 100 * message.fee_euros
            return row._replace(
                cents=row.cents + 100 * message.euros - fees, fees_cents=row.fees_cents + fees
            )
    return row


VERSION = Version(
    Aggregate("account", Account(), decide, evolve, partition_key=lambda account: account.account_id),
    View("accounts", key, show, events=[Opened, PaidIn]),
)
