"""What a gallery says of itself: ``gallery.json``. Imports neither NumPy nor torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import Timeout

from crosswalk.files import lock, path_meant, read_text, write_text
from crosswalk.network import offline

if TYPE_CHECKING:
    from crosswalk.gallery.store import Kind, Store
    from crosswalk.use.model import Model

FORMAT = 1
"""Of a gallery; raised when older crosswalks cannot read it."""

FILE = "gallery.json"
SERVERS = ("qdrant://", "qdrants://")
LARGEST = 1_000_000
"""Bytes of it."""

UPDATING = "update.lock"
OURS = re.compile(
    r"update\.lock|lock|rows\.sqlite(-\w+)?|\w+-\d+\.f32|index-.*|thresholds\.json|.*\.unfinished"
)
"""Names of what a first update that was killed may leave before there is a description."""

MOST_HITS = 10_000
"""Pictures that a search shows at most."""

KEPT: dict[str, Kind] = {"path": "text", "sha256": "text"}
"""Columns of every gallery."""


class Description(NamedTuple):
    """What ``gallery.json`` says.

    Attributes:
        path: The gallery's folder.
        model: What `crosswalk.load` takes; empty if nobody said.
        fingerprint: Of that model.
        dim: Numbers of an embedding.
        reads_captions: Whether the model embeds sentences.
        columns: What is known of pictures, and of which kind it is.
        store: A server that holds rows and vectors; None: they lie in the folder.
    """

    path: Path
    model: str
    fingerprint: str
    dim: int
    reads_captions: bool
    columns: dict[str, Kind]
    store: str | None

    def kept(self) -> AbstractContextManager[None]:
        """Return the context in which the model is looked for: it is fetched from nowhere."""
        fetched = self.model.partition(":")[0] in ("hf", "timm", "open_clip")
        return offline() if fetched else nullcontext()

    def open(self, *, write: bool = False) -> Store:
        """Return the store of its rows and vectors.

        Raises:
            ValueError: If it is on a server that this user has not named.
        """
        from crosswalk.gallery.open import open_store
        from crosswalk.gallery.servers import check_known

        if self.store is not None:
            check_known(self.store, self.path)
        place = self.store or self.path
        return open_store(place, dim=self.dim, columns=self.columns, write=write)

    def write(self) -> None:
        """Write it into the folder."""
        told = {"format": FORMAT, **self._asdict()}
        del told["path"]
        write_text(self.path / FILE, json.dumps(told, indent=1) + "\n")

    def check_model(self, model: Model) -> None:
        """Raise ValueError if it was built with another model."""
        if model.fingerprint != self.fingerprint:
            raise ValueError(
                f"{self.path} was built with {self.model or 'another model'} (fingerprint "
                f"{self.fingerprint}); {model.name} ({model.fingerprint}) embeds differently, and "
                "the two cannot be compared. Name that model, or another gallery."
            )

    def check_store(self, store: str | None) -> None:
        """Raise ValueError if it is kept elsewhere."""
        if store not in (None, self.store):
            raise ValueError(
                f"{self.path} is kept in {self.store or 'its folder'}, not in {store}. Leave "
                "--store out, or name another gallery."
            )


def check_new_or_gallery(path: Path) -> bool:
    """Return whether there is a gallery; what is there otherwise is refused.

    Raises:
        ValueError: If ``path`` is a file, or a folder of something else.
    """
    others = path.is_dir() and any(not OURS.fullmatch(each.name) for each in path.iterdir())
    if others and not (path / FILE).exists():
        raise ValueError(
            f"{path} is a folder of something else: it has no {FILE}. Name a new folder."
        )
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file. Name a new folder for the gallery.")
    return (path / FILE).exists()


@contextmanager
def updating(path: Path) -> Iterator[None]:
    """Keep other updates of a gallery away.

    Raises:
        RuntimeError: If one is going on.
    """
    held = lock(path / UPDATING)
    try:
        held.acquire(timeout=0.1)
    except Timeout:
        raise RuntimeError(
            f"{path} is being updated by another process. Wait until it is done, and repeat the "
            "command; searching works meanwhile."
        ) from None
    try:
        yield
    finally:
        held.release()


def read_gallery(path: Path) -> Description:
    """Return what a gallery says of itself.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no gallery, damaged, or of a later crosswalk.

    Example:
        >>> read_gallery(Path("nowhere.gallery"))
        Traceback (most recent call last):
            ...
        FileNotFoundError: nowhere.gallery does not exist. `crosswalk index MODEL FOLDER --out \
        nowhere.gallery` makes it.
    """
    again = f"`crosswalk index MODEL FOLDER --out {path}` makes it"
    file = path / FILE
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.{path_meant(path)} {again}.")
    if not file.is_file():
        raise ValueError(
            f"{path} is no gallery: it has no {FILE}. `crosswalk index MODEL FOLDER --out <new "
            "folder>` makes one."
        )
    try:
        told = json.loads(read_text(file, limit=LARGEST))
        if not isinstance(told, dict):
            raise ValueError("it holds no entries")
        if told.get("format") != FORMAT:
            raise ValueError(f"its format {told.get('format')!r} is not known here")
        columns = told["columns"]
        right = (
            isinstance(told["model"], str)
            and isinstance(told["fingerprint"], str)
            and isinstance(told["reads_captions"], bool)
            and type(told["dim"]) is int
            and 1 <= told["dim"] <= 1 << 16
            and (told["store"] is None or str(told["store"]).startswith(SERVERS))
            and all(
                name.isidentifier() and kind in ("number", "text", "time")
                for name, kind in columns.items()
            )
            and all(columns.get(name) == kind for name, kind in KEPT.items())
        )
        if not right:
            raise ValueError("its entries are not those of a gallery")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{file} is damaged ({error}). Put back a copy, or delete {path}; then {again} again."
        ) from error
    return Description(path, **{name: told[name] for name in Description._fields if name != "path"})
