"""What the programs of a log have declared: kept with the log, and compared at start.

Stored events are read by what the program of today says. A field with another number, an aggregate or a consumer under
another name, a type without its upcaster: each would have it read something else, or find nothing, without a word. So a
program is refused where what it has changed is stored. What it merely lacks is no mistake: an older program beside a
newer one lacks what that has added. So a declaration counts as replaced only where the program brings another one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from google.protobuf.message import Message

from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import ConfigurationError, Unavailable
from twinlog.model.messages import message_class
from twinlog.model.personal import imported_files
from twinlog.model.schema import Schema
from twinlog.model.stored_forms import ENUM, MESSAGE, Form, Named, changes, forms, holders, parts

Held = tuple[str, str]
"""The type of streams, and the type of events in them; empty: any."""

AGGREGATE, POLICIES, EFFECTS = "aggregate", "policies", "effects"
_EVENT, _LOG = "event", "log"
_TOLD = 5
"""How many mistakes an error names."""


class StoredOtherwise(ConfigurationError):
    """What is stored would be read as something else, or not be found."""

    reason = "STORED_OTHERWISE"


class Garbled(StoredOtherwise):
    """The row of table {table} with {where} is not what programs keep there: somebody changed it. Restore it from a
    backup; or, if this program is the one that ran last, have its start keep it anew: DELETE FROM {table} WHERE {where}
    """


def key(**columns: str | int) -> str:
    """The condition of a row, as a statement has it."""
    texts = {name: str(each).replace("'", "''") for name, each in columns.items()}
    return " AND ".join(f"{name} = '{text}'" for name, text in texts.items())


class Kept(NamedTuple):
    """What is kept of a declaration."""

    form: Form
    retired: bool = False
    """Whether a program left it out without a replacement."""


class Declarations(Protocol):
    """Where declarations are kept."""

    async def kept(self) -> Mapping[Named, Kept]:
        """All of them."""

    async def keep(self, given: Mapping[Named, Form], *, anew: bool = False) -> None:
        """Adds to what is kept, or with ``anew`` takes its place. What is given is not retired."""

    async def retire(self, gone: Collection[Named]) -> None:
        """Notes that a program does without these."""

    async def stored(self, asked: Collection[Held]) -> Collection[Held]:
        """Those of which there are events."""

    async def checkpoints(self) -> Mapping[str, int]:
        """How far each consumer is."""


class _Doubt(NamedTuple):
    """A mistake, if there are such events."""

    what: str
    held: Collection[Held]


async def check_declarations(
    declarations: Declarations,
    kept: Mapping[Named, Kept],
    service: str,
    aggregates: Sequence[AnyAggregate],
    schema: Schema,
    messages: Mapping[Named, Form] | None = None,
) -> Callable[[], Awaitable[None]]:
    """Compares what a program declares with what is kept; what it gives keeps that.

    ``messages``: the forms of its messages; None: those of all that is imported. Raises StoredOtherwise.
    """
    messages = forms(imported_files()) if messages is None else messages
    given = {**messages, **{(AGGREGATE, each.name): _form_of(each) for each in aggregates}}
    changed = {
        named: what
        for named in messages
        if named in kept and (what := changes(kept[named].form, given[named]))
    }
    gone = [named for named, each in kept.items() if not each.retired and _is_gone(named, given)]
    doubts = [*_in_forms(changed, given), *_in_gone(gone, kept, given), *_in_events(kept, aggregates, schema)]
    asked = {held for doubt in doubts for held in doubt.held}
    stored = {*await declarations.stored(asked)} if asked else set()
    refuse(service, [doubt.what for doubt in doubts if not stored.isdisjoint(doubt.held)])

    async def keep() -> None:
        await declarations.keep({named: given[named] for named in changed}, anew=True)
        await declarations.keep({named: form for named, form in given.items() if _adds(named, form, kept)})
        await declarations.retire(gone)

    return keep


def read_otherwise(
    kept: Mapping[Named, Kept], types: Collection[str], messages: Mapping[Named, Form] | None = None
) -> list[str]:
    """What a follower's copy of a proto would read otherwise than the owner of a log stores it, in words.

    ``kept``: what the owner keeps; ``types``: the short names of the types that the follower wants; empty: all.
    ``messages``: the follower's forms; None: those of all that is imported.
    """
    messages = forms(imported_files()) if messages is None else messages
    wanted = [
        (kind, name)
        for kind, name in kept
        if kind == MESSAGE and (not types or name.rpartition(".")[2] in types)
    ]
    for named in wanted:  # grows: what is inside of what it names is read, too
        inside = parts(kept[named].form)
        wanted += [
            each for each in kept if each[1] in inside and each[0] in (MESSAGE, ENUM) and each not in wanted
        ]
    return [
        f"{named[1]}: {', '.join(what)}"
        for named in wanted
        if named in messages and (what := changes(kept[named].form, messages[named]))
    ]


def _adds(named: Named, form: Form, kept: Mapping[Named, Kept]) -> bool:
    before = kept.get(named)
    return before is None or before.retired or not form.keys() <= before.form.keys()


def _form_of(aggregate: AnyAggregate) -> Form:
    return {event.DESCRIPTOR.full_name: _EVENT for event in aggregate.events}


def _is_gone(named: Named, given: Mapping[Named, Form]) -> bool:
    kind, name = named
    return named not in given and (kind == AGGREGATE or (kind == MESSAGE and _class(name) is None))


def _class(name: str) -> type[Message] | None:
    try:
        return message_class(name)
    except KeyError:
        return None


def _in_forms(changed: Mapping[Named, Sequence[str]], given: Mapping[Named, Form]) -> Iterator[_Doubt]:
    for (kind, name), what in changed.items():
        where = "is stored" if kind == MESSAGE else "is in what is stored"
        yield _Doubt(
            f"{name} {where}, and is not what it was: {', '.join(what)}. Leave it as it was and add fields under new "
            f"names and numbers; what has to change becomes a new type, which Upcast.rename says in the Schema",
            [("", each) for each in holders(name, given)],
        )


def _in_gone(
    gone: Sequence[Named], kept: Mapping[Named, Kept], given: Mapping[Named, Form]
) -> Iterator[_Doubt]:
    """What is gone, where there is something new in whose place it may have been."""
    new = {kind: [name for of, name in given if of == kind and (of, name) not in kept] for kind, _ in gone}
    for kind, name in gone:
        if kind == MESSAGE and new[kind]:
            short = name.rpartition(".")[2]
            likely = next((each for each in new[kind] if each.rpartition(".")[2] == short), "New")
            yield _Doubt(
                f"events of type {name} are stored, and no proto that is imported has it. Keep its proto, import it, "
                f"and say in the Schema what they are read as: Upcast.rename({short}, {likely}), or "
                f"Upcast.drop({short})",
                [("", name)],
            )
        if kind == AGGREGATE and new[kind]:
            yield _Doubt(
                f"streams of aggregate {name!r} are stored, and it is gone, while {_listed(new[kind])} is new and "
                f"would not find them. An aggregate keeps its name: call it {name!r} again. If it is retired, deploy "
                f"once without both of them",
                [(name, "")],
            )


def _in_events(
    kept: Mapping[Named, Kept], aggregates: Sequence[AnyAggregate], schema: Schema
) -> Iterator[_Doubt]:
    """Events that an aggregate has declared and does not any more, where it has new ones in their place."""
    for aggregate in aggregates:
        now, before = _form_of(aggregate), kept.get((AGGREGATE, aggregate.name), Kept({})).form
        new = sorted(now.keys() - before.keys())
        for event in sorted(before.keys() - now.keys()) if new else ():
            of = _class(event)
            if of is None or schema.replaces(of):
                continue
            yield _Doubt(
                f"streams of aggregate {aggregate.name!r} have events of type {event}, which it does not name among "
                f"its events any more, while {_listed(new)} is new. Name it there if evolve takes it; if not, say in "
                f"the Schema what it is read as, by Upcast.rename or Upcast.drop",
                [(aggregate.name, event)],
            )


def _listed(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names[:_TOLD])


def refuse(service: str, mistakes: Sequence[str]) -> None:
    """Raises StoredOtherwise if there are any."""
    if mistakes:
        more = f"; and {len(mistakes) - _TOLD} more" if len(mistakes) > _TOLD else ""
        raise StoredOtherwise(
            f"{service}: {'; '.join(mistakes[:_TOLD])}{more}. See docs/how-to/changes.md. A database whose events "
            f"nobody needs, as while a program is written, may be dropped instead"
        )


class KeptConsumers:
    """The policies and effects of a log's programs: under another name they would do everything again."""

    def __init__(
        self,
        declarations: Declarations,
        service: str,
        kept: Mapping[Named, Kept],
        checkpoints: Mapping[str, int],
    ) -> None:
        self._declarations = declarations
        self._service = service
        self._kept = {named: each for named, each in kept.items() if named[0] in (POLICIES, EFFECTS)}
        self._checkpoints = checkpoints

    def refuse_renamed(self, given: Mapping[Named, str]) -> None:
        """Raises StoredOtherwise where one is gone, and a new one of its kind is to begin at the beginning of its log.

        ``given``: the logs of those that are subscribed.
        """
        refuse(self._service, [*self._renamed(given)])

    def _renamed(self, given: Mapping[Named, str]) -> Iterator[str]:
        for kind, name in self._gone(given):
            at, log = self._checkpoints.get(name, 0), self._kept[kind, name].form[_LOG]
            new = [
                each
                for (of, each), follows in given.items()
                if (of, follows) == (kind, log) and self._begins((of, each))
            ]
            if at and new:
                yield (
                    f"{kind} {name!r}, which have handled log {log!r} up to {at}, are gone, and {new[0]!r} have no "
                    f"checkpoint and would do all of it again. Call them {name!r} again, or rename their checkpoint "
                    f"while the service stands still: UPDATE checkpoints SET consumer = '{new[0]}' WHERE consumer = "
                    f"'{name}'. If they are retired, deploy once without both of them"
                )

    def _begins(self, named: Named) -> bool:
        """Whether it begins at the first event: a new one, or one of a program that another has taken the place of."""
        return (named not in self._kept or self._kept[named].retired) and not self._checkpoints.get(named[1])

    def _gone(self, given: Mapping[Named, str]) -> list[Named]:
        return [named for named, each in self._kept.items() if not each.retired and named not in given]

    async def keep(self, given: Mapping[Named, str]) -> None:
        """Keeps what is subscribed; while the database is away, nothing, and the next start does."""
        added = {named: {_LOG: log} for named, log in given.items()}
        with suppress(Unavailable):
            await self._declarations.keep(
                {named: form for named, form in added.items() if _adds(named, form, self._kept)}
            )
            await self._declarations.retire(self._gone(given))
