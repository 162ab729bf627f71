"""docs/how-to/sagas.md: its protos compile, and its Python does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stack.topology import ROOT
from twinlog import Saga, StreamId
from twinlog.log.saga_tables import SagaTableChanged, SagaVersionNeeded
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_fingerprint import differences, shape_of
from twinlog.model.saga_routing import saga_policies
from twinlog.testing import ManualClock

PAGE = (ROOT / "docs" / "how-to" / "sagas.md").read_text()
PROTO = re.search(r"```proto\n// (\S+)\n(.*?)```", PAGE, re.DOTALL)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's blocks define, one after the other."""
    assert PROTO
    path = tmp_path / PROTO[1]
    path.parent.mkdir(parents=True)
    path.write_text(PROTO[2])
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"-I{ROOT / 'protos'}"]
    subprocess.run([*protoc, f"--python_out={tmp_path}", PROTO[1]], check=True)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "trips"]:
        monkeypatch.delitem(sys.modules, name)
    found: dict[str, Any] = {}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"block {number} of the page", "exec"), found)
    return found


def test_the_page_does_what_it_says(executed: dict[str, Any]) -> None:
    sagas = executed["TRIPS"]
    assert isinstance(sagas, SagaAggregate)
    policies = saga_policies(sagas, "trip_svc", ManualClock())
    assert [each.log for each in policies] == ["trips", "rooms", "payments"]
    trip = executed["TRIP"]
    assert isinstance(trip, Saga)
    assert StreamId(sagas.name, "t1").type == "trip_saga"


def test_the_errors_on_the_page_are_those_that_come(executed: dict[str, Any]) -> None:
    (said,) = differences(shape_of(executed["TRIP"]), shape_of(executed["TRIP_2"]))
    told = SagaTableChanged(saga="trip", version=1, what=said, next=2)
    assert str(told).partition(", and give")[0].replace("version 2", "version 2, …") in PAGE
    needed = str(SagaVersionNeeded(saga="trip", version=1, count=3, instances="…"))
    assert needed.partition(" Give")[0].removesuffix("….") in PAGE
