"""One view: its builds, how far each is, and what may be done: rebuild, compare, switch, switch back, drop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twinlog.console import builds
from twinlog.console.builds import Builds, builds_of, call
from twinlog.console.page import Form, Outcome, Page, Query, missing
from twinlog.console.pages.views import View, view_of
from twinlog.console.services import Services, method_of
from twinlog.v1 import view_service_pb2 as pb

_REHEARSAL = "view_rehearsal.html"


@dataclass(frozen=True)
class ViewPage:
    view: View
    address: str
    """Of the service, for commands."""
    builds: Builds | None
    """None where the service tells of none."""
    problem: str = ""
    """Why they are not the newest, or not told; empty where they are."""


@dataclass(frozen=True)
class Rehearsal:
    """What an order would do."""

    order: str
    build: pb.ViewBuild
    live: int
    """The number of the build that queries read; 0: not known."""
    before: int
    """The number of the one that queries would read again; 0: none."""
    comparison: pb.ViewComparison | None = None
    dead_letters: str = ""
    """What has to be confirmed of them."""

    @property
    def differs(self) -> bool:
        """Whether differences have to be confirmed."""
        return self.comparison is not None and builds.differs(self.comparison)


async def load(services: Services, query: Query) -> ViewPage:
    """One view. Raises Gone, Unanswered."""
    look = await services.look()
    service, name = query.get("service"), query.get("view")
    said = look.services.get(service)
    if said is None:
        raise missing(look, f"No service is called {service}; there are {', '.join(look.services)}.")
    if said.described is None:
        raise missing(look, f"What views {service} keeps is not known.")
    described = next((each for each in said.described.views if each.view == name), None)
    if described is None:
        known = ", ".join(each.view for each in said.described.views) or "none"
        raise missing(look, f"{service} keeps no view {name}; its views are {known}.")
    answer = (await builds.listed(services, [service]))[service]
    found = builds_of(answer, name)
    if found is not None:
        services.keep(query.path, found)
    problem = "" if answer.ok else f"{service} does not tell of its builds: {answer.problem}."
    shown = found or services.kept(Builds, query.path)
    return ViewPage(view_of(look, said, described, shown), said.address, shown, problem)


async def rehearse(services: Services, query: Query, form: Form) -> Outcome:
    """Says what an order would do, with a button that does it."""
    order = form.get("order")
    if order not in _REQUESTS:
        return _no_such_order()
    service, view = query.get("service"), query.get("view")
    known = builds_of((await builds.listed(services, [service]))[service], view)
    live, before = (
        each.number if each else 0 for each in ((known.live, known.before) if known else (None, None))
    )
    method, request = _request(order, query, form, dry_run=True)
    if order == "switch":
        request.confirm_differences = True  # they are shown first
    answer, dead_letters = await builds.rehearse(services, service, method, request)
    if answer.message is None:
        return Outcome(_sentence(f"{service}: {answer.problem}"), ok=False)
    comparison = answer.message.comparison if order == "switch" else None
    rehearsal = Rehearsal(order, answer.message.build, live, before, comparison, dead_letters)
    return Outcome(only_said=True, template=_REHEARSAL, model=rehearsal)


async def do(services: Services, query: Query, form: Form) -> Outcome:
    """Does it, and says what came of it."""
    order, service = form.get("order"), query.get("service")
    if order not in _REQUESTS:
        return _no_such_order()
    answer = await call(services, service, *_request(order, query, form, dry_run=False))
    if answer.message is None:
        return Outcome(_sentence(f"{service}: {answer.problem}"), ok=False)
    return Outcome(_DONE[order].format(build=answer.message.build.build))


async def compare(services: Services, query: Query, form: Form) -> Outcome:
    """How a build differs from the live one, row by row."""
    service, view = query.get("service"), query.get("view")
    request = pb.CompareViewRequest(view=view, build=_number(form, "build"))
    answer = await call(services, service, "CompareView", request)
    if answer.message is None:
        return Outcome(_sentence(f"{service}: {answer.problem}"), ok=False)
    compared = Rehearsal("", answer.message.build, 0, 0, answer.message.comparison)
    return Outcome(ok=not compared.differs, template=_REHEARSAL, model=compared)


_REQUESTS = {
    "rebuild": pb.RebuildViewRequest,
    "switch": pb.SwitchViewRequest,
    "back": pb.SwitchViewBackRequest,
    "drop": pb.DropViewBuildRequest,
}
_DONE = {
    "rebuild": "Build {build} is being filled. How far it is stands below; queries go on as before.",
    "switch": "Queries read build {build} now. The one before is kept up to date, to switch back to.",
    "back": "Queries read build {build} again.",
    "drop": "Build {build} is dropped: its rows, its checkpoints, its consumers.",
}


def _request(order: str, query: Query, form: Form, *, dry_run: bool) -> tuple[str, Any]:
    """The method of an order, and its request, which takes of the form what it has a field for."""
    kind: Any = _REQUESTS[order]
    given = {name: _number(form, name) for name in ("version", "share", "build")}
    given |= {f"confirm_{name}": bool(form.get(name)) for name in ("differences", "dead_letters")}
    taken = {name: value for name, value in given.items() if name in kind.DESCRIPTOR.fields_by_name}
    return method_of(kind), kind(view=query.get("view"), dry_run=dry_run, **taken)


def _number(form: Form, name: str) -> int:
    """A number of a form; 0 where it has none. What is too large for the field is refused by the service."""
    text = form.get(name)
    return min(int(text), 2**31 - 1) if text.isascii() and text.isdigit() else 0


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _no_such_order() -> Outcome:
    return Outcome("There is no such order: rebuild, switch, back or drop.", ok=False)


PAGES = [
    Page(
        "/views/{service}/{view}",
        "View {view}",
        "view.html",
        load,
        actions={"rehearse": rehearse, "do": do, "compare": compare},
        # A build that is filled tells nothing of itself but to those who ask.
        moves=lambda model: model.builds is not None and model.builds.under_way is not None,
    )
]
