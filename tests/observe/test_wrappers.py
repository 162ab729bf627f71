"""What observes a log or a twin offers all that the log or twin offers.

Twinlog asks by ``isinstance`` what an adapter can do beyond its port. Since Python 3.12 that sees no method which a
wrapper passes on by name, so the wrapper's class is asked here.
"""

from __future__ import annotations

from tests.tracing.receiver import Receiver
from twinlog.log.correlated import Searching
from twinlog.log.past import FindsMoments, KeepsSnapshots, KnowsCauses
from twinlog.log.twin import Counting, Peeking, Trimming
from twinlog.memory.log import MemoryLog
from twinlog.memory.twin import MemoryTwin
from twinlog.observe.metrics.log import LogTally
from twinlog.testing import ManualClock


def test_a_wrapped_log_or_twin_can_do_all_that_the_one_inside_it_can() -> None:
    """Where a counted log kept no snapshots, the past of a long stream was folded from its beginning."""
    log, twin = MemoryLog("log"), MemoryTwin("log")
    tracing = Receiver().tracing("tests", ManualClock())
    wrapped = [
        ("counted log", log, LogTally().around(log)),
        ("traced log", log, tracing.log(log)),
        ("both", log, LogTally().around(tracing.log(log))),
        ("traced twin", twin, tracing.twin(twin)),
    ]
    ports = (KeepsSnapshots, FindsMoments, KnowsCauses, Searching, Counting, Peeking, Trimming)
    lost = [
        f"{name}: {port.__name__}"
        for name, inner, outer in wrapped
        for port in ports
        if isinstance(inner, port) and not issubclass(outer.__class__, port)
    ]
    assert not lost, lost
    assert isinstance(log, KeepsSnapshots), "otherwise this test shows nothing"
