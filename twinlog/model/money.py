"""Money as the domain computes with it: whole nanos of a currency."""

from __future__ import annotations

from dataclasses import dataclass

from google.type.money_pb2 import Money as MoneyMessage

from twinlog.model.forms import WrongValue, shown

NANOS_PER_UNIT = 10**9


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount of one currency, without floats or rounding.

    Raises ValueError unless ``nanos`` is a whole number and ``currency`` a text.
    """

    nanos: int
    """Billionths of the currency's unit, of any sign and size: 12.34 is 12_340_000_000."""
    currency: str
    """ISO 4217 code."""

    def __post_init__(self) -> None:
        if type(self.nanos) is not int or type(self.currency) is not str:
            _refuse(self)

    @classmethod
    def of(cls, message: MoneyMessage) -> Money:
        """The amount in a message, unchecked; :mod:`twinlog.rpc.validation` checks what clients send."""
        made = object.__new__(cls)  # without a look at what is a number and a text already
        object.__setattr__(made, "nanos", message.units * NANOS_PER_UNIT + message.nanos)
        object.__setattr__(made, "currency", message.currency_code)
        return made

    @staticmethod
    def write(message: MoneyMessage, nanos: int, currency: str) -> None:
        """Fills in the field of a longer message, in less time than it takes to copy :meth:`to_proto` there."""
        units, rest = divmod(nanos, NANOS_PER_UNIT)
        if units < 0 and rest:  # both have the same sign
            units, rest = units + 1, rest - NANOS_PER_UNIT
        message.units, message.nanos, message.currency_code = units, rest, currency

    def to_proto(self) -> MoneyMessage:
        """The message; its units and nanos have the same sign. Raises ValueError if the units exceed 64 bits."""
        units, nanos = divmod(abs(self.nanos), NANOS_PER_UNIT)
        if self.nanos < 0:
            units, nanos = -units, -nanos
        return MoneyMessage(units=units, nanos=nanos, currency_code=self.currency)

    def __str__(self) -> str:
        units, nanos = divmod(abs(self.nanos), NANOS_PER_UNIT)
        fraction = f"{nanos:09}".rstrip("0").ljust(2, "0")
        return f"{'-' if self.nanos < 0 else ''}{units}.{fraction} {self.currency}"


def _refuse(money: Money) -> None:
    """Raises WrongValue for what is neither, nor derived from them."""
    nanos, currency = money.nanos, money.currency
    if not isinstance(nanos, int) or isinstance(nanos, bool):
        what = f"nanos is {shown(nanos)}; give billionths as a whole number: 12.34 is 12_340_000_000"
        raise WrongValue(f"Money: {what}")
    if not isinstance(currency, str):
        raise WrongValue(f"Money: currency is {shown(currency)}; give the ISO 4217 code, such as EUR")
