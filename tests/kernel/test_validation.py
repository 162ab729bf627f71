from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.type.money_pb2 import Money as MoneyMessage
from hypothesis import given
from hypothesis import strategies as st

from shop.orders.v1.saga_mode_pb2 import SagaMode
from twinlog import InvalidArgument, Money
from twinlog.rpc import Checks, Currencies, PageTokens, validation
from twinlog.rpc.validation import MAX_UNITS, _allowed
from twinlog.testing.internals import NANOS_PER_UNIT

INVISIBLE = [
    "\u00ad",  # soft hyphen
    "\u034f",  # combining grapheme joiner
    "\u0301",  # a combining accent with nothing under it
    "\u115f",  # Hangul fillers
    "\u1160",
    "\u3164",
    "\uffa0",
    "\u180b",  # Mongolian variation selector
    "\u200b",  # zero-width space, non-joiner, joiner, mark
    "\u200c",
    "\u200d",
    "\u200e",
    "\u2060",  # word joiner
    "\u2800",  # blank of Braille
    "\ufe0f",  # variation selectors
    "\U000e0100",
    "\ufeff",  # byte order mark
    "\U0001d159",  # null notehead
    "\U000e0041",  # tag
]
UUID = "01890a5d-ac96-774b-bcce-b302099a8057"
PAGES = PageTokens(b"secret")


def violations(check: Callable[[Checks], object]) -> dict[str, str]:
    checks = Checks()
    check(checks)
    try:
        checks.done()
    except InvalidArgument as refusal:
        return refusal.violations
    return {}


def euros(units: int = 0, nanos: int = 0) -> MoneyMessage:
    return MoneyMessage(units=units, nanos=nanos, currency_code="EUR")


def test_everything_that_is_wrong_is_said_at_once() -> None:
    checks = Checks()
    checks.uuid("customer_id", "")
    checks.name("name", "")
    checks.money("total", euros(0), positive=True)

    with pytest.raises(InvalidArgument) as refusal:
        checks.done()

    assert list(refusal.value.violations) == ["customer_id", "name", "total"]


class TestUuid:
    @given(st.uuids(version=None).filter(lambda u: u.version in range(1, 9)))
    def test_any_version_comes_out_canonical(self, given_id: uuid.UUID) -> None:
        checks = Checks()

        assert checks.uuid("id", str(given_id).upper()) == str(given_id)
        checks.done()

    @pytest.mark.parametrize(
        ("value", "what"),
        [
            ("", "is missing"),
            ("garbage", "is not a UUID such as 01890a5d"),
            (UUID.replace("-", ""), "is not a UUID"),
            (UUID[:-1] + "g", "is not a UUID"),
            (UUID[:-1] + "\u0663", "is not a UUID"),
            ("00000000-0000-0000-0000-000000000000", "is not a UUID"),
            (f"{{{UUID}}}", "is 38 characters long"),
            (UUID + "\n", "is 37 characters long"),
            ("x" * 100_000, "is 100000 characters long"),
        ],
    )
    def test_what_is_wrong_is_said(self, value: str, what: str) -> None:
        [said] = violations(lambda c: c.uuid("id", value)).values()

        assert said.startswith(what)
        assert len(said) < 200

    def test_one_that_is_not_required_may_be_missing_but_not_wrong(self) -> None:
        assert violations(lambda c: c.uuid("id", "", required=False)) == {}
        assert violations(lambda c: c.uuid("id", "x", required=False)) != {}


class TestName:
    @pytest.mark.parametrize(
        "name",
        [
            *(f"A{blank}B" for blank in INVISIBLE),
            "\ue000",
            "A",
            "Zoë O\u2019Brien",
            "李小龍",
            "x" * 200,
            "می‌خواهم",
            "👩‍🚀",
            "two  spaces",
        ],
    )
    def test_is_taken_as_it_is(self, name: str) -> None:
        checks = Checks()

        assert checks.name("name", name) == name
        checks.done()

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("", "is missing"),
            ("  \t", "is missing"),
            ("x" * 201, "is 201 characters long"),
            (" Ann", "starts or ends with white space"),
            ("Ann\n", "starts or ends with white space"),
            ("An\x00n", "has control characters"),
            ("An\nn", "has control characters"),
            ("An\u2028n", "has control characters"),
            ("Ann\u202etxt", "has control characters"),
            *((blank, "has only invisible characters") for blank in INVISIBLE),
            ("".join(INVISIBLE), "has only invisible characters"),
        ],
    )
    def test_what_is_wrong_is_said(self, name: str, what: str) -> None:
        assert violations(lambda c: c.name("name", name))["name"].startswith(what)


class TestMoney:
    @given(st.integers(1, MAX_UNITS * NANOS_PER_UNIT))
    def test_an_amount_comes_out_exact(self, nanos: int) -> None:
        checks = Checks()

        assert checks.money("total", Money(nanos, "EUR").to_proto(), positive=True) == Money(nanos, "EUR")
        checks.done()

    @given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1), st.text(max_size=5))
    def test_what_passes_is_an_amount_that_survives(self, units: int, nanos: int, currency: str) -> None:
        message = MoneyMessage(units=units, nanos=nanos, currency_code=currency)
        checks = Checks()
        money = checks.money("total", message, positive=False)
        try:
            checks.done()
        except InvalidArgument:
            return

        assert money.to_proto() == message
        assert 0 <= money.nanos <= MAX_UNITS * NANOS_PER_UNIT

    @pytest.mark.parametrize(
        ("message", "field", "what"),
        [
            (MoneyMessage(), "total", "is missing"),
            (euros(0), "total", "must be more than zero"),
            (euros(-1), "total", "must be more than zero"),
            (euros(1, NANOS_PER_UNIT), "total.nanos", "must be within"),
            (euros(1, -NANOS_PER_UNIT), "total.nanos", "must be within"),
            (euros(1, -1), "total.nanos", "must have the sign of units"),
            (euros(MAX_UNITS, 1), "total.units", "must be within"),
            (euros(2**63 - 1), "total.units", "must be within"),
            (euros(-(2**63)), "total.units", "must be within"),
            (MoneyMessage(units=1), "total.currency_code", "must be three upper-case letters"),
            (MoneyMessage(units=1, currency_code="eur"), "total.currency_code", "must be three"),
            (MoneyMessage(units=1, currency_code="E" * 9999), "total.currency_code", "must be three"),
            (MoneyMessage(units=1, currency_code="EUR\n"), "total.currency_code", "must be three"),
            (MoneyMessage(units=1, currency_code="ZZZ"), "total.currency_code", "ZZZ is no ISO 4217"),
            (MoneyMessage(units=1, currency_code="XAU"), "total.currency_code", "XAU is not a currency"),
        ],
    )
    def test_what_is_wrong_is_said(self, message: MoneyMessage, field: str, what: str) -> None:
        said = violations(lambda c: c.money("total", message, positive=True))

        assert list(said) == [field]
        assert said[field].startswith(what)

    def test_zero_is_an_amount_where_it_need_not_be_positive(self) -> None:
        assert violations(lambda c: c.money("limit", euros(0), positive=False)) == {}
        assert violations(lambda c: c.money("limit", euros(-1), positive=False)) == {
            "limit": "must be zero or more"
        }


NOT_OWED = ["XAG", "XAU", "XBA", "XBB", "XBC", "XBD", "XDR", "XPD", "XPT", "XSU", "XUA"]


class TestCurrency:
    """What has "N.A." for its decimals is not owed; who has one already keeps it."""

    def test_amount_and_currency_are_said_together(self) -> None:
        wrong = MoneyMessage(units=-1, currency_code="eur")
        assert list(violations(lambda c: c.money("total", wrong, positive=True))) == [
            "total",
            "total.currency_code",
        ]

    @staticmethod
    def refused(code: str, currencies: Currencies) -> bool:
        amount = MoneyMessage(units=1, currency_code=code)
        return bool(violations(lambda c: c.money("total", amount, positive=True, currencies=currencies)))

    @pytest.mark.parametrize("code", ["EUR", "JPY", "KWD", "CLF", "XAF", "XCD", "XOF", "XPF"])
    @pytest.mark.parametrize("currencies", Currencies)
    def test_a_currency_is_one_everywhere(self, code: str, currencies: Currencies) -> None:
        assert not self.refused(code, currencies)

    @pytest.mark.parametrize("code", [*NOT_OWED, "XTS", "XXX"])
    def test_nothing_new_is_owed_in_what_is_none(self, code: str) -> None:
        assert self.refused(code, Currencies.CURRENT)
        assert not self.refused(code, Currencies.ANY)

    def test_a_withdrawn_code_goes_on_for_who_has_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert all(self.refused("DEM", each) for each in Currencies)
        monkeypatch.setattr(validation, "_WITHDRAWN", frozenset({"DEM"}))
        _allowed.cache_clear()
        try:
            refused = {each for each in Currencies if self.refused("DEM", each)}
        finally:
            monkeypatch.undo()
            _allowed.cache_clear()
        assert refused == {Currencies.CURRENT}

    def test_every_code_that_a_release_took_is_taken_where_it_exists(self) -> None:
        """After an update of iso4217: name what it lost in ``_WITHDRAWN``."""
        taken = (Path(__file__).parent / "currencies.txt").read_text().split()
        assert len(taken) == 178
        assert not [code for code in taken if self.refused(code, Currencies.ANY)]


class TestEnum:
    def test_a_known_value_passes(self) -> None:
        checks = Checks()
        value = checks.enum("saga_mode", SagaMode.SAGA_MODE_ORCHESTRATION, SagaMode)
        checks.done()

        assert value == SagaMode.SAGA_MODE_ORCHESTRATION

    def test_an_unknown_value_is_refused_with_the_known_names(self) -> None:
        said = violations(lambda c: c.enum("saga_mode", 99, SagaMode, required=False))

        assert said == {
            "saga_mode": "has no value 99; use one of SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION"
        }

    def test_unspecified_passes_only_where_it_is_not_required(self) -> None:
        assert violations(lambda c: c.enum("saga_mode", 0, SagaMode, required=False)) == {}
        assert violations(lambda c: c.enum("saga_mode", 0, SagaMode))["saga_mode"].startswith("is missing")


class TestPages:
    @pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (1000, 1000)])
    def test_a_size_is_one_to_a_thousand(self, asked: int, size: int) -> None:
        assert Checks().page_size("page_size", asked) == size

    @pytest.mark.parametrize("asked", [-1, 1001, -(2**31), 2**31 - 1])
    def test_another_size_is_refused(self, asked: int) -> None:
        said = violations(lambda c: c.page_size("page_size", asked))

        assert said == {"page_size": f"must be 1 to 1000, or 0 for 50; it is {asked}"}

    def test_a_token_is_read_or_refused_with_the_rest(self) -> None:
        checks = Checks()

        assert checks.page_token("page_token", PAGES.issue("open", (7,)), PAGES, "open", (int,)) == (7,)
        assert checks.page_token("page_token", "", PAGES, "open", (int,)) is None
        checks.done()
        assert list(violations(lambda c: c.page_token("page_token", "x", PAGES, "open", (int,)))) == [
            "page_token"
        ]

    def test_a_consistency_token_is_read_or_refused_with_the_rest(self) -> None:
        checks = Checks()

        assert checks.consistency_token("consistency_token", "orders:7", ["orders"]) == {"orders": 7}
        checks.done()
        assert list(violations(lambda c: c.consistency_token("consistency_token", "x", ["orders"]))) == [
            "consistency_token"
        ]


def test_an_age_is_a_duration_of_zero_seconds_or_more() -> None:
    checks = Checks()
    for wrong in (
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(seconds=10**9 + 1),
        Duration(nanos=10**9),
    ):
        checks.age(str(wrong), wrong)
    right = Duration(seconds=7, nanos=10**9 - 1_000)
    assert checks.age("right", right) == timedelta(seconds=7, microseconds=999_999)
    with pytest.raises(InvalidArgument) as refused:
        checks.done()
    assert len(refused.value.violations) == 4
