import pytest
from google.type.money_pb2 import Money as MoneyMessage
from hypothesis import given
from hypothesis import strategies as st

from twinlog import Money
from twinlog.testing.internals import NANOS_PER_UNIT

MOST_NANOS = 10**15 * NANOS_PER_UNIT


@given(st.integers(-MOST_NANOS, MOST_NANOS), st.sampled_from(["EUR", "JPY"]))
def test_an_amount_survives_the_message(nanos: int, currency: str) -> None:
    money = Money(nanos, currency)

    assert Money.of(MoneyMessage.FromString(money.to_proto().SerializeToString())) == money


@given(st.integers(-MOST_NANOS, MOST_NANOS))
def test_units_and_nanos_of_a_message_have_one_sign(nanos: int) -> None:
    message = Money(nanos, "EUR").to_proto()

    assert message.units * message.nanos >= 0
    assert abs(message.nanos) < NANOS_PER_UNIT


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (12_340_000_000, "12.34 EUR"),
        (-500_000_000, "-0.50 EUR"),
        (0, "0.00 EUR"),
        (1, "0.000000001 EUR"),
    ],
)
def test_reads_as_people_write_it(nanos: int, text: str) -> None:
    assert str(Money(nanos, "EUR")) == text


def test_more_than_a_message_holds_is_an_error() -> None:
    with pytest.raises(ValueError, match="out of range"):
        Money(2**63 * NANOS_PER_UNIT, "EUR").to_proto()
