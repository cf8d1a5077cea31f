"""What happens to files: cut off, emptied, replaced by a page of a server, by another kind of file.

`damages` is what the tests are generated from; every entry makes of the bytes of a file those of a
damaged one.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

Damage = Callable[[bytes], bytes | None]
"""From what a file holds to what is found in its place; None: nothing is."""


class _Exploit:
    """Unpickled, it makes a file; nothing may ever unpickle it."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("exploited.txt", "w")


def _zip_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(255 - byte for byte in content[middle : middle + 64])
        + content[middle + 64 :]
    )


_noise = np.random.default_rng(3).bytes(1000)
_page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body></body></html>\n"
_pointer = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a7" * 32 + b"\nsize 132735\n"
)

ANY: Mapping[str, Damage] = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "noise": lambda content: _noise,
    "zeros": lambda content: bytes(len(content)),
    "page": lambda content: _page,
    "pointer": lambda content: _pointer,
}
"""Of every kind of file."""

TEXT: Mapping[str, Damage] = {
    **ANY,
    "cut": lambda content: content[: len(content) // 2],
    "utf16": lambda content: content.decode().encode("utf-16"),
    "latin1": lambda content: content[:5] + b"\xe9" + content[5:],
    "nul": lambda content: content[: len(content) // 2] + b"\0" + content[len(content) // 2 :],
    "deep": lambda content: b"[" * 100_000,
}

YAML: Mapping[str, Damage] = {
    **TEXT,
    "list": lambda content: b"- 1\n- 2\n",
    "scalar": lambda content: b"3\n",
    "null": lambda content: b"null\n",
    "tab": lambda content: b"a:\n\tb: 1\n",
    "tag": lambda content: b"seed: !!python/object/apply:os.system [touch exploited.txt]\n",
    "aliases": lambda content: (
        b"a0: &a0 [x, x]\n"
        + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40))
    ),
    "twice": lambda content: content + b"\n---\n" + content,
}

JSON: Mapping[str, Damage] = {
    **TEXT,
    "list": lambda content: b"[1, 2]",
    "scalar": lambda content: b"3",
    "null": lambda content: b"null",
    "more": lambda content: content + b"}",
    "digits": lambda content: b'{"best": ' + b"9" * 6000 + b"}",
}

ARCHIVE: Mapping[str, Damage] = {
    **ANY,
    "cut": lambda content: content[: len(content) // 2],
    "kilobyte": lambda content: content[:1000],
    "flipped": _flipped,
    "text": lambda content: b"these are not the bytes that you look for\n",
    "json": lambda content: json.dumps({"a": [1, 2]}).encode(),
    "zip": lambda content: _zip_of("readme.txt", b"hello"),
    "pickle": lambda content: pickle.dumps(_Exploit(), protocol=2),
    "code": lambda content: _saved({"state_dict": _Exploit()}),
}
"""Of checkpoints and arrays."""


def damage(path: Path, change: Damage) -> None:
    """Put a damaged file in the place of ``path``."""
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def copy_of(folder: Path, target: Path) -> Path:
    """Return a copy of a run folder; checkpoints, which nothing changes in place, are links."""
    return Path(shutil.copytree(folder, target, copy_function=_copy))


def _copy(source: str, target: str) -> None:
    if source.endswith(".ckpt"):
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)
