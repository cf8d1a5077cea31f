"""The servers that galleries of this user are kept on.

A gallery may be somebody else's, and opening it must not send queries, or a key, to where it says.
"""

from __future__ import annotations

from pathlib import Path

from crosswalk.cache_folder import cache_root
from crosswalk.config.stored import trusts_all
from crosswalk.files import read_text, write_text

FILE = "gallery-servers.txt"
MEMORY = ":memory:"


def remember(store: str) -> None:
    """Note a server that the user has named."""
    known = _known()
    if (place := place_of(store)) not in known:
        write_text(cache_root() / FILE, "".join(f"{each}\n" for each in sorted({*known, place})))


def check_known(store: str, gallery: Path) -> None:
    """Refuse a server that this user has not named on this machine, unless all is trusted.

    Raises:
        ValueError: If it is another one.
    """
    place = place_of(store)
    if place == MEMORY or place in _known() or trusts_all():
        return
    raise ValueError(
        f"{gallery} is kept on the server {place}, which you have not named on this machine: "
        "nothing was sent there. If you know it, add --trust, or name it once with `crosswalk "
        f"index MODEL FOLDER --out {gallery} --store {store}`."
    )


def place_of(store: str) -> str:
    """Return the host and the port of a store.

    Example:
        >>> place_of("qdrant://db.example:6333/photos")
        'db.example:6333'
    """
    return store.partition("://")[2].partition("/")[0].lower()


def _known() -> set[str]:
    file = cache_root() / FILE
    return set(read_text(file).split()) if file.is_file() else set()
