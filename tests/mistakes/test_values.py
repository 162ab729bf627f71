"""Values that a program makes as it runs: what is none is refused where it is made, by name, with what to give."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import twinlog
from tests.dead_letters.journal import JOURNAL
from twinlog import Abort, Backoff, Metadata, Money, Retry, Skip, Step, StreamId, on

_NOW, _NAIVE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1)
untyped: Any = twinlog
REFUSED: Mapping[str, tuple[Callable[[], object], str]] = {
    "Money of a float": (lambda: untyped.Money(12.34, "EUR"), "nanos is 12.34; give billionths as a whole"),
    "Money of no number": (lambda: untyped.Money(float("nan"), "EUR"), "nanos is nan; give billionths"),
    "Money of a Decimal": (lambda: untyped.Money(Decimal(1), "EUR"), "nanos is a Decimal; give billionths"),
    "Money of a text": (lambda: untyped.Money("12", "EUR"), "nanos is '12'; give billionths"),
    "Money of a truth": (lambda: untyped.Money(True, "EUR"), "nanos is True; give billionths"),
    "Money without a currency": (lambda: untyped.Money(12, None), "currency is None; give the ISO 4217 code"),
    "a stream of a number": (lambda: untyped.StreamId("order", 7), "StreamId: id is 7; give a text"),
    "a stream of a UUID": (
        lambda: untyped.StreamId("order", UUID(int=0)),
        "StreamId: id is an? UUID; give a text",
    ),
    "a stream without an id": (lambda: StreamId("order", ""), "StreamId: id is ''; give a text"),
    "a stream without a type": (lambda: StreamId("", "7"), "StreamId: type is ''; give a text"),
    "a stream of an aggregate": (lambda: untyped.StreamId(JOURNAL, "7"), "type is an Aggregate; give a text"),
    "an actor that is a number": (lambda: untyped.Metadata(actor=5), "Metadata: actor is 5; give a text"),
    "a cause that is none": (lambda: untyped.Metadata("a", None), "Metadata: causation_id is None; give"),
    "extra in a list": (lambda: untyped.Metadata(extra=["x"]), "Metadata: extra is a list; give a mapping"),
    "extra of a number": (lambda: untyped.Metadata(extra={"tenant": 5}), "Metadata: extra has 5; give texts"),
    "a command for a text": (
        lambda: untyped.on("journal", "7"),
        "on: the aggregate is 'journal'; give an Agg",
    ),
    "a command for a class": (
        lambda: untyped.on(Money, "7"),
        "on: the aggregate is the class Money; give an",
    ),
    "an order at no time": (lambda: untyped.Retry("why", None), "Retry: now is None; give a datetime with"),
    "an order without a zone": (
        lambda: Skip("why", _NAIVE),
        "Skip: now is .*; give a datetime with a time zone",
    ),
    "an order without a reason": (lambda: untyped.Abort(None, _NOW), "Abort: reason is None; give a text"),
    "an order for a number": (lambda: untyped.Retry("why", _NOW, 2), "Retry: step is 2; give a text"),
    "a backoff of seconds": (lambda: untyped.Backoff(5), "Backoff: first is 5; give a timedelta"),
    "a step with a deadline in seconds": (
        lambda: untyped.Step("pay", deadline=5),
        "step 'pay': deadline is 5",
    ),
}


def test_what_is_no_value_is_refused_where_it_is_made() -> None:
    wrong = []
    for what, (make, words) in REFUSED.items():
        try:
            make()
            wrong.append(f"{what}: is taken")
        except ValueError as error:
            wrong += [] if re.search(words, str(error)) else [f"{what}: {error}"]
    assert not wrong, "\n".join(wrong)


def test_what_is_a_value_stays_one() -> None:
    """However it is copied; and what derives from a text or a number is one."""

    class Code(str):
        """As an enumeration of texts has them."""

    values = [
        Money(-1, "EUR"),
        Money(0, Code("EUR")),
        StreamId("order", Code("7")),
        Metadata("a", extra={"tenant": "north"}),
        on(JOURNAL, "7"),
        Retry("why", _NOW),
        Skip("why", _NOW, "pay"),
        Abort("", _NOW),
        Backoff(),
    ]
    for value in values:
        assert copy.deepcopy(value) == value
        assert repr(value).startswith(type(value).__name__)
    for value in (StreamId("order", "7"), Metadata("a")):
        assert pickle.loads(pickle.dumps(value)) == value
        assert type(value._replace()) is type(value)
    assert Step("pay", done=type(Money(1, "EUR").to_proto())).name == "pay"
