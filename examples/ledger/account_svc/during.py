"""The second version, first half: it reads old and new events, and goes on writing the old ones.

So replicas of the first version can run beside it, and it can be rolled back.
"""

from dataclasses import replace
from typing import Any

from google.protobuf.message import Message
from twinlog import Aggregate, Recorded, Schema, Upcast, View

from account_svc import before
from account_svc.parts import Account, AccountRow, Version, key
from ledger.v1.accounts_pb2 import Greeted, Opened, PaidIn
from ledger.v1.today_pb2 import FeeCharged, MoneyPaidIn


def in_cents(old: PaidIn) -> list[Message]:
    """A payment and its fee are two events today."""
    return [
        MoneyPaidIn(account_id=old.account_id, cents=100 * old.euros),
        FeeCharged(account_id=old.account_id, cents=100 * old.fee_euros),
    ]


SCHEMA = Schema(
    [
        Upcast.default(Opened, currency="EUR"),
        Upcast.split(PaidIn, [MoneyPaidIn, FeeCharged], in_cents),
        Upcast.drop(Greeted),
    ]
)


def evolve(account: Account, event: Message) -> Account:
    match event:
        case Opened():
            return Account(event.account_id, event.currency)
        case MoneyPaidIn():
            return replace(account, cents=account.cents + event.cents)
        case FeeCharged():
            return replace(account, cents=account.cents - event.cents)
    return account


def show(row: AccountRow | None, _event: Recorded, message: Any) -> AccountRow:
    row = row or AccountRow(message.account_id)
    match message:
        case Opened():
            return row._replace(owner=message.owner, currency=message.currency)
        case MoneyPaidIn():
            return row._replace(cents=row.cents + message.cents)
        case FeeCharged():
            return row._replace(cents=row.cents - message.cents, fees_cents=row.fees_cents + message.cents)
    return row


VERSION = Version(
    Aggregate("account", Account(), before.decide, evolve, partition_key=lambda account: account.account_id),
    View("accounts", key, show, events=[Opened, MoneyPaidIn, FeeCharged]),
    SCHEMA,
)
