"""Changed copies are what ``dataclasses.replace`` makes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from twinlog.model.changing import changed
from twinlog.model.saga import Awaited, SagaInstance, SagaStatus, StepState

INSTANCE = SagaInstance(
    SagaStatus.RUNNING, 2, None, (StepState.RUNNING, StepState.WAITING), (Awaited(0),), reason="none yet"
)


@pytest.mark.parametrize(
    "changes", [{}, {"reason": "late"}, {"awaited": (), "steps": (StepState.DONE,) * 2, "aborted": True}]
)
def test_a_copy_has_the_changes_and_all_else(changes: dict[str, object]) -> None:
    copy = changed(INSTANCE, **changes)  # type: ignore[arg-type]
    assert copy == replace(INSTANCE, **changes)  # type: ignore[arg-type]
    assert copy is not INSTANCE
    assert INSTANCE.reason == "none yet"


def test_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError, match="reasons"):
        changed(INSTANCE, reasons="late")  # type: ignore[call-arg]
