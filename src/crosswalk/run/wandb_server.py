"""Whether W&B's server is wanted and there, found out without importing wandb."""

from __future__ import annotations

import contextlib
import netrc
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

MODES = ("online", "offline", "disabled", "shared")
PATIENCE = 5.0
"""Seconds for an answer of W&B's server; without one a run goes on offline."""


def is_logged_in(environment: Mapping[str, str]) -> bool:
    """Return whether a W&B key is at hand, in the environment or in the netrc file.

    Example:
        >>> is_logged_in({"WANDB_API_KEY": "0123"}), is_logged_in({"NETRC": "/nowhere"})
        (True, False)
    """
    if environment.get("WANDB_API_KEY"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    home = Path(environment.get("HOME", os.path.expanduser("~")))
    files = [Path(environment["NETRC"])] if "NETRC" in environment else []
    for path in [*files, *(() if files else (home / ".netrc", home / "_netrc"))]:
        if path.exists():
            try:
                return netrc.netrc(path).authenticators(host) is not None
            except netrc.NetrcParseError:
                return False  # W&B cannot read it either
    return False


def wandb_mode(environment: Mapping[str, str]) -> str:
    """Return the mode of W&B: what WANDB_MODE says, else offline unless the user is logged in.

    Raises:
        ValueError: If WANDB_MODE names no mode.

    Example:
        >>> wandb_mode({"NETRC": "/nowhere"}), wandb_mode({"WANDB_MODE": "disabled"})
        ('offline', 'disabled')
    """
    mode = environment.get("WANDB_MODE", "").strip().lower()
    if environment.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
        mode = "disabled"
    mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
    if mode and mode not in MODES:
        raise ValueError(
            f"WANDB_MODE={environment['WANDB_MODE']} is no mode of W&B. Set it to one of "
            f"{', '.join(MODES)}, or unset it."
        )
    if mode:
        return mode
    return "online" if is_logged_in(environment) else "offline"


def is_reachable(environment: Mapping[str, str], patience: float = PATIENCE) -> bool:
    """Return whether W&B's server, or the proxy before it, takes a connection.

    Example:
        >>> is_reachable({"WANDB_BASE_URL": "http://127.0.0.1:9"})
        False
    """
    server = environment.get("WANDB_BASE_URL", "https://api.wandb.ai")
    names = [f"{urlsplit(server).scheme}_proxy", "all_proxy"]
    proxies = [environment.get(word) for name in names for word in (name, name.upper())]
    url = urlsplit(next(filter(None, proxies), server))
    port = url.port or {"http": 80, "socks5": 1080}.get(url.scheme, 443)
    reached = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((url.hostname, port), patience):
            reached.set()

    # in a thread of its own: nothing limits how long a name is looked for
    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(patience)
    return reached.is_set()
