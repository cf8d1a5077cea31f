"""Who may ask the search page, how much at a time, and what every answer forbids a browser."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import secrets
import sys
import traceback
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crosswalk.pages import render

MAX_BYTES = 20_000_000  # ours
"""Of a picture that is sent."""

BODIES = 8  # ours: of MAX_BYTES at most, so that memory and disk are bounded
"""Requests with a body that are read and answered at a time; the others wait, unread."""

SECONDS = 30  # ours
"""That sending a body may take, so that a slow sender does not keep others waiting for ever."""

PAGES = ("/", "/docs")
"""What may be opened from a link elsewhere."""

COOKIE = "crosswalk"

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every answer that does not say otherwise."""

NOT_CALLED_SO = (
    "this server is not called so. Open the address that `crosswalk serve` printed, or start it "
    "with --name and the name by which it is called."
)
NOT_ITS_PAGE = "another page asks. Open this server's own page."
NO_TOKEN = "a token is needed: send it as `Authorization: Bearer <token>`."
TOO_LARGE = f"the picture is too large: at most {MAX_BYTES // 10**6} MB are read."
FAILED = "this failed, and is a mistake of the program: its terminal says where."

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.IGNORECASE)
_FORM_FIELDS = 1 << 16  # bytes beside the picture


class Access(NamedTuple):
    """Who may ask.

    Attributes:
        names: By which the server may be called, in small letters: DNS names and addresses.
        any_address: Whether any address will do; of a server that listens on all of them.
        token: Without which nothing is answered; None asks for none.
    """

    names: frozenset[str]
    any_address: bool = False
    token: str | None = None

    def knows(self, host: str) -> bool:
        """Return whether a Host header names this server.

        Somebody else's name that leads here ("DNS rebinding") would make their page one of ours.

        Example:
            >>> access = Access(frozenset({"localhost", "::1"}))
            >>> [access.knows(host) for host in ("localhost:80", "[::1]", "evil.net", "1.2.3.4")]
            [True, True, False, False]
        """
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower()
        return name in self.names or (self.any_address and _is_address(name))

    def admits(self, headers: Headers) -> bool:
        """Return whether a request has the token, as a bearer or as a cookie."""
        if self.token is None:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(bearer.strip()):
            return True
        cookie = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        return _same(cookie, _digest(self.token))

    def is_token(self, given: str) -> bool:
        """Return whether it is the token, in a time that tells nothing of it."""
        return self.token is not None and _same(_digest(given), _digest(self.token))

    @property
    def cookie(self) -> str:
        """The name of the cookie; those of two servers of one host differ, as their tokens do."""
        return f"{COOKIE}-{_digest(f'name of {self.token}')[:8]}"


class Guard:
    """Refuses requests of strangers, and limits those of everybody; around the app of the page.

    Args:
        app: What it guards.
        access: Who may ask.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._bodies = asyncio.Semaphore(BODIES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":  # start and end of the server
            await self._app(scope, receive, send)
            return
        started = False

        async def send_safe(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refused(scope, Headers(scope=scope))
        try:
            if answer is not None:
                await answer(scope, receive, send_safe)
            elif scope["method"] in ("GET", "HEAD"):
                await self._app(scope, _no_body, send_safe)
            else:
                async with self._bodies:
                    await self._app(scope, _Body(receive), send_safe)
        except Exception as error:
            _tell(error)
            if started:
                raise RuntimeError("an answer broke off") from None
            await _problem(500, FAILED)(scope, receive, send_safe)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the answer to those who may not ask; None for the others."""
        hosts, origin = headers.getlist("host"), headers.get("origin")
        if len(hosts) != 1 or not self._access.knows(hosts[0]):
            return _problem(421, NOT_CALLED_SO)
        # https: where something in front of this server speaks it
        if origin is not None and origin.lower() not in (
            f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")
        ):
            return _problem(403, NOT_ITS_PAGE)
        is_page = scope["path"] in PAGES and scope["method"] == "GET"
        is_link = is_page and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link:
            return _problem(403, NOT_ITS_PAGE)
        if self._access.token is not None:
            given = QueryParams(scope["query_string"]).get("token") if is_page else None
            if given is not None and self._access.is_token(given):
                return self._signed_in()
            if given is not None or not self._access.admits(headers):
                if is_page:
                    return page("sign_in.html.j2", 401, wrong=given is not None)
                return JSONResponse({"detail": NO_TOKEN}, 401, {"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BYTES + _FORM_FIELDS:
            return _problem(413, TOO_LARGE)
        return None

    def _signed_in(self) -> Response:
        # no redirection: after a link in a mail, a browser would follow it without the cookie
        response = HTMLResponse('<!DOCTYPE html><title>crosswalk</title><a href="/">Search</a>')
        response.headers["refresh"] = "0; url=/"
        token = self._access.token or ""
        response.set_cookie(self._access.cookie, _digest(token), httponly=True, samesite="strict")
        return response


class _Body:
    """Receives the body of a request, up to `MAX_BYTES` and for `SECONDS`."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._bytes = 0
        self._until = asyncio.get_running_loop().time() + SECONDS

    async def __call__(self) -> Message:
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"sending the picture took over {SECONDS} seconds.") from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > MAX_BYTES + _FORM_FIELDS:
            raise HTTPException(413, TOO_LARGE)
        return message


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def page(template: str, status: int = 200, **values: object) -> HTMLResponse:
    """Return a page whose own scripts and styles run, and nothing else."""
    nonce = secrets.token_urlsafe(16)
    content = render(template, nonce=nonce, **values)
    policy = {
        "default-src": "'none'",
        "script-src": f"'nonce-{nonce}'",
        "style-src": f"'nonce-{nonce}'",
        "img-src": "'self' blob: data:",  # the picture that is about to be sent; no icon
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    told = "; ".join(f"{name} {value}" for name, value in policy.items())
    return HTMLResponse(content, status, {"content-security-policy": told})


def _problem(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _tell(error: Exception) -> None:
    """Print where something failed, without what it says: that may quote a query."""
    places = "".join(traceback.format_tb(error.__traceback__))
    print(f"crosswalk serve: {type(error).__name__}\n{places}", file=sys.stderr, flush=True)
