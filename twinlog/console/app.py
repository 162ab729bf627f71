"""The console as an ASGI application: its pages, their live streams and actions, and its files."""

from __future__ import annotations

import mimetypes
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl
from uuid import NAMESPACE_OID, uuid5

import structlog
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from twinlog.console.guard import Guard
from twinlog.console.live import Live, TooMany, tag_of
from twinlog.console.looks import Said
from twinlog.console.page import Form, Gone, Outcome, Page, Query, Unanswered
from twinlog.console.rendering import compressed, content, environment, static
from twinlog.console.services import Services, loading
from twinlog.observe.metrics.pages import Pages

_log = structlog.get_logger(component="console")
_LIVE = "live"
_LOG_AGAIN_SECONDS = 60.0
_MOST_LOGGED = 256
_logged: dict[str, float] = {}
"""When defects were logged last, by what they are."""
_FORM_BYTES = 256 * 1024
_FOR_EVER = "public, max-age=31536000, immutable"
_THEMES = ("light", "dark")
_UNANSWERED = 503
Problems = Sequence[tuple[str, str, str]]
"""Each as service, signal and text."""
_RETRY_SECONDS = "2"


class Console:
    def __init__(self, services: Services, pages: Sequence[Page], *, hosts: Collection[str] = ()) -> None:
        """``hosts``: see :class:`Guard`."""
        self.live = Live(services.looking)
        self.pages = Pages(lambda: (self.live.viewers, self.live.loaders))
        """What is asked of it."""
        self._services = services
        folders = list(dict.fromkeys(page.templates for page in pages if page.templates))
        self._templates = environment(folders)
        self._templates.globals |= {
            "navigation": [page for page in pages if page.navigation],
            "inviting": [page for page in pages if page.invites],
        }
        self.app = Starlette(
            routes=[
                Route("/static/{digest}/{name}", _file),
                Route("/healthz", _health),
                *(Route(page.path, self._endpoint(page), methods=["GET", "POST"]) for page in pages),
            ],
            middleware=[
                Middleware(Guard, hosts=hosts),
                Middleware(GZipMiddleware, minimum_size=600, compresslevel=4),
            ],
            exception_handlers={404: self._nowhere},
        )

    def _endpoint(self, page: Page) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            query = _query(request)
            if request.method == "GET" and (have := _have(request)) is not None:
                return self._stream(page, query, have)
            began = time.perf_counter()
            answer = self._act if request.method == "POST" else self._shown
            response = await answer(page, query, request)
            self.pages.answered(page.path, response.status_code, time.perf_counter() - began)
            return response

        return endpoint

    async def _shown(
        self, page: Page, query: Query, request: Request, outcome: Outcome | None = None
    ) -> Response:
        shown = await self._parts(page, query)
        theme = request.cookies.get("theme", "")
        html = self._templates.get_template("base.html").render(
            page=page,
            query=query,
            title=page.title.format_map(query.parts),
            theme=theme if theme in _THEMES else "",
            tag=tag_of(shown.text),
            waits=shown.status == _UNANSWERED or (not page.live and _moves(page, shown)),
            health=Markup(shown.health),
            main=Markup(shown.main),
            outcome=self._outcome(outcome, query),
        )
        headers = {"Retry-After": _RETRY_SECONDS} if shown.status == _UNANSWERED else None
        return HTMLResponse(html, shown.status, headers)

    def _stream(self, page: Page, query: Query, have: str) -> Response:
        shown: _Shown | None = None

        async def render() -> str:
            nonlocal shown
            shown = await self._parts(page, query, shown, patient=True)
            return shown.text

        def moves() -> bool:
            return shown is not None and _moves(page, shown)

        stream = self.live.stream(query.url(), have, render, moves)

        async def events() -> AsyncIterator[bytes]:
            try:
                async for event in stream:
                    yield event
            except TooMany:
                _log.warning("console.too_many_streams")
            finally:
                await stream.aclose()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _act(self, page: Page, query: Query, request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return PlainTextResponse("The form is too large.\n", 413)
        form = Form(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        action = page.actions.get(form.get("action"))
        if action is None:
            return PlainTextResponse("This page has no such action.\n", 400)
        try:
            outcome = await action(self._services, query, form)
        except (Gone, Unanswered) as missing:
            outcome = Outcome(str(missing), ok=False)
        except Exception as error:  # a defect of the page; the reader gets an id that finds it
            outcome = Outcome(_defect(error, query), ok=False)
        self.live.hurry(query.url())
        if outcome.to:
            return Response(status_code=303, headers={"Location": outcome.to})
        return await self._shown(page, query, request, outcome)

    def _outcome(self, outcome: Outcome | None, query: Query) -> Any:
        if outcome is None or not outcome.template:
            return outcome
        template = self._templates.get_template(outcome.template)
        return replace(outcome, text=template.render(model=outcome.model, query=query))

    async def _parts(
        self, page: Page, query: Query, before: _Shown | None = None, *, patient: bool = False
    ) -> _Shown:
        """What of a page is live; ``before``: as it was last, which is not drawn again where nothing is new.

        ``patient``: see :func:`loading`.
        """
        with loading(patient=patient):
            look = await self._services.look()
            made = await self._made(page, query)
            if made.status == _UNANSWERED and (heard := await self._services.looking.heard()) != look:
                look, made = heard, await self._made(page, query)
        problems = look.problems()
        health = before.health if before and before.problems == problems else self._health(problems)
        if before and before.made == made and before.made.model is not made.model:
            return before._replace(problems=problems, health=health)
        context = {"page": page, "query": query}
        try:
            main, status = self._render(made.template, context, made.model), made.status
        except Exception as error:  # a defect of the template; the others go on
            failed = _Instead("This page failed", _defect(error, query))
            main, status = self._render("error.html", context, failed), 500
        return _Shown(made, problems, health, main, status)

    def _health(self, problems: Problems) -> str:
        return self._render("health.html", {}, problems)

    async def _made(self, page: Page, query: Query) -> _Made:
        try:
            return _Made(page.template, await page.load(self._services, query), 200)
        except Gone as gone:
            return _Made("error.html", _Instead("Not here", str(gone)), 404)
        except Unanswered as silence:
            services = [*(await self._services.look()).services.values()]
            return _Made("unanswered.html", _Instead("No answer yet", str(silence), services), _UNANSWERED)
        except Exception as error:  # a defect of the page; the others go on
            return _Made("error.html", _Instead("This page failed", _defect(error, query)), 500)

    def _render(self, template: str, context: Mapping[str, Any], model: Any) -> str:
        return self._templates.get_template(template).render(context, model=model)

    async def _nowhere(self, request: Request, error: Exception) -> Response:
        async def load(services: Services, query: Query) -> Any:
            raise Gone("There is no such page. The navigation lists them all.")

        page = Page(request.url.path, "Not here", "error.html", load, live=False)
        return await self._shown(page, _query(request), request)


class _Made(NamedTuple):
    template: str
    model: Any
    status: int


class _Shown(NamedTuple):
    """What of a page is live, as HTML, and what it shows."""

    made: _Made
    problems: Problems
    health: str
    main: str
    status: int

    @property
    def text(self) -> str:
        """All of it, as a live stream sends it."""
        return f"{self.health}\n{self.main}"


def _moves(page: Page, shown: _Shown) -> bool:
    """Whether what is shown changes without any service's telling so."""
    return shown.made.status == HTTPStatus.OK and page.moves(shown.made.model)


class _Instead(NamedTuple):
    """What a page that cannot be shown shows."""

    title: str
    text: str
    services: Sequence[Said] = ()


def _defect(error: Exception, query: Query) -> str:
    """Logs a defect under an id, and says which; one that a live page meets every second is logged once."""
    what = f"{query.path} {type(error).__name__} {error}"
    id = str(uuid5(NAMESPACE_OID, what))
    if _logged.get(what, -_LOG_AGAIN_SECONDS) < time.monotonic() - _LOG_AGAIN_SECONDS:
        if len(_logged) >= _MOST_LOGGED:
            _logged.clear()
        _logged[what] = time.monotonic()
        _log.error("console.page_failed", id=id, path=query.path, exc_info=error)
    return f"{type(error).__name__}: {error} (the console's log has the traceback under id {id})"


def _query(request: Request) -> Query:
    parameters = [(key, value) for key, value in request.query_params.multi_items() if key != _LIVE]
    return Query(request.url.path, {k: str(v) for k, v in request.path_params.items()}, parameters)


def _have(request: Request) -> str | None:
    """Of a request for a live stream, the state that the browser has."""
    live = request.query_params.get(_LIVE)
    if live is None and "text/event-stream" not in request.headers.get("accept", ""):
        return None
    return request.headers.get("last-event-id") or live or ""


async def _body(request: Request) -> bytes | None:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            return None
    return body


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    held = content(name)
    if held is None or static(name) != request.url.path:
        return PlainTextResponse("There is no such file.\n", 404)
    kind, _ = mimetypes.guess_type(name)
    headers = {"Cache-Control": _FOR_EVER, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        held, headers["Content-Encoding"] = compressed(name), "gzip"
    return Response(held, media_type=kind, headers=headers)


async def _health(request: Request) -> Response:
    return PlainTextResponse("ok\n")
