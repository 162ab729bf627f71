"""What every request must be, and what every response says: a page that somebody else's page cannot use or see.

A name that resolves to this machine (DNS rebinding) is refused by its Host; a form on another site by its Origin.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL = {"localhost", "127.0.0.1", "::1"}
_SAFE = {"GET", "HEAD"}
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS: Sequence[tuple[str, str]] = [
    ("Content-Security-Policy", _POLICY),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    # Not no-referrer: it would hide the Origin of the console's own forms, too.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class Guard:
    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        """``hosts``: names, without ports, by which the console may be called besides those of this machine."""
        self._app = app
        self._hosts = _LOCAL | {each.strip("[]") for each in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS:
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refused(scope)
        if refused:
            await PlainTextResponse(f"{refused}\n", 403)(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    def _refused(self, scope: Scope) -> str:
        """Why a request is refused; empty where it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            return (
                f"The console is not called {host!r}: use the address that it was started with, or localhost."
            )
        if scope["method"] in _SAFE:
            return ""
        origin = headers.get("origin", "")
        if origin not in (f"http://{host}", f"https://{host}"):
            return "This form was not sent by the console itself."
        return ""


def _name(host: str) -> str:
    """The name in a Host header, without its port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
