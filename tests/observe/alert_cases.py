"""For each alert: series that make it fire, series that do not, and whom it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Case(NamedTuple):
    """Series in promtool's notation: a begin, then steps of 15 seconds."""

    alert: str
    firing: Mapping[str, str]
    quiet: Mapping[str, str]
    labels: Mapping[str, str]
    """Of the alert that fires, besides its severity."""
    summary: str


_AT = 'instance="a:1", job="order_svc"'
_ON = {"instance": "a:1", "job": "order_svc"}
_JOB = {"job": "order_svc"}
_CONSUMER = 'consumer="order_svc.sagas", log="sagas"'
_OF = {"job": "order_svc", "consumer": "order_svc.sagas", "log": "sagas"}
_LOG = {"job": "order_svc", "log": "orders"}


def _gauge(name: str, more: str, firing: str, quiet: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    series = f"{name}{{{', '.join(filter(None, (_AT, more)))}}}"
    return {series: firing}, {series: quiet}


CASES: Sequence[Case] = (
    Case(
        "TwinlogDown",
        {f"up{{{_AT}}}": "1x10 0x80", f"twinlog_up{{{_AT}}}": "1x10"},
        {f"up{{{_AT}}}": "1x90", f"twinlog_up{{{_AT}}}": "1x90", 'up{job="another", instance="b:1"}': "0x90"},
        _ON,
        "order_svc at a:1 is down, or Prometheus does not reach it.",
    ),
    Case(
        "TwinlogHangs",
        *_gauge("twinlog_up", "", "0x90", "1x90"),
        _ON,
        "The event loop of order_svc at a:1 does not answer.",
    ),
    Case(
        "TwinlogNotServing",
        *_gauge("twinlog_serving", "", "0x90", "1x90"),
        _ON,
        "order_svc at a:1 is NOT_SERVING.",
    ),
    Case(
        "TwinlogConsumerBehind",
        *_gauge("twinlog_consumer_lag_seconds", _CONSUMER, "90x90", "29x90"),
        _OF,
        "order_svc.sagas is 1m 30s behind log sagas.",
    ),
    Case(
        "TwinlogConsumerStopped",
        *_gauge("twinlog_consumer_stopped", _CONSUMER, "1x90", "0x90"),
        _OF,
        "order_svc.sagas is held up by an outage or a fault.",
    ),
    Case(
        "TwinlogRelayNotCopying",
        *_gauge("twinlog_relay_lag_seconds", 'log="orders"', "60x90", "9x90"),
        _LOG,
        "Events of log orders have not been copied into its stream for 1m 0s.",
    ),
    Case(
        "TwinlogChainStopped",
        {
            f'twinlog_log_position_events{{{_AT}, log="orders"}}': "100+0x90",
            f'twinlog_chain_position_events{{{_AT}, log="orders"}}': "93+0x90",
        },
        {  # behind, as while an import is sealed, but it goes on
            f'twinlog_log_position_events{{{_AT}, log="orders"}}': "1000+0x90",
            f'twinlog_chain_position_events{{{_AT}, log="orders"}}': "1+1x90",
        },
        _LOG,
        "The last 7 events of log orders are not in its chain.",
    ),
    Case(
        "TwinlogEventsParked",
        *_gauge("twinlog_consumer_dead_letters", _CONSUMER, "3x90", "0x90"),
        _OF,
        "order_svc.sagas has set 3 events of log sagas aside.",
    ),
    Case(
        "TwinlogSagaNeedsAttention",
        *_gauge("twinlog_sagas", 'saga="credit", status="NEEDS_ATTENTION"', "2x90", "0x90"),
        {"job": "order_svc", "saga": "credit"},
        "2 sagas credit wait for an operator.",
    ),
    Case(
        "TwinlogAppendWaiting",
        *_gauge("twinlog_writer_oldest_append_seconds", 'log="orders"', "60x90", "0.5x90"),
        {**_ON, "log": "orders"},
        "The oldest append to log orders has been waiting for 1m 0s.",
    ),
    Case(
        "TwinlogTimersLate",
        *_gauge("twinlog_timer_oldest_due_seconds", 'log="orders"', "60x90", "3x90"),
        _LOG,
        "The oldest timer of log orders has been due for 1m 0s.",
    ),
    Case(
        "TwinlogStreamUnreadable",
        *_gauge("twinlog_unreadable_streams", 'log="orders"', "1x90", "0x90"),
        {**_ON, "log": "orders"},
        "order_svc cannot read 1 streams of log orders.",
    ),
    Case(
        "TwinlogLeaseNotRenewed",
        *_gauge("twinlog_signal_problem", 'signal="leases"', "1x90", "0x90"),
        _ON,
        "A lease that order_svc waits for is neither renewed nor given up.",
    ),
    Case(
        "TwinlogClockOff",
        *_gauge("twinlog_clock_ahead_seconds", "", "-120x90", "-0.5x90"),
        _ON,
        "The clock of a:1 and its database's differ by 2m 0s.",
    ),
    Case(
        "TwinlogOverloaded",
        *_gauge("twinlog_rpc_calls_total", 'method="m", reason="OVERLOADED"', "0+15x90", "7x90"),
        _JOB,
        "order_svc refuses 1 calls a second, because more is asked for than it can do.",
    ),
    Case(
        "TwinlogEventLoopSlow",
        {
            f'twinlog_event_loop_lag_seconds_bucket{{{_AT}, le="1.0"}}': "0x90",
            f'twinlog_event_loop_lag_seconds_bucket{{{_AT}, le="+Inf"}}': "0+10x90",
        },
        {
            f'twinlog_event_loop_lag_seconds_bucket{{{_AT}, le="0.01"}}': "0+10x90",
            f'twinlog_event_loop_lag_seconds_bucket{{{_AT}, le="+Inf"}}': "0+10x90",
        },
        _ON,
        "The event loop of order_svc at a:1 is late by 1s.",
    ),
    Case(
        "TwinlogScrapeIncomplete",
        *_gauge("twinlog_scrape_failures", 'concern="consumers"', "1x90", "0x90"),
        {**_ON, "concern": "consumers"},
        "order_svc cannot tell its metrics of consumers.",
    ),
)
