"""A story as swim lanes: a lane a log, time downwards, an arrow from each cause to its effects. Only where things are.

Templates draw it twice: wide, with a box for each event, and narrow, with a dot and its name to the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twinlog.console.pending import Pending
from twinlog.console.story import Story, log_of
from twinlog.v1 import inspection_pb2 as pb

_GUTTER, _HEAD = 58, 44
_LANE_LEAST, _LANE_MOST, _WIDTH = 142, 216, 566
_PITCH, _BOX_HEIGHT, _MARGIN = 52, 38, 4
_GAP_SECONDS, _GAP_HEIGHT = 2.0, 22
_CHARACTER, _WIDEST_CHARACTER = 6.75, 8.1
"""Width of a character in a box, and in the widest of the fonts that a browser may take."""
_SMALL_CHARACTER = 5.8
"""Of the line under the name."""
_DOTS, _DOT_LANE, _DOT_PITCH = 12, 22, 42
_NARROW = 360


@dataclass(frozen=True)
class Lane:
    log: str
    service: str
    x: float
    width: float


@dataclass(frozen=True)
class Box:
    """One event, or one that is awaited."""

    id: str
    """Of what is said about the event; empty: it is awaited."""
    name: str
    """As much of it as there is room for."""
    whole: str
    under: str
    kind: str
    """event, command, saga, bad, undo; or, awaited: run, warn, bad, silent."""
    x: float
    y: float
    width: float
    height: float
    time: str
    """After the first event; empty where that is as it was for the one before."""
    squeezed: float = 0
    """The width that the name is drawn in where a wide font would not have room for it; 0: its own."""
    awaited: bool = False

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class Arrow:
    path: str
    awaited: bool = False


@dataclass(frozen=True)
class Gap:
    """A long time in which nothing happened."""

    y: float
    text: str


@dataclass(frozen=True)
class Lanes:
    lanes: Sequence[Lane]
    boxes: Sequence[Box]
    arrows: Sequence[Arrow]
    gaps: Sequence[Gap]
    width: float
    height: float


@dataclass(frozen=True)
class _Shape:
    gutter: float
    head: float
    lane: float
    pitch: float
    box_width: float
    box_height: float
    narrow: bool


def lanes(
    story: Story, kinds: Mapping[str, str], waiting: Sequence[Pending], *, narrow: bool = False
) -> Lanes:
    """Draws a story. ``kinds``: those of events, by address. ``waiting``: who has yet to do something because of it."""
    logs = [*story.lanes]
    waits = [each for each in waiting if not each.views]
    for each in waits:
        log = _own_log(story, each)
        if log not in logs:
            logs.append(log)
    shape = _narrow_shape(len(logs)) if narrow else _wide_shape(len(logs))
    drawn = [
        Lane(log, story.services.get(log, ""), shape.gutter + number * shape.lane, shape.lane)
        for number, log in enumerate(logs)
    ]
    return _Drawing(story, kinds, shape, drawn).draw(waits)


class _Drawing:
    def __init__(self, story: Story, kinds: Mapping[str, str], shape: _Shape, drawn: Sequence[Lane]) -> None:
        self._story = story
        self._kinds = kinds
        self._shape = shape
        self._lanes = drawn
        self._at = {lane.log: lane for lane in drawn}
        self._boxes: dict[str, Box] = {}
        self._last: dict[str, Box] = {}
        """By log, the lowest box."""
        self._arrows: list[Arrow] = []
        self._gaps: list[Gap] = []
        self._y = shape.head

    def draw(self, waits: Sequence[Pending]) -> Lanes:
        before: pb.LoggedEvent | None = None
        first = self._story.began.ToNanoseconds() if self._story.began else 0
        said = ""
        for event in self._story.events:
            self._gap(before, event)
            time = _offset((event.recorded_at.ToNanoseconds() - first) / 1e9)
            self._place(event, "" if time == said else time)
            said, before = time, event
        for consumer in dict.fromkeys(each.consumer for each in waits):
            self._await([each for each in waits if each.consumer == consumer])
        width = self._shape.gutter + self._shape.lane * len(self._lanes)
        return Lanes(
            self._lanes,
            [*self._boxes.values()],
            self._arrows,
            self._gaps,
            _NARROW if self._shape.narrow else width,
            self._y + 8,
        )

    def _gap(self, before: pb.LoggedEvent | None, event: pb.LoggedEvent) -> None:
        if before is None:
            return
        seconds = (event.recorded_at.ToNanoseconds() - before.recorded_at.ToNanoseconds()) / 1e9
        if seconds >= _GAP_SECONDS:
            self._gaps.append(Gap(self._y + _GAP_HEIGHT / 2 - 4, lasting(seconds)))
            self._y += _GAP_HEIGHT

    def _place(self, event: pb.LoggedEvent, time: str) -> None:
        name = event.type.rpartition(".")[2]
        box = self._box(
            log_of(event),
            anchor(event.address),
            name,
            event.address,
            self._kinds.get(event.address, "event"),
            time,
        )
        if (cause := self._boxes.get(event.cause)) is not None:
            self._arrows.append(Arrow(self._path(cause, box)))
        self._boxes[event.address] = box
        self._last[log_of(event)] = box

    def _await(self, waits: Sequence[Pending]) -> None:
        """One box for all that one consumer has yet to handle."""
        waiting = waits[0]
        log = _own_log(self._story, waiting)
        under = f"not yet at {waiting.event.address}"
        box = self._box(log, "", waiting.consumer, under, waiting.kind, "", awaited=True)
        for each in waits:
            if (cause := self._boxes.get(each.event.address)) is not None:
                self._arrows.append(Arrow(self._path(cause, box), awaited=True))
        self._boxes[f"awaited {waiting.consumer}"] = box
        self._last[log] = box

    def _box(
        self, log: str, id: str, name: str, under: str, kind: str, time: str, *, awaited: bool = False
    ) -> Box:
        shape, lane = self._shape, self._at[log]
        room = shape.box_width - 20
        shown = name if shape.narrow else cut_end(name, round(room / _CHARACTER))
        box = Box(
            id,
            shown,
            name,
            under if shape.narrow else cut_end(under, int(room / _SMALL_CHARACTER)),
            kind,
            lane.x + (lane.width - shape.box_width) / 2,
            self._y + (shape.pitch - shape.box_height) / 2,
            shape.box_width,
            shape.box_height,
            time,
            len(shown) * _CHARACTER if len(shown) * _WIDEST_CHARACTER > room else 0,
            awaited,
        )
        self._y += shape.pitch
        return box

    def _path(self, cause: Box, effect: Box) -> str:
        top, bottom = effect.y - 3, cause.y + cause.height
        if cause.x == effect.x:
            if self._last.get(self._log_at(effect)) is cause:
                return f"M{cause.middle:g} {bottom:g}V{top:g}"
            side = effect.x if not self._shape.narrow else effect.middle
            out = side - (9 if self._shape.narrow else 10)
            start, end = cause.y + cause.height / 2, effect.y + effect.height / 2
            leave = f"M{side:g} {start:g}Q{out:g} {start:g} {out:g} {start + 8:g}"
            return f"{leave}V{end - 8:g}Q{out:g} {end:g} {side - 3:g} {end:g}"
        start = cause.y + cause.height / 2
        right = effect.x > cause.x
        side = cause.x + cause.width if right else cause.x
        turn = effect.middle - 9 if right else effect.middle + 9
        return f"M{side:g} {start:g}H{turn:g}Q{effect.middle:g} {start:g} {effect.middle:g} {start + 9:g}V{top:g}"

    def _log_at(self, box: Box) -> str:
        return next(lane.log for lane in self._lanes if lane.x <= box.middle <= lane.x + lane.width)


def anchor(address: str) -> str:
    """The id of what is said about an event."""
    return "e-" + "".join(c if c.isalnum() else "-" for c in address)


def lasting(seconds: float) -> str:
    """A time that passes, short."""
    for name, unit in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _offset(seconds: float) -> str:
    if seconds < 1:
        return f"+{seconds * 1000:.0f} ms"
    return f"+{lasting(seconds)}"


def cut_end(text: str, most: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _own_log(story: Story, waiting: Pending) -> str:
    """The log of the service that is to act; its name where it is not known to own one."""
    return next(
        (log for log, service in story.services.items() if service == waiting.service), waiting.service
    )


def _wide_shape(lanes: int) -> _Shape:
    lane = min(_LANE_MOST, max(_LANE_LEAST, _WIDTH / max(1, lanes)))
    return _Shape(_GUTTER, _HEAD, lane, _PITCH, lane - 2 * _MARGIN, _BOX_HEIGHT, narrow=False)


def _narrow_shape(lanes: int) -> _Shape:
    lane = min(_DOT_LANE, 120 / max(1, lanes))
    return _Shape(4, 8, lane, _DOT_PITCH, _DOTS, _DOTS, narrow=True)
