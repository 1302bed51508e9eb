"""What stands before every request: who may ask, from where, and what browsers are told."""

from __future__ import annotations

import logging
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refused import RefusedError

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Sent with every answer: scripts and styles are files of this server, and nothing else is loaded."""


_logger = logging.getLogger("upright.serve")


class Guard:
    """Refuses requests for other hosts and from other sites, and adds `HEADERS` to every answer.

    Names of hosts are checked since any site can let its own name point to this machine; where a request
    comes from, since any site can send forms here.

    Args:
        app: The application behind it.
        hosts: Names under which the server may be asked for, without ports; empty: all.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app, self._hosts = app, frozenset(name.lower() for name in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refusal(scope["method"], Headers(scope=scope))
        if refused is None:
            try:
                await self._app(scope, receive, with_headers)
                return
            except Exception:
                _logger.exception("%s %s failed", scope["method"], scope["path"])
                if begun:
                    raise
            refused = RefusedError(500, "failed", "the server failed on this request; its log says why")
        answer = JSONResponse(refused.body, refused.status, refused.headers)
        await answer(scope, receive, with_headers)

    def _refusal(self, method: str, headers: Headers) -> RefusedError | None:
        host = headers.get("host", "")
        if self._hosts and _name(host) not in self._hosts:
            return RefusedError(
                421,
                "unknown_host",
                "this server is not asked for under that name; see --allow-host",
                close=True,
            )
        if method in ("GET", "HEAD", "OPTIONS"):
            return None
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return RefusedError(403, "foreign_origin", "pages of other sites may not ask", close=True)
        return None


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower().rstrip(".")
