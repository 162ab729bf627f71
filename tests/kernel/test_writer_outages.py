"""The writer while its store is away, loses replies or is left: who waits, who is told, and what happens once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from tests.kernel.counter import COUNTER, Add, Count
from tests.kernel.test_writer import ID, add, add_and_reply, request, writing
from tests.waiting import until
from twinlog import Schema, Transaction, Unavailable, Writer
from twinlog.log import group_commit, stall
from twinlog.log.ports import Conflict, LogSession, ReadRequest, StreamSlice
from twinlog.model.errors import Overloaded
from twinlog.testing import MemoryLog
from twinlog.testing.internals import Appended, Batch, Outcome, RandomIds, SystemClock


class Unsteady(MemoryLog):
    """A log whose openly made appends meet a rival's, and whose exclusive one loses its reply."""

    def __init__(self, committed: bool, rivals: int) -> None:
        super().__init__("counters")
        self.committed, self.rivals = committed, rivals
        self.alone = 0

    async def append(self, batch: Batch) -> Appended | Conflict:
        if batch.events and self.rivals:
            self.rivals -= 1
            async with writing(Same(self)) as rival:
                await rival.execute(add(1))
        return await super().append(batch)

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[LogSession]:
        async with super().exclusive() as session:
            yield LosesItsReply(self, session)


class Same(MemoryLog):
    """The same log, without its whims."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log.name)
        self.__dict__.update({name: value for name, value in log.__dict__.items() if name in self.__dict__})


class LosesItsReply:
    def __init__(self, log: Unsteady, session: LogSession) -> None:
        self._log, self._session = log, session
        self.load = session.load

    async def append(self, batch: Batch) -> Appended | Conflict:
        self._log.alone += 1
        if self._log.committed:
            await self._session.append(batch)
        raise Unavailable("the reply is lost")


@pytest.mark.parametrize("committed", [True, False])
async def test_a_reply_that_is_lost_while_others_are_shut_out_is_resolved(committed: bool) -> None:
    log = Unsteady(committed, rivals=3)
    async with writing(log) as writer:
        outcome = await asyncio.wait_for(writer.execute(add(10)), 60)
        assert (outcome.result.value, outcome.position) == (13, 4)
        assert (await writer.execute(add_and_reply(100), request=request(100))).result.value == 113
    assert log.alone == 1
    assert [event.version for event in log.events] == [1, 2, 3, 4, 5]
    assert ID in log.replies


class LosesItsFirst(MemoryLog):
    """A log whose first append is committed, and its reply is lost."""

    lost = False

    async def append(self, batch: Batch) -> Appended | Conflict:
        result = await super().append(batch)
        if batch.events and not self.lost:
            self.lost = True
            raise Unavailable("the reply is lost")
        return result


async def test_where_the_reply_of_several_is_lost_each_hears_its_own_position() -> None:
    log = LosesItsFirst("counters")
    async with writing(log) as writer:
        outcomes = await asyncio.wait_for(asyncio.gather(*(writer.execute(add(1)) for _ in range(3))), 60)
        assert writer.batches[3] == 1, "all in one append"
        assert [(outcome.result.value, outcome.position) for outcome in outcomes] == [(1, 1), (2, 2), (3, 3)]


async def test_a_race_that_is_lost_once_is_decided_again_without_shutting_others_out() -> None:
    log = Unsteady(committed=True, rivals=1)
    async with writing(log) as writer:
        await writer.execute(add(10))
        log.rivals = 1
        assert (await writer.execute(add(100))).result.value == 112
    assert log.alone == 0


class Unloadable(MemoryLog):
    """A log whose streams cannot be read."""

    def __init__(self, error: Exception) -> None:
        super().__init__("counters")
        self.error: Exception | None = error

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        if self.error:
            raise self.error
        return await super().load(wanted)


@pytest.mark.parametrize(
    "error", [Unavailable("away"), ZeroDivisionError("a defect")], ids=["outage", "defect"]
)
async def test_what_goes_wrong_before_the_append_is_told_to_each_caller_and_ends_nothing(
    error: Exception,
) -> None:
    log = Unloadable(error)
    async with writing(log) as writer:
        with capture_logs() as said:
            units = [writer.execute(add(1)) for _ in range(3)]
            outcomes = await asyncio.wait_for(asyncio.gather(*units, return_exceptions=True), 60)
            assert outcomes == [error] * 3
            defects = [line for line in said if line["event"] == "writer.failed"]
            assert bool(defects) == isinstance(error, ZeroDivisionError)
            log.error = None
            assert (await asyncio.wait_for(writer.execute(add(1)), 60)).result.value == 1
        told = [line["event"] for line in said if line["event"].startswith("writer.store_")]
        outage = ["writer.store_unavailable", "writer.store_available"]
        assert told == ([] if defects else outage), "once, however many batches it concerns"
        assert writer.problem is None, "or else a service that nobody calls would never be well again"


class Away(MemoryLog):
    """A log that takes nothing while it is away."""

    def __init__(self) -> None:
        super().__init__("counters")
        self.away = True
        self.asked = 0

    async def append(self, batch: Batch) -> Appended | Conflict:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        return await super().append(batch)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_FAIL_FAST_AFTER_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
async def test_while_the_store_stays_away_those_who_wait_are_told_and_newcomers_at_once() -> None:
    log = Away()
    async with writing(log) as writer:
        begun = asyncio.create_task(writer.execute(add(1)))
        await until(lambda: log.asked >= 1)
        waiting = asyncio.create_task(writer.execute(add(10)))
        with pytest.raises(Unavailable, match=r"^away$"):
            await asyncio.wait_for(waiting, 60)
        assert writer.problem == "away"
        for _ in range(3):
            before = log.asked
            with pytest.raises(Unavailable, match=r"^away$"):
                await writer.execute(add(100))
            assert log.asked == before, "nothing was waited for"
        log.away = False
        assert (await asyncio.wait_for(begun, 60)).result == Count(1, 1)
        assert (await writer.execute(add(1000))).result == Count(1001, 2)
        assert writer.problem is None


class Refuses(MemoryLog):
    """A log that takes nothing, as where somebody has added a trigger that raises."""

    refuses = True

    async def append(self, batch: Batch) -> Appended | Conflict:
        if self.refuses and batch.events:
            raise ValueError("an operator says no")
        return await super().append(batch)


async def test_a_store_that_takes_no_append_at_all_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """To its callers each is a defect, so it would look like theirs; it is over with the next commit."""
    monkeypatch.setattr(stall, "_REFUSED_SECONDS", 0.0)
    log = Refuses("counters")
    async with writing(log) as writer:
        with capture_logs() as said:
            for tried in range(7):
                assert (writer.problem is None) == (tried < 5)
                with pytest.raises(ValueError):
                    await writer.execute(add(1))
        assert writer.problem == (
            "log counters: the database has refused the last 7 appends, for ValueError: an operator says no"
        )
        assert [line["event"] for line in said].count("writer.refused") == 1
        log.refuses = False
        await writer.execute(add(1))
        assert writer.problem is None


async def test_refusals_with_commits_between_them_or_long_ago_are_nobodys_but_the_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stall, "_REFUSED_SECONDS", 0.0)
    log = Refuses("counters")
    async with writing(log) as writer:
        for tried in range(12):
            log.refuses = tried % 4 < 3
            if log.refuses:
                with pytest.raises(ValueError):
                    await writer.execute(add(1))
            else:
                await writer.execute(add(1))
            assert writer.problem is None
        log.refuses = True
        for _ in range(5):
            with pytest.raises(ValueError):
                await writer.execute(add(1))
        assert writer.problem is not None
        monkeypatch.setattr(stall, "_REMEMBERED_SECONDS", -1.0)
        assert writer.problem is None, "or else a service that nobody calls would never be well again"


async def test_a_short_outage_is_only_waited_for() -> None:
    log = Away()
    async with writing(log) as writer:
        units = [asyncio.create_task(writer.execute(add(1))) for _ in range(3)]
        await until(lambda: log.asked >= 2)
        units.append(asyncio.create_task(writer.execute(add(1))))
        log.away = False
        outcomes = await asyncio.wait_for(asyncio.gather(*units), 60)
    assert [outcome.result.value for outcome in outcomes] == [1, 2, 3, 4]


async def test_between_two_attempts_there_is_a_pause_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float, result: object = None) -> object:
        pauses.append(seconds)
        return await sleep(0, result)

    log = Away()
    async with writing(log) as writer:
        begun = asyncio.create_task(writer.execute(add(1)))
        monkeypatch.setattr(asyncio, "sleep", noted)
        while log.asked < 12:
            await sleep(0)
        assert len(pauses) == log.asked, "one after each attempt"
        monkeypatch.undo()
        log.away = False
        await asyncio.wait_for(begun, 60)
    assert all(0.02 <= pause <= 2.0 for pause in pauses[:11]), pauses
    assert min(pauses[8:11]) >= 1.0


@pytest.mark.parametrize("bound", [1, 3])
async def test_only_so_many_commands_from_outside_may_wait(bound: int) -> None:
    log = Away()
    async with Writer(
        log, schema=Schema(), clock=SystemClock(), ids=RandomIds(), max_waiting=bound
    ) as writer:

        def unit(outside: bool) -> asyncio.Task[Outcome[Count]]:
            return asyncio.create_task(writer.execute(add(1), outside=outside))

        begun = unit(outside=True)
        await until(lambda: log.asked >= 1)
        waiting = [unit(outside=True) for _ in range(bound)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=f"{bound} commands are already waiting"):
            await writer.execute(add(1), outside=True)
        waiting += [unit(outside=False) for _ in range(3)]
        log.away = False
        outcomes = await asyncio.wait_for(asyncio.gather(begun, *waiting), 60)
        assert max(outcome.result.value for outcome in outcomes) == 1 + bound + 3


async def test_units_that_wait_at_the_stop_are_told_and_leave_no_trace() -> None:
    log, decided = Away(), []

    def work(tx: Transaction) -> Count:
        decided.append(1)
        return tx.do(COUNTER, "a", Add(1))

    async with writing(log) as writer:
        begun = asyncio.create_task(writer.execute(work))
        await until(lambda: log.asked >= 1)
        waiting = [asyncio.create_task(writer.execute(work)) for _ in range(3)]
        await asyncio.sleep(0)
        before = len(decided)
    outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
    assert [str(outcome).partition(";")[0] for outcome in outcomes] == ["the server is stopping"] * 3
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len(decided) == before
    with pytest.raises(Unavailable):  # its outcome is not known: a retry of its request finds out
        await asyncio.wait_for(begun, 60)


async def test_draining_waits_for_every_unit() -> None:
    log = Away()
    async with writing(log) as writer:
        await asyncio.wait_for(writer.drain(), 60)
        units = [asyncio.create_task(writer.execute(add(1))) for _ in range(3)]
        await until(lambda: log.asked >= 1)
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0.05)
        assert not draining.done()
        log.away = False
        await asyncio.wait_for(draining, 60)
        assert all(unit.done() for unit in units)
