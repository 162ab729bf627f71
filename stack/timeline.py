"""An order's timeline as a table: who did what because of what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.json_format import MessageToDict, ParseDict
from google.type.money_pb2 import Money as MoneyMessage
from rich.text import Text

from shop.queries.v1.order_query_service_pb2 import TimelineEntry
from stack.console import WIDTH
from stack.topology import COLORS, SERVICES
from twinlog import Money

_STYLES = {service.log: f"color({COLORS[service.name] - 30})" for service in SERVICES}
_HEADER = ("ms", "who", "did what", "event", "because of", "")


def table(entries: Sequence[TimelineEntry]) -> Iterator[Text]:
    """A header, and a line for each event."""
    yield Text(_columns(*_HEADER), style="dim")
    for entry in entries:
        after = (entry.recorded_at.ToNanoseconds() - entries[0].recorded_at.ToNanoseconds()) / 1e6
        line = _columns(
            f"{after:.1f}",
            entry.actor,
            entry.type.rpartition(".")[2],
            f"{entry.log}/{entry.position}",
            entry.cause.removeprefix("rpc/"),
            _detail(entry),
        )
        yield Text(line, style=_STYLES.get(entry.log, ""))


def _columns(after: str, who: str, what: str, event: str, cause: str, detail: str) -> str:
    return f"{after:>7}  {who:<17} {what:<23} {event:<14} {cause:<14} {detail}".rstrip()[:WIDTH]


def _detail(entry: TimelineEntry) -> str:
    """The amount or the reason, where the event has one."""
    payload = MessageToDict(entry.payload)
    for name in ("total", "amount"):
        if name in payload:
            money = Money.of(ParseDict(payload[name], MoneyMessage()))
            return str(money) if money.nanos else ""
    return str(payload.get("reason", "")).removeprefix("REJECTION_REASON_")
