"""What a simulated world does to effects: their provider is down, or answers in vain and is called again."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.dead_letters.journal import event
from twinlog import Attempt, Effects
from twinlog.testing.simulation.faults import OUTSIDE, Fault, Weather
from twinlog.testing.simulation.process import troubled

ATTEMPT = Attempt("key", 1, event(1, "a:1"))


class Mail:
    """A mail server and who calls it, in some weather."""

    def __init__(self, *faults: Fault) -> None:
        self.reached: list[str] = []
        self.noted: list[str] = []
        self.now = 0.0
        self._weather = Weather()
        effects = Effects("source", "room_svc", "mail", {StringValue: self._send})
        for fault in faults:
            self._weather.begin(fault)
        self._call = troubled(effects, self._bad, self.noted.append).rules[StringValue]

    def _bad(self, kind: str) -> bool:
        return self._weather.bad(kind, "room_svc.mail.source", self.now)

    async def _send(self, _event: StringValue, attempt: Attempt) -> None:
        self.reached.append(attempt.key)

    async def send(self, now: float) -> None:
        self.now = now
        await self._call(StringValue(value="a"), ATTEMPT)


def fault(kind: str, at: float) -> Fault:
    return Fault(at, kind, "room_svc.mail.source", seconds=2.0)


async def test_a_provider_that_is_down_is_not_reached() -> None:
    mail = Mail(fault("provider down", 1.0))
    with pytest.raises(TimeoutError, match="the provider is down"):
        await mail.send(2.0)
    assert not mail.reached
    await mail.send(3.5)
    assert mail.reached == ["key"]


async def test_a_provider_whose_answers_are_lost_is_called_again_under_the_same_key() -> None:
    mail = Mail(fault("lost answers", 1.0))
    with pytest.raises(TimeoutError, match="the answer is lost"):
        await mail.send(2.0)
    await mail.send(3.5)
    assert mail.reached == ["key", "key"]
    assert mail.noted == ["source/1: it was called, and its answer is lost"]


@pytest.mark.parametrize("second", OUTSIDE)
async def test_it_has_one_bad_time_in_a_run(second: str) -> None:
    mail = Mail(fault("provider down", 1.0), fault(second, 5.0))
    await mail.send(6.0)
    assert not mail.noted
