"""Whether the hosts of published weights can be reached."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

_LOCK = threading.RLock()


class NotFetchedError(FileNotFoundError):
    """Published weights that could not be downloaded."""


@contextmanager
def offline() -> Iterator[None]:
    """Ask the hub's cache alone: for names that somebody else may have written down."""
    from huggingface_hub import constants

    with _LOCK:
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


@contextmanager
def one_attempt() -> Iterator[None]:
    """Ask the hub's cache alone if its host cannot be reached: the hub would try for minutes."""
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    address = place.hostname or "", place.port or (80 if place.scheme == "http" else 443)
    with _LOCK:  # one thread would put back what another has set
        offline = constants.HF_HUB_OFFLINE
        if not (offline or getproxies()):
            try:
                socket.create_connection(address, timeout=10).close()
            except OSError:
                constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = offline
