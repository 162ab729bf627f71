import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinlog import InvalidArgument
from twinlog.rpc import tokens

LOGS = ("orders", "customers", "sagas")


@given(st.dictionaries(st.sampled_from(LOGS), st.integers(0, 2**63 - 1)))
def test_a_token_gives_back_its_positions(positions: dict[str, int]) -> None:
    assert tokens.parse(tokens.write(positions), LOGS) == positions


def test_reads_as_it_is_meant() -> None:
    assert tokens.write({"orders": 17, "customers": 4}) == "customers:4,orders:17"
    assert tokens.write({}) == ""


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    try:
        positions = tokens.parse(text, LOGS)
    except InvalidArgument as refusal:
        assert list(refusal.violations) == ["consistency_token"]
    else:
        assert tokens.parse(tokens.write(positions), LOGS) == positions


@pytest.mark.parametrize(
    "token",
    [
        "orders",
        "orders:",
        "orders:-1",
        "orders:01",
        "orders:1.5",
        "orders:\u0661",
        "orders:9223372036854775808",
        "orders:1,",
        "orders:1,orders:2",
        " orders:1",
        "orders:1\n",
        ",".join(["orders:1"] * 1000),
    ],
)
def test_garbage_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        tokens.parse(token, LOGS)

    assert "pass it unchanged" in refusal.value.violations["consistency_token"]


def test_an_unknown_log_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="than customers, orders, sagas"):
        tokens.parse("invoices:1", LOGS)
