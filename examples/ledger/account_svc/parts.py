"""What does not change: states, commands, rows, and what a version of the service is made of."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from twinlog import Aggregate, Schema, View


@dataclass(frozen=True, slots=True)
class Account:
    account_id: str = ""
    currency: str = ""
    cents: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    account_id: str
    owner: str


@dataclass(frozen=True, slots=True)
class PayIn:
    euros: int


Command = Open | PayIn


class AccountRow(NamedTuple):
    """The columns of table `accounts`, in its order."""

    account_id: str
    owner: str = ""
    currency: str = ""
    cents: int = 0
    fees_cents: int = 0


FEE_EUROS = 1


@dataclass(frozen=True)
class Version:
    """A version of the service."""

    account: Aggregate[Account, Command]
    accounts: View[AccountRow]
    schema: Schema = field(default_factory=Schema)


def key(_event: Any, message: Any) -> str:
    return str(message.account_id)
