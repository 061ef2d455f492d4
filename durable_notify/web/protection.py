"""What keeps other web pages from using the dashboard: Host, cross-origin requests, CSP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "Protection", "is_same_origin"]

#: Sent with every answer. Scripts, styles and images are the package's own.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def is_same_origin(headers: Headers) -> bool:
    """Return whether a request that changes something comes from a page of ours, or no page.

    The rule is that of ``CrossOriginProtection`` in Go's net/http: browsers send Sec-Fetch-Site;
    old ones send Origin; what sends neither is no browser.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


class Protection:
    """Middleware that refuses other hosts and cross-origin requests, and adds headers.

    Args:
        app: the application.
        hosts: the names under which it may be asked, without ports. None: all, because the
            application that mounts it decides. Trap: without this, a page of an attacker whose name
            resolves to 127.0.0.1 is of the same origin as the dashboard (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None = None) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts:
            text = "This name is not allowed. Give --allow-host NAME to allow it.\n"
            await PlainTextResponse(text, 421, HEADERS)(scope, receive, send)
            return
        if scope["method"] not in SAFE and not is_same_origin(headers):
            text = "This came from another website, and was refused.\n"
            await PlainTextResponse(text, 403, HEADERS)(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    given.setdefault(name, value)
                given.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, add)


def _name(host: str) -> str:
    """Return a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()
