"""The map's layout: services with their logs, twins, consumers at the services that follow, and their views.

Four columns, from left to right as events flow. Everything is placed here, in units of the drawing; the template only
draws. A column's boxes stand in an order that keeps the lines between them short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from urllib.parse import urlencode

from twinlog.console.looks import Look, Said
from twinlog.console.rates import Rates, rate
from twinlog.v1 import inspection_pb2 as pb

WIDTH = 1016
_LOG_X, _LOG_WIDTH, _LOG_HEIGHT = 1, 234, 82
_TWIN_X, _TWIN_WIDTH, _TWIN_HEIGHT = 322, 138, 46
_GROUP_X, _GROUP_WIDTH, _GROUP_HEAD, _ROW = 548, 286, 30, 30
_VIEW_X, _VIEW_WIDTH, _VIEW_HEIGHT = 890, 125, 28
_GAP, _VIEW_GAP, _TOP = 16, 8, 24
_BEHIND = 100
"""A consumer with more events than this ahead of it is shown as behind."""


@dataclass(frozen=True)
class Box:
    """What is drawn as a rectangle: its name, its state and where it leads."""

    id: str
    name: str
    x: float
    y: float
    width: float
    height: float
    to: str
    state: str = "ok"
    """ok, warn, bad or silent."""

    @property
    def left(self) -> tuple[float, float]:
        """Where lines come in."""
        return self.x, self.y + self.height / 2

    @property
    def right(self) -> tuple[float, float]:
        """Where lines go out."""
        return self.x + self.width, self.y + self.height / 2


@dataclass(frozen=True)
class LogBox:
    box: Box
    said: Said
    log: pb.LogDescription | None
    per_second: float


@dataclass(frozen=True)
class TwinBox:
    box: Box
    twin: pb.LogDescription | None
    """As its owner tells of it, or else somebody who follows it."""
    to_copy: int


@dataclass(frozen=True)
class ConsumerBox:
    """A consumer, a row in the box of its service."""

    box: Box
    consumer: pb.ConsumerDescription
    per_second: float
    silent: bool


@dataclass(frozen=True)
class Group:
    box: Box
    rows: Sequence[ConsumerBox]


@dataclass(frozen=True)
class Line:
    """What flows from one box to another."""

    id: str
    path: str
    state: str = "ok"
    flow: str = ""
    """Empty while nothing flows; slow, or fast."""
    label: str = ""
    x: float = 0
    y: float = 0
    """Where the label is."""


@dataclass(frozen=True)
class Drawing:
    height: float
    logs: Sequence[LogBox]
    twins: Sequence[TwinBox]
    groups: Sequence[Group]
    views: Sequence[Box]
    lines: Sequence[Line]
    width: int = WIDTH


def draw(look: Look) -> Drawing:
    """The drawing of what all services said."""
    heights = [_group_height(said) for said in look.services.values() if said.consumers]
    views = sum(len(said.described.views) for said in look.services.values() if said.described)
    height = _TOP + max(
        len(look.services) * (_LOG_HEIGHT + _GAP),
        sum(heights) + _GAP * len(heights),
        views * (_VIEW_HEIGHT + _VIEW_GAP),
    )
    logs = [_log_box(look, said, y) for said, y in _spread(look.services.values(), _LOG_HEIGHT, height)]
    twins = _twins(look, logs)
    height = max([height, *(each.box.y + _TWIN_HEIGHT + _GAP / 2 for each in twins)])
    groups = _groups(look, twins, height)
    shown = _views(look, groups, height)
    return Drawing(height, logs, twins, groups, shown, [*_lines(look.rates, logs, twins, groups, shown)])


def _spread(boxes: Iterable[Said], each: float, height: float) -> Iterable[tuple[Said, float]]:
    listed = [*boxes]
    step = (height - _TOP) / max(1, len(listed))
    return [(box, _TOP + number * step + (step - each) / 2) for number, box in enumerate(listed)]


def _log_box(look: Look, said: Said, y: float) -> LogBox:
    box = Box(
        f"service-{said.service}",
        said.service,
        _LOG_X,
        y,
        _LOG_WIDTH,
        _LOG_HEIGHT,
        f"/services/{said.service}",
        said.state,
    )
    log = said.own_log
    return LogBox(box, said, log, look.rates.log(said.service, log.log) if log else 0.0)


def _twins(look: Look, logs: Sequence[LogBox]) -> list[TwinBox]:
    """One beside each log; those of logs whose owner nobody named come last."""
    found: list[TwinBox] = []
    for each in logs:
        if each.log:
            y = each.box.y + (_LOG_HEIGHT - _TWIN_HEIGHT) / 2
            found.append(_twin_box(each.log.log, each.log, y, max(0, each.log.head - each.log.last)))
    known = {each.box.name for each in found}
    foreign: dict[str, pb.LogDescription] = {}
    for said in look.services.values():
        for log in said.described.logs if said.described else ():
            if log.log not in known:
                foreign.setdefault(log.log, log)
    bottom = max((each.box.y + _TWIN_HEIGHT for each in found), default=_TOP)
    for number, (name, log) in enumerate(sorted(foreign.items())):
        found.append(_twin_box(name, log, bottom + _GAP + number * (_TWIN_HEIGHT + _GAP), 0))
    return found


def _twin_box(name: str, twin: pb.LogDescription, y: float, to_copy: int) -> TwinBox:
    broken = twin.problem or twin.holes
    state = "bad" if broken else "warn" if to_copy > _BEHIND else "ok"
    to = f"/log?{urlencode({'log': name})}"
    return TwinBox(Box(f"twin-{name}", name, _TWIN_X, y, _TWIN_WIDTH, _TWIN_HEIGHT, to, state), twin, to_copy)


def _group_height(said: Said) -> float:
    return _GROUP_HEAD + _ROW * len(said.consumers) + 6


def _groups(look: Look, twins: Sequence[TwinBox], height: float) -> list[Group]:
    at = {each.box.name: each.box.left[1] for each in twins}
    following = [said for said in look.services.values() if said.consumers]
    following.sort(key=lambda said: mean(at.get(each.log, height) for each in said.consumers))
    free = height - _TOP - sum(map(_group_height, following))
    gap = free / max(1, len(following))
    y, made = _TOP + gap / 2, list[Group]()
    for said in following:
        made.append(_group(look.rates, said, y, at))
        y += _group_height(said) + gap
    return made


def _group(rates: Rates, said: Said, y: float, at: Mapping[str, float]) -> Group:
    silent = said.silent_since is not None
    rows = sorted(said.consumers, key=lambda each: (at.get(each.log, 0.0), each.consumer))
    to = f"/services/{said.service}"
    box = Box(
        f"group-{said.service}",
        said.service,
        _GROUP_X,
        y,
        _GROUP_WIDTH,
        _group_height(said),
        to,
        "silent" if silent else "ok",
    )
    return Group(
        box,
        [
            ConsumerBox(
                Box(
                    f"consumer-{each.consumer}",
                    each.consumer.removeprefix(f"{said.service}."),
                    _GROUP_X,
                    y + _GROUP_HEAD + number * _ROW,
                    _GROUP_WIDTH,
                    _ROW,
                    f"{to}#consumer-{each.consumer}",
                    "silent" if silent else state_of(each),
                ),
                each,
                rates.consumer(said.service, each.consumer),
                silent,
            )
            for number, each in enumerate(rows)
        ],
    )


def state_of(consumer: pb.ConsumerDescription) -> str:
    """ok, warn or bad."""
    if consumer.problem:
        return "bad"
    return "warn" if consumer.dead_letters or consumer.lag > _BEHIND or not consumer.lag_known else "ok"


def _views(look: Look, groups: Sequence[Group], height: float) -> list[Box]:
    """Beside their consumers, pushed apart where they would lie on each other."""
    feeding: dict[tuple[str, str], list[float]] = {}
    for group in groups:
        for row in group.rows:
            for view in row.consumer.views:
                feeding.setdefault((group.box.name, view), []).append(row.box.left[1])
    made: list[Box] = []
    free = float(_TOP)
    for (service, view), rows in sorted(feeding.items(), key=lambda each: (mean(each[1]), each[0])):
        y = max(free, mean(rows) - _VIEW_HEIGHT / 2)
        silent = bool(look.services[service].silent_since)
        made.append(
            Box(
                f"view-{service}-{view}",
                view,
                _VIEW_X,
                y,
                _VIEW_WIDTH,
                _VIEW_HEIGHT,
                f"/views/{service}/{view}",
                "silent" if silent else "ok",
            )
        )
        free = y + _VIEW_HEIGHT + _VIEW_GAP
    over = max(0.0, free - _VIEW_GAP - height)
    return [Box(**{**vars(each), "y": each.y - over}) for each in made] if over else made


def _lines(
    rates: Rates,
    logs: Sequence[LogBox],
    twins: Sequence[TwinBox],
    groups: Sequence[Group],
    views: Sequence[Box],
) -> Iterable[Line]:
    twin_of = {each.box.name: each for each in twins}
    for each in logs:
        if each.log:
            twin = twin_of[each.log.log]
            flow = rates.twin(each.said.service, each.log.log)
            state = "silent" if each.box.state == "silent" else twin.box.state
            yield _line(f"relay-{each.log.log}", each.box.right, twin.box.left, flow, state, label=True)
    view_of = {each.id: each for each in views}
    for group in groups:
        for row in group.rows:
            if source := twin_of.get(row.consumer.log):
                id = f"flow-{row.consumer.consumer}"
                yield _line(id, source.box.right, row.box.left, row.per_second, row.box.state)
            for view in row.consumer.views:
                box = view_of[f"view-{group.box.name}-{view}"]
                id = f"rows-{row.consumer.consumer}-{view}"
                yield _line(id, row.box.right, box.left, row.per_second, row.box.state)


def _line(
    id: str,
    start: tuple[float, float],
    end: tuple[float, float],
    per_second: float,
    state: str,
    *,
    label: bool = False,
) -> Line:
    (x1, y1), (x2, y2) = start, end
    bend = (x2 - x1) * 0.5
    path = f"M{x1:.0f} {y1:.1f}C{x1 + bend:.0f} {y1:.1f} {x2 - bend:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"
    flow = "" if per_second <= 0 or state == "silent" else "slow" if per_second < 100 else "fast"
    return Line(
        id, path, state, flow, rate(per_second) if label and flow else "", (x1 + x2) / 2, (y1 + y2) / 2 - 7
    )
