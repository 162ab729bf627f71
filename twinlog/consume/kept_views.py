"""The views of a log's programs, kept with its declarations: rows stay as they are when what makes them changes.

A view goes on at its checkpoint. A column that is new, an event type that it handles from now on, another routing key:
what lies behind the checkpoint is not looked at again, and its rows would lack it without a word. So a program is
refused where rows would be wrong, and otherwise kept as the one that the next is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from twinlog.consume.projection import Projection
from twinlog.log.declarations import Declarations, Kept, refuse
from twinlog.log.twin import Peeking, Twin, TwinDamaged, TwinMissing
from twinlog.log.view_store import Build, consumer_of, holds
from twinlog.model.saga_list import SAGA_INSTANCES
from twinlog.model.stored_forms import Form, Named
from twinlog.model.view import AnyView

VIEW = "view"
_COLUMN, _CONSUMER, _KEY, _EVENT = "column ", "consumer ", "routing key ", "event "
_ROWS = "rows"
_ANY = "*"


class Tables(NamedTuple):
    """What the tables of views hold at a start."""

    checkpoints: Mapping[str, int]
    builds: Sequence[Build]
    columns: Mapping[str, Mapping[str, str]]
    """By table, the types of its columns."""


class _PassedOver(NamedTuple):
    """A mistake, if events of such types lie behind a checkpoint."""

    log: str
    upto: int
    types: Sequence[str]
    """Full names; :data:`_ANY`: of every type."""
    says: Callable[[str], str]
    """The mistake in words, from the names of the types that do."""


class KeptViews:
    """The views that programs of a log had."""

    def __init__(
        self, declarations: Declarations, service: str, kept: Mapping[Named, Kept], tables: Tables
    ) -> None:
        self._declarations = declarations
        self._service = service
        self._kept = {name: each for (kind, name), each in kept.items() if kind == VIEW}
        self._tables = tables
        self._oldest: dict[str, int] = {}
        """By view, the oldest version that is declared."""
        self._known = {name for each in self._kept.values() for name in _parts(each.form, _CONSUMER)}
        """The consumers that were compared before; the first start that compares has nothing to go by."""
        self._projections: Sequence[Projection] = ()
        self._compared: Mapping[str, tuple[AnyView, Form]] = {}
        """By table, the views that were compared, and nothing is wrong with them."""

    async def check(self, projections: Sequence[Projection], twin: Callable[[str], Twin]) -> None:
        """Compares the views of these with what is kept.

        Raises StoredOtherwise, and Unavailable while a server is away: then nothing is kept, and the next start
        compares.
        """
        self._projections = projections
        found = view_forms(projections, self._tables.columns)
        for view, _ in found.values():
            self._oldest[view.name] = min(view.version, self._oldest.get(view.name, view.version))
        wrong = []
        for view, form in found.values():
            what = [await _told(each, twin) for each in self._changes(view, form)]
            if any(what):
                wrong.append(_refused(view, [each for each in what if each], view.table in self._kept))
        refuse(self._service, wrong)
        self._compared = found

    def check_columns(self, columns: Mapping[str, Mapping[str, str]]) -> None:
        """Compares the columns that a migration gives the tables of these views, before it is committed.

        Raises StoredOtherwise.
        """
        found = view_forms(self._projections, columns)
        wrong = []
        for table, (view, now) in found.items():
            before = self._kept[table].form if table in self._kept else {}
            if before and self._filled(view, now, before):
                applied = self._compared.get(table, (view, now))[1]
                if what := [*_other_columns(table, before, now, applied)]:
                    wrong.append(_refused(view, what, known=True))
        refuse(self._service, wrong)
        if self._compared:
            self._compared = found

    async def keep(self) -> None:
        """Keeps what was compared."""
        changed: dict[Named, Form] = {}
        for table, (view, now) in self._compared.items():
            kept = self._kept.get(table, Kept({}))
            before = {} if not self._filled(view, now, kept.form) else kept.form
            form = {**{part: text for part, text in before.items() if not part.startswith(_COLUMN)}, **now}
            if table not in self._kept or form != kept.form:
                changed[VIEW, table] = form
        await self._declarations.keep(changed, anew=True)

    def _filled(self, view: AnyView, *forms: Form) -> bool:
        """Whether there may be rows."""
        sources = [each for form in forms for each in _parts(form, _CONSUMER).items()]
        return any(self._upto(view, consumer, log) for consumer, log in sources)

    def _upto(self, view: AnyView, consumer: str, log: str) -> int:
        """Up to which event of a log there are rows by a declared projection, in any build of this version."""
        builds = (consumer_of(each, consumer, log) for each in self._builds(view))
        return max(
            self._at_home(view, consumer), *(self._tables.checkpoints.get(each, 0) for each in builds), 0
        )

    def _at_home(self, view: AnyView, consumer: str) -> int:
        """The same of its home alone."""
        home = next((each for each in self._tables.builds if each.home and each.view == view.name), None)
        version = self._oldest[view.name]  # see `home_version`
        if home:
            version = 0 if home.dropped else home.version
        return self._tables.checkpoints.get(consumer, 0) if version == view.version else 0

    def _changes(self, view: AnyView, now: Form) -> Iterator[str | _PassedOver]:
        kept = self._kept.get(view.table)
        before: Form = kept.form if kept else {}
        if (kept and not before) or not self._filled(view, now, before):
            return  # somebody said that the rows may stay, or there are none
        here, there = _parts(now, _CONSUMER), _parts(before, _CONSUMER)
        gone = {name: log for name, log in there.items() if name not in here}
        for consumer, log in here.items():
            upto = self._upto(view, consumer, log)
            # Also of one that is known: a rollback comes back to a name whose checkpoint was renamed.
            if again := self._told_again(view, consumer, log, gone):
                yield again
            elif consumer not in there:
                yield from self._joined(view, consumer, log, now)
            elif log != there[consumer]:
                yield f"projection {consumer!r} followed log {there[consumer]!r} and follows {log!r}"
            elif upto:
                yield from _sent_otherwise(consumer, log, upto, before, now)
        if before:
            if before.get(_ROWS, now[_ROWS]) != now[_ROWS]:
                yield f"it had {before[_ROWS]}, and has {now[_ROWS]}"
            yield from _other_columns(view.table, before, now, now)

    def _told_again(self, view: AnyView, consumer: str, log: str, gone: Mapping[str, str]) -> str:
        """Where rows are of a projection that is gone, and this one begins at the first event: that, in words."""
        for old in [each for each, of in gone.items() if of == log]:
            if moved := [*self._renamed(view, old, consumer, log)]:
                statements = "; ".join(
                    f"UPDATE checkpoints SET consumer = '{to}' WHERE consumer = '{each}'"
                    for each, to in moved
                )
                return (
                    f"projection {old!r} is gone, and {consumer!r} has no checkpoint and would tell its rows of log "
                    f"{log!r} again from the first event on; call it {old!r} again, or rename its checkpoint while the "
                    f"service stands still: {statements}"
                )
        return ""

    def _joined(self, view: AnyView, consumer: str, log: str, now: Form) -> Iterator[str | _PassedOver]:
        upto = self._at_home(view, consumer)  # every other build begins at the first event
        if upto and consumer in self._known:
            way_out = "give it a projection of its own, whose name is new"
            if view.version > 1:
                way_out = "declare the version before beside it, until this one is built and switched to"
            yield _PassedOver(
                log,
                upto,
                _types(now, consumer),
                lambda types: (
                    f"it is new in projection {consumer!r}, which has handled log {log!r} up to {upto}, and would lack "
                    f"earlier events ({types}); {way_out}"
                ),
            )

    def _renamed(self, view: AnyView, old: str, new: str, log: str) -> Iterator[tuple[str, str]]:
        """The consumers of this version's builds that have rows under a projection's old name, with the new names."""
        if self._at_home(view, old) and not self._at_home(view, new):
            yield old, new
        there = self._tables.checkpoints
        for build in self._builds(view):
            was, now = consumer_of(build, old, log), consumer_of(build, new, log)
            if was != now and there.get(was) and not there.get(now):
                yield was, now

    def _builds(self, view: AnyView) -> list[Build]:
        """Those of this version beside the home."""
        return [
            each
            for each in self._tables.builds
            if (each.view, each.version) == (view.name, view.version) and not each.home and not each.dropped
        ]


def view_forms(
    projections: Iterable[Projection], columns: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[AnyView, Form]]:
    """By table, a view and what is declared of it. That of the kernel's own list of sagas goes with the kernel."""
    found: dict[str, tuple[AnyView, dict[str, str]]] = {}
    for each in projections:
        for view in each.tables:
            if view is SAGA_INSTANCES:
                continue
            _, form = found.setdefault(view.table, (view, {}))
            form[_ROWS] = "one of each event" if view.append_only else "one of each key"
            form |= {f"{_COLUMN}{name}": type for name, type in columns.get(view.table, {}).items()}
            form[f"{_CONSUMER}{each.name}"] = each.source
            form[f"{_KEY}{each.name}"] = each.projected_key
            types = each.schema.stored_names(list(view.wanted)) if view.wanted else [_ANY]
            form |= {f"{_EVENT}{type} of {each.name}": "handled" for type in types}
    return {table: (view, form) for table, (view, form) in found.items()}


def _parts(form: Form, of: str) -> dict[str, str]:
    return {part.removeprefix(of): text for part, text in form.items() if part.startswith(of)}


def _types(form: Form, consumer: str) -> list[str]:
    suffix = f" of {consumer}"
    return [part.removesuffix(suffix) for part in _parts(form, _EVENT) if part.endswith(suffix)]


def _sent_otherwise(
    consumer: str, log: str, upto: int, before: Form, now: Form
) -> Iterator[str | _PassedOver]:
    key, other = before.get(f"{_KEY}{consumer}", ""), now[f"{_KEY}{consumer}"]
    if key != other:
        yield f"projection {consumer!r} was sent events of routing key {key!r}, and is sent those of {other!r}"
    known = _types(before, consumer)
    added = [] if _ANY in known else [type for type in _types(now, consumer) if type not in known]
    if added:
        yield _PassedOver(
            log,
            upto,
            added,
            lambda types: (
                f"it handles {types} from now on, of which log {log!r} has events that projection {consumer!r} has "
                f"passed over"
            ),
        )


def _other_columns(table: str, before: Form, now: Form, applied: Form) -> Iterator[str]:
    """``now``: as the program's migrations leave them. ``applied``: as the table has them."""
    old, new, there = (_parts(each, _COLUMN) for each in (before, now, applied))
    if not old or not new:
        return  # a store that does not say
    added = [name for name in new if name not in old]
    for is_there in (True, False):
        if those := [name for name in added if (name in there) is is_there]:
            back = _put_back(table, *(f"DROP COLUMN {name}" for name in those)) if is_there else _TAKE_OUT
            yield f"column {' and '.join(those)} is new, and has its default in the rows of before ({back})"
    for name, type in new.items():
        was = old.get(name, type)
        if not holds(type, was):
            back = _put_back(table, f"ALTER COLUMN {name} TYPE {was} USING {name}::{was}")
            yield f"column {name} was {was} and is {type} ({back if there.get(name) == type else _TAKE_OUT})"


_TAKE_OUT = "its migration is not applied, and the table is as it was; take it out"


def _put_back(table: str, *changes: str) -> str:
    """Where a program migrates before it is compared, programs of before do not fit the columns."""
    return (
        "the migration is applied and stays; for the table as it was, and for programs of before, add one that says "
        f"ALTER TABLE {table} {', '.join(changes)}"
    )


async def _told(what: str | _PassedOver, twin: Callable[[str], Twin]) -> str:
    """A mistake in words; empty where there is none."""
    if isinstance(what, str):
        return what
    of = twin(what.log)
    passed = [type for type in what.types if await _passed_over(of, type, what.upto)]
    named = " and ".join("events of any type" if each == _ANY else each for each in passed)
    return what.says(named) if passed else ""


async def _passed_over(twin: Twin, type: str, upto: int) -> bool:
    """Whether there may be an event of a type up to a position. A stream that was trimmed does not tell."""
    try:
        if not isinstance(twin, Peeking) or (await twin.state()).first > 1:
            return True
        first = await twin.next_ahead(0, () if type == _ANY else (type.rpartition(".")[2],))
    except (TwinMissing, TwinDamaged):
        return True
    return first is not None and first.position <= upto


def _refused(view: AnyView, what: Sequence[str], known: bool) -> str:
    if known:
        told = (
            f"view {view.name!r} was changed in place, and its rows in table {view.table} would stay as they are: "
            f"{'; '.join(what)}. Leave it as it was and declare View({view.name!r}, …, version={view.version + 1}) "
            f"beside it, then `twinlog views rebuild {view.name}` (docs/how-to/rebuild.md)"
        )
    else:
        told = f"view {view.name!r} would begin in the middle: {'; '.join(what)}"
    return (
        f"{told}. Or say in the service's database that its rows may be as they are: INSERT INTO declarations (kind, "
        f"name, form) VALUES ('{VIEW}', '{view.table}', '{{}}') ON CONFLICT (kind, name) DO UPDATE SET form = '{{}}'; "
        f"then start, and `twinlog views rebuild {view.name}` makes them anew"
    )
