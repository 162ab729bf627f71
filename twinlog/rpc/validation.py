"""The checks of a request's fields, before anything is decided.

Each check notes what is wrong with its field and gives the normalized value; :meth:`Checks.done` then raises once,
with all of it. The text tells the client what to send instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from functools import cache
from typing import Any, Protocol

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.type.money_pb2 import Money as MoneyMessage

from twinlog.model.errors import InvalidArgument
from twinlog.model.money import NANOS_PER_UNIT, Money
from twinlog.rpc import tokens
from twinlog.rpc.paging import Key, Page, PageTokens

MAX_NAME_LENGTH = 200
MAX_UNITS = 10**15
"""Of money, positive or negative."""
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_MAX_AGE_SECONDS = 10**9

_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_UUID_LENGTH = 36
_EXAMPLE_UUID = "01890a5d-ac96-774b-bcce-b302099a8057"
_CURRENCY = re.compile("[A-Z]{3}")
_UNWANTED_CATEGORIES = frozenset({"Cc", "Cs", "Cn", "Zl", "Zp"})
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_VISIBLE = "LNPSC"
"""The first letters of the Unicode categories of characters that show by themselves; of C, only Co (private use) does.
Marks (M) and white space (Z) need another character beside them."""
_BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0\U0001d159\U00013441\U00013442")
"""Letters and symbols by their category, blank by definition: the Hangul fillers, and the blanks of Braille, of musical
notation and of Egyptian hieroglyphs."""
_NOTHING = Money(0, "XXX")
_WITHDRAWN: frozenset[str] = frozenset()
"""Codes that a release took and that ISO 4217 has withdrawn since: what is denominated in them stays so."""


class Currencies(Enum):
    """Which codes an amount may have."""

    CURRENT = "current"
    """Of ISO 4217, with a number of decimals, which may be 0: what one can owe. Metals, units of account, the test code
    and "no currency" have "N.A." there."""
    ANY = "any"
    """Any code that a release took, XTS, XXX and withdrawn ones too, for what has its currency already; whether it is
    that one is decided later."""


class EnumType(Protocol):
    DESCRIPTOR: EnumDescriptor


class Checks:
    """Collects the violations of one request, by field."""

    def __init__(self) -> None:
        self._violations: dict[str, str] = {}
        self.normal: dict[str, str] = {}
        """By field, the normal spelling of each id that was given in another one."""

    def violate(self, field: str, what: str) -> None:
        """Notes that ``field`` is wrong; of several violations of a field, the first counts."""
        self._violations.setdefault(field, what)

    def done(self) -> None:
        """Raises :class:`InvalidArgument` if anything is wrong."""
        if self._violations:
            raise InvalidArgument(self._violations)

    def uuid(self, field: str, value: str, *, required: bool = True) -> str:
        """A UUID of RFC 9562, of any version, in lower case; empty if none is given or it is wrong."""
        if not value and not required:
            return ""
        normal = value.lower()
        if len(value) == _UUID_LENGTH and _UUID.fullmatch(normal):
            if normal != value:
                self.normal[field] = normal
            return normal
        self.violate(field, _uuid_violation(value))
        return ""

    def id(self, field: str, value: str) -> str:
        """An id of whatever form: a UUID in lower case, any other text as it is."""
        normal = normal_id(value)
        if normal != value:
            self.normal[field] = normal
        return normal

    def name(self, field: str, value: str) -> str:
        """A text for people, unchanged: 1 to 200 characters on one line, some of them visible, without white space
        around it."""
        if not value.strip():
            self.violate(field, f"is missing: give 1 to {MAX_NAME_LENGTH} characters")
        elif len(value) > MAX_NAME_LENGTH:
            self.violate(field, f"is {len(value)} characters long; at most {MAX_NAME_LENGTH} are allowed")
        elif value != value.strip():
            self.violate(field, "starts or ends with white space; leave that out")
        elif not value.isprintable() and any(map(_is_unwanted, value)):
            self.violate(field, "has control characters or line breaks; leave them out")
        elif not value.isascii() and not any(map(_shows, value)):
            self.violate(field, "has only invisible characters: give 1 to 200 that can be seen")
        return value

    def money(
        self,
        field: str,
        value: MoneyMessage,
        *,
        positive: bool,
        currencies: Currencies = Currencies.CURRENT,
    ) -> Money:
        """An amount of an ISO 4217 currency: more than zero if ``positive``, else zero or more.

        What is new takes the ``CURRENT`` ones. What belongs to something that has its currency already takes more:
        the code of what exists may have been withdrawn, or taken by a release that was less strict.
        """
        known = len(self._violations)
        if not value.ByteSize():
            self.violate(field, "is missing: give currency_code and units")
            return _NOTHING
        money = Money.of(value)
        self._amount(field, value, money)
        if len(self._violations) == known and (money.nanos < 0 or (positive and not money.nanos)):
            self.violate(field, "must be more than zero" if positive else "must be zero or more")
        self._currency(f"{field}.currency_code", value.currency_code, currencies)
        return money if len(self._violations) == known else _NOTHING

    def enum(self, field: str, value: int, kind: EnumType, *, required: bool = True) -> int:
        """A known value of an enum; zero, "unspecified", only if it is not required."""
        if value not in kind.DESCRIPTOR.values_by_number or (required and not value):
            known = ", ".join(each.name for each in kind.DESCRIPTOR.values if each.number)
            what = f"has no value {value}" if value else "is missing"
            self.violate(field, f"{what}; use one of {known}")
        return value

    def page_size(self, field: str, value: int) -> int:
        """The number of items in a page: 1 to 1000; 50 for zero."""
        if not 0 <= value <= MAX_PAGE_SIZE:
            self.violate(field, f"must be 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}; it is {value}")
        return value or DEFAULT_PAGE_SIZE

    def age(self, field: str, value: Duration) -> timedelta:
        """How long, or how long ago: 0 seconds or more."""
        if not 0 <= value.seconds <= _MAX_AGE_SECONDS or not 0 <= value.nanos < NANOS_PER_UNIT:
            self.violate(field, f"must be 0 to {_MAX_AGE_SECONDS:,} seconds, with nanos of 0 to 999,999,999")
            return timedelta()
        return timedelta(seconds=value.seconds, microseconds=value.nanos // 1_000)

    def page_token(
        self, field: str, value: str, pages: PageTokens, filters: str, shape: tuple[type, ...]
    ) -> Key | None:
        """The sort key that the previous page ended with, of these types; None for the first page."""
        try:
            return pages.read(value, filters, shape, field)
        except InvalidArgument as wrong:
            self._violations |= wrong.violations
            return None

    def page(self, request: Any, pages: PageTokens, filters: str, shape: tuple[type, ...] = (int,)) -> Page:
        """The page that ``page_size`` and ``page_token`` of a request ask for; ``filters`` names the query and its
        filters, which every page of it has; ``shape``: the types of the rows' sort keys."""
        size = self.page_size("page_size", request.page_size)
        last = self.page_token("page_token", request.page_token, pages, filters, shape)
        return Page(pages, filters, size, last)

    def consistency_token(self, field: str, value: str, logs: Collection[str]) -> dict[str, int]:
        """By log, the position that the answer must have reached; empty without a token."""
        try:
            return tokens.parse(value, logs, field)
        except InvalidArgument as wrong:
            self._violations |= wrong.violations
            return {}

    def _amount(self, field: str, value: MoneyMessage, money: Money) -> None:
        if abs(value.nanos) >= NANOS_PER_UNIT:
            self.violate(f"{field}.nanos", "must be within -999,999,999 and 999,999,999")
        elif value.units * value.nanos < 0:
            self.violate(f"{field}.nanos", "must have the sign of units")
        if abs(money.nanos) > MAX_UNITS * NANOS_PER_UNIT:
            self.violate(f"{field}.units", f"must be within {-MAX_UNITS:,} and {MAX_UNITS:,}")

    def _currency(self, field: str, code: str, allowed: Currencies) -> None:
        if not _CURRENCY.fullmatch(code):
            self.violate(field, "must be three upper-case letters such as EUR")
        elif code not in _listed() and (code not in _WITHDRAWN or allowed is Currencies.CURRENT):
            self.violate(field, f"{code} is no ISO 4217 currency")
        elif code not in _allowed(allowed):
            self.violate(field, f"{code} is not a currency that anybody can owe; use one such as EUR")


def normal_id(text: str) -> str:
    """A UUID in its normal spelling, lower case; any other text as it is."""
    normal = text.lower()
    return normal if _UUID.fullmatch(normal) else text


def refuse_nul(request: Message, data: bytes) -> None:
    """Raises InvalidArgument, which names every text of the request with a NUL character: protobuf takes them, Postgres
    refuses them, and so they can find nothing. ``data``: the request's bytes."""
    if b"\0" in data and (wrong := dict.fromkeys(_with_nul(request), "has a NUL character; leave it out")):
        raise InvalidArgument(wrong)


def _with_nul(value: Any, path: str = "") -> Iterator[str]:
    match value:
        case str() if "\0" in value:
            yield path
        case Message():
            for field, inner in value.ListFields():
                yield from _with_nul(inner, f"{path}.{field.name}".lstrip("."))
        case Sequence() if not isinstance(value, str | bytes):
            for each in value:
                yield from _with_nul(each, path)


def _uuid_violation(value: str) -> str:
    if not value:
        return f"is missing: give a UUID such as {_EXAMPLE_UUID}"
    if len(value) > _UUID_LENGTH:
        return f"is {len(value)} characters long; a UUID has {_UUID_LENGTH}, such as {_EXAMPLE_UUID}"
    return f"is not a UUID such as {_EXAMPLE_UUID}"


def _is_unwanted(character: str) -> bool:
    # Other format characters (Cf) are allowed: in some scripts, names have joiners.
    return unicodedata.category(character) in _UNWANTED_CATEGORIES or character in _BIDI_CONTROLS


def _shows(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in _VISIBLE and category not in ("Cf", "Cc") and character not in _BLANKS


@cache
def _listed() -> Mapping[str, bool]:
    """The codes of ISO 4217, and whether each has a minor unit."""
    # Importing it parses the published table, which only a check of money is worth.
    from iso4217 import raw_table

    return {code: str(row["CcyMnrUnts"]).isdigit() for code, row in raw_table.items() if code}


@cache
def _allowed(which: Currencies) -> frozenset[str]:
    match which:
        case Currencies.CURRENT:
            return frozenset(code for code, owed in _listed().items() if owed)
        case Currencies.ANY:
            return _WITHDRAWN | _listed().keys()
