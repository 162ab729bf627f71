"""A saga's table as a drawing, with where one saga stands in it: forwards to the right, and back again below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinlog.console.lanes import cut_end, lasting
from twinlog.console.rendering import short
from twinlog.console.saga_words import State, step_state
from twinlog.v1 import inspection_pb2 as inspection
from twinlog.v1 import saga_service_pb2 as pb

_PAD, _BOX, _HEIGHT, _APART = 14, 178, 62, 44
_UNDO_HEIGHT, _UNDER, _ROW = 26, 8, 22
_END = 124
_CHARACTER = 6.6


@dataclass(frozen=True)
class Node:
    x: float
    y: float
    width: float
    height: float
    name: str
    whole: str
    under: str
    state: State
    shape: str
    """step, end or undo."""

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True)
class Diagram:
    nodes: Sequence[Node]
    paths: Sequence[str]
    back: Sequence[str]
    """Paths of what is undone."""
    pivot: float | None
    """Where the point of no return is."""
    width: float
    height: float


def diagram(table: inspection.SagaTable, saga: pb.Saga) -> Diagram:
    """Draws a table; ``saga``: whose steps stand somewhere."""
    return _Drawing(table, saga).draw()


class _Drawing:
    def __init__(self, table: inspection.SagaTable, saga: pb.Saga) -> None:
        self._table = table
        self._saga = saga
        self._states = {step.name: step_state(step.status) for step in saga.steps}
        self._nodes: list[Node] = []
        self._paths: list[str] = []
        self._back: list[str] = []
        self._pivot: float | None = None

    def draw(self) -> Diagram:
        groups = _groups(self._table.steps)
        has_undo = any(step.can_be_undone for step in self._table.steps)
        row = _HEIGHT + (_UNDER + _UNDO_HEIGHT if has_undo else 0) + _ROW
        rows = max((len(group) for group in groups), default=1)
        top = _PAD + (rows - 1) * row / 2
        start = self._end(_PAD, top, short(self._table.starts_with), State("ok", "it began"), "starts it")
        before, x = [start], float(_PAD + _END + _APART)
        undone: list[Node] = []
        for group in groups:
            first = _PAD + (rows - len(group)) * row / 2
            steps = [self._step(step, x, first + number * row) for number, step in enumerate(group)]
            self._paths += [_across(one, other) for one in before for other in steps]
            undone += [
                self._undo(step, node) for step, node in zip(group, steps, strict=True) if step.can_be_undone
            ]
            if any(step.no_return for step in group):
                self._pivot = x + _BOX + _APART / 2
            before, x = steps, x + _BOX + _APART
        end = self._end(x, top, "completed", self._completed(), "every step done")
        self._paths += [_across(one, end) for one in before]
        height: float = _PAD + rows * row - _ROW
        if undone or self._table.HasField("on_compensated"):
            height = self._way_back(undone, height + _ROW + 4)
        return Diagram(self._nodes, self._paths, self._back, self._pivot, x + _END + _PAD, height + _PAD)

    def _step(self, step: inspection.SagaTableStep, x: float, y: float) -> Node:
        node = Node(
            x,
            y,
            _BOX,
            _HEIGHT,
            _cut(step.name, _BOX - 34),
            step.name + (" (only where its condition holds)" if step.conditional else ""),
            _cut(_under(step), _BOX - 20),
            self._states.get(step.name, State("idle", "not begun")),
            "step",
        )
        self._nodes.append(node)
        return node

    def _undo(self, step: inspection.SagaTableStep, node: Node) -> Node:
        state = node.state if node.state.kind == "undo" else State("idle", "")
        name = f"undo: {short(step.undo) or step.name}"
        undo = Node(
            node.x,
            node.y + node.height + _UNDER,
            node.width,
            _UNDO_HEIGHT,
            _cut(name, _BOX - 20),
            name,
            "",
            state,
            "undo",
        )
        self._nodes.append(undo)
        return undo

    def _way_back(self, undone: Sequence[Node], y: float) -> float:
        closing = self._table.on_compensated
        ends = self._saga.status == pb.SAGA_STATUS_COMPENSATED
        end = self._end(
            _PAD, y, "compensated", State("idle", "it ended") if ends else State("idle", ""), "all undone"
        )
        target = end
        if self._table.HasField("on_compensated"):
            node = Node(
                _PAD + _END + _APART,
                y,
                _BOX,
                _HEIGHT,
                _cut(closing.name, _BOX - 34),
                closing.name,
                _cut(_under(closing), _BOX - 20),
                self._closing(ends),
                "step",
            )
            self._nodes.append(node)
            self._back.append(f"M{node.x:g} {node.middle:g}H{end.x + end.width + 4:g}")
            target = node
        for undo in undone:
            middle = undo.x + undo.width / 2
            down = target.middle
            if undo.x <= target.x + target.width / 2 < undo.x + undo.width:
                self._back.append(f"M{middle:g} {undo.y + undo.height:g}V{target.y - 4:g}")
            else:
                self._back.append(
                    f"M{middle:g} {undo.y + undo.height:g}V{down - 9:g}Q{middle:g} {down:g} {middle - 9:g} {down:g}"
                    f"H{target.x + target.width + 4:g}"
                )
        return y + _HEIGHT

    def _end(self, x: float, y: float, name: str, state: State, under: str) -> Node:
        node = Node(x, y + 8, _END, _HEIGHT - 16, _cut(name, _END - 16), name, under, state, "end")
        self._nodes.append(node)
        return node

    def _completed(self) -> State:
        done = self._saga.status == pb.SAGA_STATUS_COMPLETED
        return State("ok", "it ended") if done else State("idle", "")

    def _closing(self, ends: bool) -> State:
        if any(answer.kind == pb.AWAITED_KIND_CLOSING for answer in self._saga.awaited):
            return State("run", "awaited")
        return State("ok", "done") if ends and self._saga.reason else State("idle", "not begun")


def _groups(steps: Sequence[inspection.SagaTableStep]) -> list[list[inspection.SagaTableStep]]:
    groups: list[list[inspection.SagaTableStep]] = []
    for step in steps:
        if step.group and step.group != step.name and groups:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _under(step: inspection.SagaTableStep) -> str:
    """What a step waits for, short."""
    if step.kind == inspection.SAGA_STEP_KIND_TIME:
        seconds = step.lasts.ToTimedelta().total_seconds()
        return f"waits {lasting(seconds)}" if step.HasField("lasts") else "waits for a time"
    if step.kind == inspection.SAGA_STEP_KIND_SIGNAL:
        return "waits for a person"
    return step.owner or short(step.command) or "a command"


def _across(one: Node, other: Node) -> str:
    start, end, target = one.x + one.width, other.x - 4, other.middle
    if one.middle == target:
        return f"M{start:g} {target:g}H{end:g}"
    middle = (start + end) / 2
    return f"M{start:g} {one.middle:g}C{middle:g} {one.middle:g} {middle:g} {target:g} {end:g} {target:g}"


def _cut(text: str, room: float) -> str:
    return cut_end(text, int(room / _CHARACTER))
