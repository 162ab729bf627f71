from base64 import urlsafe_b64encode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from twinlog import InvalidArgument
from twinlog.rpc import PageTokens
from twinlog.rpc.paging import Key

PAGES = PageTokens(b"secret")
keys = st.lists(st.text(max_size=50) | st.integers(1 - 2**63, 2**63 - 1), max_size=4).map(tuple)


def shape(key: Key) -> tuple[type, ...]:
    return tuple(map(type, key))


@given(keys, st.text())
def test_a_token_gives_back_where_the_page_ended(last: Key, filters: str) -> None:
    assert PAGES.read(PAGES.issue(filters, last), filters, shape(last)) == last


def test_no_token_is_the_first_page() -> None:
    assert PAGES.read("", "any", (int,)) is None


@given(keys, st.text(), st.text())
def test_a_token_is_good_for_its_own_filters_only(last: Key, filters: str, others: str) -> None:
    assume(filters != others)

    with pytest.raises(InvalidArgument):
        PAGES.read(PAGES.issue(filters, last), others, shape(last))


@given(st.text(min_size=1) | st.binary(min_size=1).map(lambda b: urlsafe_b64encode(b).decode()))
def test_a_forged_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        PAGES.read(token, "", (int,))

    assert list(refusal.value.violations) == ["page_token"]


@given(keys, st.data())
def test_a_token_with_any_character_changed_is_refused(last: Key, data: st.DataObject) -> None:
    token = PAGES.issue("open", last)
    at = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from("AZaz09-_=+/ \n"))
    assume(token[at] != character)

    with pytest.raises(InvalidArgument):
        PAGES.read(token[:at] + character + token[at + 1 :], "open", shape(last))


def test_another_key_refuses_the_token() -> None:
    with pytest.raises(InvalidArgument):
        PageTokens(b"another").read(PAGES.issue("", (1,)), "", (int,))


def test_a_huge_token_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        PAGES.read("A" * 100_000, "", (int,))


STRANGE = [
    "",
    "null",
    "7",
    "{}",
    '{"0": 1}',
    '"a"',
    "[]",
    "[1, 2]",
    '["1"]',
    "[true]",
    "[1.0]",
    "[null]",
    "[[1]]",
    "[NaN]",
]
STRANGE += [f"[{2**63}]", f"[{-(2**63)}]", f"[1{'0' * 1400}]", "[" * 1400, "\x00", "[1", "\ud800"]


@pytest.mark.parametrize("payload", STRANGE)
def test_a_signed_key_of_another_shape_is_refused(payload: str) -> None:
    """As another version of a service may have issued it."""
    data = payload.encode(errors="surrogatepass")
    token = urlsafe_b64encode(PAGES._mac("open", data) + data).rstrip(b"=").decode()

    with pytest.raises(InvalidArgument, match="start again without one"):
        PAGES.read(token, "open", (int,))
