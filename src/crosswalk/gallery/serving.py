"""`crosswalk serve`: who may ask, where it listens, and the server itself."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from crosswalk.gallery.description import read_gallery
from crosswalk.use.source import source_of

if TYPE_CHECKING:
    import uvicorn

    from crosswalk.gallery.gallery import Gallery
    from crosswalk.gallery.web_guard import Access

TOKEN = "CROSSWALK_TOKEN"
"""Variable of the environment that holds the token, which other users would see in a command."""

SHORTEST = 16
"""Signs of a token: fewer can be guessed."""

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")

AT_ONCE = 1_000
"""Connections; whoever comes beyond is told to try again."""


def check(options: Namespace) -> socket.socket:
    """Refuse what cannot be served, before anything slow is imported; return where to listen.

    Raises:
        FileNotFoundError: If the gallery is missing.
        ValueError: If it is none, others could reach it without a token, or the place is taken.
    """
    told = read_gallery(options.gallery)
    with nullcontext() if options.model else told.kept():
        source_of(options.model or told.model)
    missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise ValueError(
            f"the page needs {', '.join(missing)}: "
            'pip install "<folder or URL of crosswalk>[serve]".'
        )
    options.token = options.token or os.environ.get(TOKEN) or None
    if options.token is not None and not _is_strong(options.token):
        raise ValueError(
            f"the token should be at least {SHORTEST} letters, digits and signs of ASCII, such as "
            f"{secrets.token_urlsafe(18)}."
        )
    family, address = _address(options.host, options.port)
    if options.token is None and not ipaddress.ip_address(address[0]).is_loopback:
        raise ValueError(
            f"--host {options.host}: others could look at the pictures. Say who may by a token, "
            f"--token or {TOKEN}, such as {secrets.token_urlsafe(18)}; or leave --host out, and "
            "come by `ssh -L 8000:localhost:8000`."
        )
    try:
        return socket.create_server(address[:2], family=family, backlog=AT_ONCE)
    except OSError as error:
        raise ValueError(
            f"--host {options.host} --port {options.port} cannot be listened to: "
            f"{error.strerror or error}. Name another --port; 0 takes a free one."
        ) from error


def access_of(options: Namespace, listening: socket.socket) -> Access:
    """Return who may ask."""
    from crosswalk.gallery.web_guard import Access

    address = ipaddress.ip_address(listening.getsockname()[0])
    names = {options.host, str(address), *options.name}
    if address.is_loopback or address.is_unspecified:
        names.update(LOOPBACK)
    if address.is_unspecified:
        names.update((socket.gethostname(), socket.getfqdn()))
    return Access(
        frozenset(name.lower() for name in names),
        any_address=address.is_unspecified,
        token=options.token,
    )


def serve(options: Namespace, listening: socket.socket) -> int:
    """Answer until Ctrl-C, and return the exit status."""
    from crosswalk.gallery.gallery import Gallery
    from crosswalk.use.load import load

    told = read_gallery(options.gallery)
    with nullcontext() if options.model else told.kept():
        model = load(options.model or told.model, device=options.device)
    with Gallery(options.gallery, model=model) as gallery:
        access = access_of(options, listening)
        server = server_of(gallery, access, log_queries=options.log_queries)
        print(f"{gallery} at {address_of(options, listening)} until Ctrl-C", flush=True)
        try:
            server.run(sockets=[listening])
        except SystemExit:  # how a signal ends a command: this one is to be ended so
            if not server.should_exit:
                raise
    return 0


def server_of(gallery: Gallery, access: Access, *, log_queries: bool = False) -> uvicorn.Server:
    """Return what answers, as soon as it is run on a socket."""
    import uvicorn

    from crosswalk.gallery.serve import app_of

    return uvicorn.Server(
        uvicorn.Config(
            app_of(gallery, access, log_queries=log_queries),
            access_log=False,  # it would hold the queries
            log_level="warning",
            lifespan="off",
            ws="none",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=AT_ONCE,
            timeout_graceful_shutdown=5,
        )
    )


@contextmanager
def served(gallery: Gallery, *, token: str | None = None) -> Iterator[str]:
    """Serve the page of a gallery from a thread, and hand out its address on this machine."""
    from crosswalk.gallery.web_guard import Access

    with socket.create_server(("127.0.0.1", 0), backlog=AT_ONCE) as listening:
        server = server_of(gallery, Access(frozenset(LOOPBACK), token=token))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def address_of(options: Namespace, listening: socket.socket) -> str:
    """Return what to open in a browser."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    elif ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/" + ("?token=<token>" if options.token else "")


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        if not host:
            raise OSError("it is empty")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"--host {host!r} is no address of this machine ({error}). Leave it out, or name one, "
            "such as 0.0.0.0 for all."
        ) from error
    family, _, _, _, address = found[0]
    return family, (str(address[0]), port)


def _is_strong(token: str) -> bool:
    return len(token) >= SHORTEST and token.isascii() and token.isprintable() and " " not in token
