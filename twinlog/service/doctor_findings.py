"""What a doctor finds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from enum import Enum
from typing import NamedTuple

from nats.errors import Error as NatsError

from twinlog.model.errors import TwinlogError, Unavailable, WrongSetting
from twinlog.service.conditions import Condition
from twinlog.service.spec import ServiceSpec

SEARCH_SECONDS = 5.0
"""How long a search, such as one condition's, may take."""
_TIMEOUT_SECONDS = 10.0
_OF_A_SETTING = re.compile(r"[A-Z][A-Z_]{3,}\b")
"""How a refusal begins that is about a setting."""


class State(Enum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to be done."""
    WRONG = "wrong"
    """It has to be put right at the server, or in the program."""
    SETTING = "setting"
    """A setting has to be put right."""
    AWAY = "away"
    """A server does not answer."""


class Finding(NamedTuple):
    """What came of one check."""

    subject: str
    """What was checked."""
    state: State
    text: str
    """What is so, and what to do where something is wrong."""


async def held(spec: ServiceSpec, condition: Condition) -> Finding:
    """Whether something holds that a start checks."""
    subject = f"start of {spec.name}"
    try:
        async with asyncio.timeout(SEARCH_SECONDS):
            await condition.hold()
    except TimeoutError:
        took = (
            f"it takes more than {SEARCH_SECONDS:g} s, as where a start searches the log for what has changed"
        )
        return Finding(subject, State.NOTE, f"{condition.name}: {took}")
    except TwinlogError as error:
        return Finding(subject, state_of(error), " ".join(str(error).split()))
    return Finding(subject, State.OK, condition.name)


def state_of(error: Exception) -> State:
    """What has to be put right where a check raises this."""
    if isinstance(error, Unavailable) and not isinstance(error, WrongSetting):
        return State.AWAY
    return State.SETTING if _OF_A_SETTING.match(str(error)) else State.WRONG


async def bounded(checks: AsyncIterator[Finding], server: str) -> list[Finding]:
    """The findings of a server, up to the first that ends its checks."""
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            async for finding in checks:
                findings.append(finding)
    except TimeoutError:
        findings.append(
            Finding(server, State.AWAY, f"it did not answer in {_TIMEOUT_SECONDS:g} s; is it up?")
        )
    except WrongSetting as error:  # which is an outage once the service runs
        findings.append(Finding(server, State.SETTING, " ".join(str(error).split())))
    except Unavailable as error:
        asks = "" if str(error).endswith("?") else "; is it up, and is this its address?"
        findings.append(Finding(server, State.AWAY, f"{error}{asks}"))
    except (TwinlogError, ValueError, NatsError) as error:
        findings.append(Finding(server, State.SETTING, " ".join(str(error).split())))
    return findings
