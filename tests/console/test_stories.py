"""Stories without a browser: their order, their drawings, and who has yet to do something."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from twinlog.console import changes
from twinlog.console.answers import Answer
from twinlog.console.builds import Build, Builds
from twinlog.console.drawing import draw
from twinlog.console.lanes import Lanes, anchor, lanes, lasting
from twinlog.console.looks import Look, Said
from twinlog.console.owed import owed
from twinlog.console.pages.views import view_of
from twinlog.console.pending import Pending, by_service, pending, wants
from twinlog.console.rendering import environment
from twinlog.console.saga_diagram import diagram
from twinlog.console.services import Services
from twinlog.console.story import Story, in_order
from twinlog.console.story_view import StoryView, Told
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1 import saga_service_pb2 as sagas
from twinlog.v1 import view_service_pb2 as views

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def event(address: str, cause: str = "", after: float = 0.0, **more: Any) -> pb.LoggedEvent:
    """An event of a log, so many seconds after noon."""
    made = pb.LoggedEvent(
        address=address,
        position=int(address.rpartition("/")[2]),
        stream="order/a",
        type="shop.v1.Happened",
        cause=cause,
        event_id=address,
        **more,
    )
    made.recorded_at.FromDatetime(NOON + timedelta(seconds=after))
    return made


def addresses(events: Any) -> list[str]:
    return [each.address for each in events]


def test_events_are_told_by_time_each_after_its_cause_however_clocks_differ() -> None:
    events = [
        event("b/7", "a/1", after=-1),
        event("a/2", "b/7", after=0.2),
        event("a/1"),
        event("c/1", after=0.1),
    ]
    assert addresses(in_order(events)) == ["a/1", "b/7", "c/1", "a/2"]


def test_events_of_one_log_keep_their_order() -> None:
    events = [event("a/2", after=-3), event("a/1"), event("a/3", "a/2", after=-9)]
    assert addresses(in_order(events)) == ["a/1", "a/2", "a/3"]


STORY = Story(
    [
        event("orders/1"),
        event("sagas/1", "orders/1"),
        event("sagas/2", "orders/1"),
        event("customers/5", "sagas/2", 9),
    ],
    ["orders", "sagas", "customers"],
    {"orders": "order_svc", "sagas": "saga_orchestrator", "customers": "customer_svc"},
)


@pytest.mark.parametrize("narrow", [False, True])
def test_a_drawing_has_a_lane_a_log_and_an_arrow_to_each_effect(narrow: bool) -> None:
    drawn = lanes(STORY, {}, [], narrow=narrow)
    assert [lane.log for lane in drawn.lanes] == ["orders", "sagas", "customers"]
    assert [box.id for box in drawn.boxes] == [anchor(each.address) for each in STORY.events]
    assert len(drawn.arrows) == 3
    assert [gap.text for gap in drawn.gaps] == ["9.0 s"]
    _apart(drawn)


def _apart(drawn: Lanes) -> None:
    """Below each other, each in its lane, all inside the drawing."""
    for upper, lower in zip(drawn.boxes, drawn.boxes[1:], strict=False):
        assert upper.y + upper.height <= lower.y
    for box in drawn.boxes:
        assert any(lane.x <= box.x and box.x + box.width <= lane.x + lane.width for lane in drawn.lanes)
        assert box.y + box.height <= drawn.height


def test_who_has_yet_to_act_stands_in_a_lane_of_its_own_log() -> None:
    waits = [Pending(each, "payment_svc", "payment_svc.sagas", [], 3) for each in STORY.events[1:3]]
    view = Pending(STORY.events[2], "projector", "projector.sagas", ["sagas"], 3)
    drawn = lanes(STORY, {}, [*waits, view])
    assert drawn.lanes[-1].log == "payment_svc"
    [awaited] = [box for box in drawn.boxes if box.awaited]
    assert (awaited.whole, awaited.kind) == ("payment_svc.sagas", "run")
    assert awaited.under == "not yet at sagas/1"
    assert awaited.squeezed < awaited.width
    assert [arrow.awaited for arrow in drawn.arrows].count(True) == 2
    _apart(drawn)


async def test_what_an_event_changed_is_shown_as_it_is_told_after_an_erasure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The console learns of none: it keeps what has names for seconds, and draws again what has changed."""
    created, clock, name, asked = event("customers/1", version=1), [0.0], ["Ada"], list[float]()
    monkeypatch.setattr(changes, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    story = Story([created], ["customers"], {"customers": "customer_svc"})
    template: Any = environment().get_template("story_macros.html").module

    class Asked:
        async def ask(self, service: str, *_what: Any, **_how: Any) -> Answer[pb.GetStreamResponse]:
            asked.append(clock[0])
            change = pb.StateChange(path="name", after=f'"{name[0]}"')
            state = pb.StreamState(version=1, changes=[change])
            return Answer(service, pb.GetStreamResponse(states=[state]))

    services = Asked()

    async def page() -> str:
        found = await changes.changes_of(cast(Services, services), story.services, story.events)
        told = [Told("e", created, "customer_svc", "host:1", "", [], found["customers/1"], "event")]
        drawn = [lanes(story, {}, [], narrow=narrow) for narrow in (False, True)]
        view = StoryView(story, told, drawn[0], drawn[1], [], [])
        assert "Ada" not in template.story(view.without_states(), "Kept")
        return str(template.story(view, "Story"))

    assert "Ada" in await page()
    name[0] = "erased"
    clock[0] = 2.9
    assert "Ada" in await page()
    clock[0] = 3.1
    shown = await page()
    assert "Ada" not in shown and "erased" in shown
    assert asked == [0.0, 3.1]


def look(position: int, *, silent: bool = False, dead_letters: int = 0) -> Look:
    """customer_svc, whose consumer stands somewhere in the log of the sagas, and that log's owner."""
    consumer = pb.ConsumerDescription(
        consumer="customer_svc.sagas",
        log="sagas",
        types=["Happened"],
        routing_key="customer_svc",
        position=position,
        dead_letters=dead_letters,
    )
    owner = Said(
        "saga_orchestrator", "", pb.DescribeResponse(logs=[pb.LogDescription(log="sagas", own=True, head=9)])
    )
    customers = Said(
        "customer_svc",
        "",
        pb.DescribeResponse(logs=[pb.LogDescription(log="customers", own=True, head=4)]),
        (consumer,),
        NOON if silent else None,
        "no answer in 1.25 s" if silent else "",
    )
    return Look({"saga_orchestrator": owner, "customer_svc": customers})


def test_a_stream_whose_owner_has_never_answered_lies_inside_the_drawing() -> None:
    logs = [pb.LogDescription(log="orders", own=True), pb.LogDescription(log="customers")]
    told = Said("order_svc", "", pb.DescribeResponse(logs=logs))
    drawn = draw(Look({"order_svc": told, "customer_svc": Said("customer_svc", "", silent_since=NOON)}))
    assert [each.box.name for each in drawn.twins] == ["orders", "customers"]
    assert all(each.box.y + each.box.height < drawn.height for each in drawn.twins)


def test_a_build_that_is_not_read_leaves_its_view_as_it_is() -> None:
    consumers = (
        pb.ConsumerDescription(consumer="projector.orders", log="orders", lag_known=True),
        pb.ConsumerDescription(consumer="projector.orders@2.orders", log="orders", lag=979, dead_letters=4),
    )
    description = pb.ViewDescription(view="orders", consumers=[each.consumer for each in consumers])
    live = views.ViewBuild(state=views.VIEW_BUILD_STATE_LIVE)
    live.progress.add(consumer="projector.orders")
    shown = view_of(
        Look(),
        Said("projector", "", consumers=consumers),
        description,
        Builds("orders", [1], [Build(live)]),
    )
    assert (shown.lag, shown.dead_letters, shown.state) == (0, 0, "ok")
    assert len(shown.feeds) == 2


COMMAND = event("sagas/7", routing_key="customer_svc")


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        (COMMAND, True),
        (event("sagas/7", routing_key="order_svc"), False),
        (event("orders/7", routing_key="customer_svc"), False),
    ],
)
def test_a_consumer_wants_what_it_asked_for(other: pb.LoggedEvent, wanted: bool) -> None:
    [consumer] = look(0).services["customer_svc"].consumers
    assert wants(consumer, other) is wanted


def test_a_consumer_that_has_not_got_there_is_told_with_what_keeps_it() -> None:
    assert not pending(look(7), [COMMAND])
    [waits] = pending(look(5), [COMMAND])
    assert (waits.service, waits.kind, waits.behind) == ("customer_svc", "run", 4)
    [waits] = pending(look(5, silent=True), [COMMAND])
    assert (waits.kind, waits.silent_since, waits.problem) == ("silent", NOON, "no answer in 1.25 s")


def test_what_one_service_owes_is_told_in_one_line() -> None:
    other = event("sagas/8", routing_key="customer_svc")
    waits = pending(look(5), [COMMAND, other])
    shows = [replace(each, consumer="customer_svc.list", views=["sagas"]) for each in waits]
    aside = [replace(each, parked=True, problem=why) for each, why in zip(waits, ("a", "b"), strict=True)]
    told = by_service([*waits, *shows, *aside])
    assert [(each.first.parked, each.views, len(each.events), len(each.consumers)) for each in told] == [
        (True, [], 1, 1),
        (True, [], 1, 1),
        (False, [], 2, 1),
        (False, ["sagas"], 2, 1),
    ]
    macros: Any = environment().get_template("story_macros.html").module
    shown = str(macros.waiting(SimpleNamespace(owing=told)))
    assert shown.count("<li>") == 4
    assert shown.count("is 4 behind") == 2


ANSWER = sagas.AwaitedAnswer(
    step="reserve",
    owner="customer_svc",
    consumer="customer_svc.sagas",
    address="sagas/7",
    unknown_because="?",
)


def test_a_silent_owner_is_told_with_where_it_stood() -> None:
    told = owed(look(5, silent=True), ANSWER)
    assert told.state.kind == "silent"
    assert "no answer in 1.25 s" in told.because[0]
    assert "stood at sagas/5, so up to 4 events behind" in told.because[1]


@pytest.mark.parametrize(("position", "word"), [(5, "behind"), (7, "handled")])
def test_what_the_sagas_service_does_not_know_is_told_from_what_the_owner_says(
    position: int, word: str
) -> None:
    assert owed(look(position), ANSWER).state.word == word


def test_without_its_owner_it_is_told_why_nothing_is_known() -> None:
    told = owed(Look(), ANSWER)
    assert (told.state.word, told.because) == ("not known", ["?"])


def test_a_table_is_drawn_with_groups_below_each_other_and_the_way_back() -> None:
    steps = [
        pb.SagaTableStep(name="hold room", can_be_undone=True, undo="v1.FreeRoom"),
        pb.SagaTableStep(name="authorize", group="hold room", can_be_undone=True),
        pb.SagaTableStep(name="agrees", kind=pb.SAGA_STEP_KIND_SIGNAL),
        pb.SagaTableStep(name="capture", no_return=True),
    ]
    steps[0].group = "hold room"
    table = pb.SagaTable(saga="trip", steps=steps, on_compensated=pb.SagaTableStep(name="tell"))
    saga = sagas.Saga(steps=[sagas.SagaStep(name="hold room", status=sagas.SAGA_STEP_STATUS_DONE)])
    drawn = diagram(table, saga)
    named = {node.whole: node for node in drawn.nodes}
    assert named["hold room"].x == named["authorize"].x
    assert named["hold room"].y + named["hold room"].height < named["authorize"].y
    assert named["hold room"].state.kind == "ok"
    assert named["agrees"].under == "waits for a person"
    assert {"undo: FreeRoom", "tell", "compensated", "completed"} <= named.keys()
    assert drawn.pivot is not None
    assert named["capture"].x < drawn.pivot < named["completed"].x
    for node in drawn.nodes:
        assert 0 <= node.x <= drawn.width - node.width
        assert 0 <= node.y <= drawn.height - node.height
        others = [other for other in drawn.nodes if other is not node]
        assert not any(_overlap(node, other) for other in others), node.whole


def _overlap(one: Any, other: Any) -> bool:
    return bool(
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.04, "2.0 s"), (61, "61 s"), (130, "2 min"), (90_000, "25 h"), (180_000, "2 d")]
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert lasting(seconds) == text
