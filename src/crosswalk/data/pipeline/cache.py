"""Decoded images and tokenised captions, kept so that each is made once.

Entries of the cache folder (`crosswalk.cache_folder`), named by a fingerprint of what they were
made from. Any entry may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosswalk.cache_folder import build_once, cache_root
from crosswalk.data.pipeline.decoding import TRANSFORM_VERSION


def fingerprint(paths: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """Return a hash of the files' names, sizes and times of change, and of ``settings``.

    Example:
        >>> fingerprint([Path("no.jpg")], {"size": 3}) == fingerprint([Path("no.jpg")], {"size": 3})
        True
        >>> fingerprint([Path("no.jpg")], {"size": 3}) == fingerprint([Path("no.jpg")], {"size": 4})
        False
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in paths:
        try:
            status = os.stat(path)
            facts = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:
            facts = f"{path}\0missing\n"
        digest.update(os.fsencode(facts))  # names need not be UTF-8
    return digest.hexdigest()


def cached_tokens(
    captions: Sequence[str],
    tokenize: Callable[[Sequence[str]], Tensor],
    *,
    settings: Mapping[str, Any],
    name: str,
    kind: str = "tokens",
    folder: Path | None = None,
) -> Tensor:
    """Return ``[captions, L]`` int64 tokens, from the cache where they are there already.

    Noun phrases, numbers of units that a caption mentions, are kept likewise.

    Args:
        captions: Sentences.
        tokenize: Makes ``[n, L]`` int64 of n sentences.
        settings: What else the tokens depend on: the tokenizer's name, the context length, a hash
            of the words that it has learned.
        name: Beginning of the entry's name.
        kind: Word behind it: what the numbers are.
        folder: The cache folder; default `cache_root`.

    Example:
        >>> def count_letters(captions): return torch.tensor([[len(text)] for text in captions])
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     options = {"settings": {}, "name": "doc", "folder": Path(folder)}
        ...     _ = cached_tokens(["a", "man"], count_letters, **options)
        ...     cached_tokens(["a", "man"], print, **options)
        tensor([[1],
                [3]])
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for caption in captions:
        digest.update(caption.encode("utf-8", "surrogatepass") + b"\0")
    folder = folder or cache_root()
    entry = folder / f"{_slug(name)}-{kind}-{digest.hexdigest()[:24]}"

    def write(unfinished: Path) -> None:
        tokens = tokenize(captions).numpy()
        dtype = np.uint16 if tokens.max(initial=0) < 1 << 16 else np.int32
        np.save(unfinished / "tokens.npy", tokens.astype(dtype))

    build_once(entry, write)
    return torch.from_numpy(np.load(entry / "tokens.npy").astype(np.int64))


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


def file_entry(
    paths: Sequence[Path],
    settings: Mapping[str, Any],
    name: str,
    kind: str,
    folder: Path | None,
    write: Callable[[Path], object],
) -> Path:
    """Return the folder of an entry that depends on files, built if there is none yet.

    Args:
        paths: The files.
        settings: What else its contents depend on.
        name: What the files are.
        kind: What the entry holds of them, behind their name.
        folder: The cache folder; default `cache_root`.
        write: Fills a folder.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     entry = file_entry([], {}, "a set", "sizes", Path(folder), print)
        ...     entry.name  # doctest: +ELLIPSIS
        /...
        'a-set-sizes-e3b0c44298fc-...'
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    listed = hashlib.sha256(os.fsencode("\0".join(map(str, absolute)))).hexdigest()[:12]
    folder, prefix = folder or cache_root(), f"{_slug(name)}-{kind}-{listed}"
    entry = folder / f"{prefix}-{fingerprint(absolute, settings)[:12]}"
    if build_once(entry, write):
        for outdated in folder.glob(f"{prefix}-*"):
            # same files, changed since; a process that still reads it keeps its map
            if outdated != entry and outdated.is_dir():
                shutil.rmtree(outdated, ignore_errors=True)
    return entry


def write_index(entry: Path, broken: Mapping[int, str], **more: object) -> None:
    """Write down which images cannot be read, and what else there is to know of an entry."""
    index = {"version": TRANSFORM_VERSION, "broken": broken, **more}
    (entry / "index.json").write_text(json.dumps(index))


def read_broken(entry: Path) -> Mapping[int, str]:
    """Return what is wrong with each image that cannot be read, by place."""
    broken = json.loads((entry / "index.json").read_text())["broken"]
    return {int(place): why for place, why in broken.items()}
