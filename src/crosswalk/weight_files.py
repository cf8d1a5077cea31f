"""Files of weights: read without running code from them, or named for what they are instead.

This is the one door: runs that go on, ``checkpoint=``, every ``pretrained=``, imports and exports
come through it.
"""

from __future__ import annotations

import argparse
import pickle
import re
import string
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crosswalk.files import read_arrays
from crosswalk.words import kind_of

WRAPPERS = ("state_dict", "model", "model_state_dict", "network", "net")
"""Names under which libraries put a state dict into a larger file."""

AGAIN = "Fetch or copy it again."
ELSEWHERE = "Ask for its state_dict, saved by torch.save or as .safetensors."
SIGNATURES = (
    (b"version https://git-lfs", "the pointer of Git LFS", "Fetch the file itself: git lfs pull."),
    (b"\x89HDF", "a file of HDF5, such as Keras writes", ELSEWHERE),
    (b"GGUF", "a model in GGUF", ELSEWHERE),
    (b"\x1f\x8b", "a gzip archive", "Unpack it, and name the file inside."),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it, and name the file inside."),
    (b"Rar!", "a rar archive", "Unpack it, and name the file inside."),
    (b"%PDF", "a PDF", AGAIN),
    (b"\x89PNG", "a picture", AGAIN),
    (b"\xff\xd8\xff", "a picture", AGAIN),
)
UNKNOWN = "a network that begins with"
PRINTABLE = frozenset(string.printable.encode()) | frozenset(range(128, 256))


def read_weight_file(path: str | Path) -> Any:  # noqa: ANN401
    """Return what a file of weights holds, on the CPU: tensors, plain values, containers.

    The format is that of the content, whatever the name: ``torch.save`` of any age, safetensors,
    or ``.npz``. NumPy's numbers and `argparse.Namespace`, which old training scripts leave in
    their checkpoints, are read; other objects are not.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else, damaged, or holds code; the message says what to do.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "best.pth"
        >>> _ = path.write_text("<!DOCTYPE html><title>Sign in</title>")
        >>> read_weight_file(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: .../best.pth is a web page, no file of weights. ...
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is missing"
        raise FileNotFoundError(f"{path} {what}: name a file of weights.")
    with path.open("rb") as file:
        head = file.read(1024)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _safetensors(path)
    if found := _other_kind(path, head):
        what, advice = found
        raise ValueError(f"{path} is {what}, no file of weights. {advice}")
    if head[:2] == b"PK":
        names = _names_in_zip(path)
        if any(name.endswith(".npy") for name in names):
            try:
                return {name: torch.from_numpy(row) for name, row in read_arrays(path).items()}
            except TypeError as error:  # text, or another kind of array that torch has not
                raise ValueError(f"{path} holds arrays that are no numbers: {error}") from error
        if not any(name.endswith("data.pkl") for name in names):
            listed = ", ".join(names[:3]) or "nothing"
            raise ValueError(
                f"{path} is a zip archive that holds {listed}, no file of weights. Unpack it, and "
                "name the file inside."
            )
        _check_sums(path)
    elif head[8:9] == b"{":
        return _safetensors(path)
    elif head[:1] != b"\x80":
        raise ValueError(
            f"{path} is no file of PyTorch, safetensors or NumPy: it begins with "
            f"{head[:8].hex(' ')}. {AGAIN} Models of OpenVINO and others are not read."
        )
    try:
        # an open file: of a path torch reads the ending, too
        with torch.serialization.safe_globals(_harmless()), path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # of whatever kind: the bytes are somebody else's
        raise ValueError(_refused(path, error)) from error


def tensors_in(path: str | Path, *, entry: str | None = None) -> dict[str, Tensor]:
    """Return the state dict in a file, without the prefixes of DataParallel and ``compile``.

    Args:
        path: As for `read_weight_file`.
        entry: Name of the state dict in a larger file; None is one of `WRAPPERS`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no state dict.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "best.pth"
        >>> torch.save({"epoch": 3, "state_dict": {"module.bias": torch.zeros(2)}}, path)
        >>> tensors_in(path)
        {'bias': tensor([0., 0.])}
    """
    content = read_weight_file(path)
    for wrapper in WRAPPERS if entry is None else (entry,):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    return state_dict_of(content, path)


def state_dict_of(content: Any, path: str | Path) -> dict[str, Tensor]:  # noqa: ANN401
    """Return ``content`` if it is a state dict, under plain names.

    Raises:
        ValueError: If it is none; the message says what it is.
    """
    if not isinstance(content, Mapping) or not content:
        size = f" of {len(content)}" if isinstance(content, (list, tuple, dict)) else ""
        kind = "nothing" if content is None else f"{kind_of(content)}{size}"
        raise ValueError(f"{path} holds {kind}, no dictionary of tensors. {ELSEWHERE}")
    odd = [name for name, row in content.items() if not _is_tensor(name, row)]
    if odd:
        listed = ", ".join(f"{name} ({type(content[name]).__name__})" for name in odd[:5])
        raise ValueError(f"{path} holds no state_dict but {listed}. {ELSEWHERE}")
    # tensors may show numbers of others, such as tied weights, but not a few over and over
    room, kept, shown = 4 * Path(path).stat().st_size, dict[int, int](), 0
    for name, row in content.items():
        kept[row.untyped_storage().data_ptr()] = row.untyped_storage().nbytes()
        shown += row.numel() * row.element_size()
        if shown > room + sum(kept.values()):
            raise ValueError(
                f"{path}: {name} is said to be {list(row.shape)}, more than the whole file. {AGAIN}"
            )
    return plain_names(content)


def _is_tensor(name: object, row: object) -> bool:
    if not isinstance(row, Tensor) or not isinstance(name, str):
        return False
    return row.layout is torch.strided and not (row.is_meta or row.is_quantized)


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without what `DataParallel` and `torch.compile` put before names.

    Example:
        >>> plain_names({"module._orig_mod.norm.bias": torch.zeros(1)})
        {'norm.bias': tensor([0.])}
    """
    names = {name: re.sub(r"(^|\.)_orig_mod\.", r"\1", name) for name in state}
    while names and all(name.startswith("module.") for name in names.values()):
        names = {name: plain.removeprefix("module.") for name, plain in names.items()}
    return {plain: state[name] for name, plain in names.items()}


def mismatch(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return in words where a state dict and a model differ: counts, and five names of each side.

    Example:
        >>> print(mismatch({"a": torch.zeros(2), "b": torch.zeros(2)}, {"b": torch.zeros(3)}))
        the file has 1 entry, the model 2, and 0 fit; shapes that differ: b [3] instead of [2]; \
        missing in the file: a
    """
    shared = [name for name in given if name in wanted]
    differing = [
        f"{name} {list(given[name].shape)} instead of {list(wanted[name].shape)}"
        for name in shared
        if given[name].shape != wanted[name].shape
    ]
    entries = "1 entry" if len(given) == 1 else f"{len(given)} entries"
    fit = len(shared) - len(differing)
    parts = [f"the file has {entries}, the model {len(wanted)}, and {fit} fit"]
    sides = {
        "shapes that differ": differing,
        "missing in the file": [name for name in wanted if name not in given],
        "unknown to the model": [name for name in given if name not in wanted],
    }
    for title, names in sides.items():
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            parts.append(f"{title}: {', '.join(names[:5])}{more}")
    ours, theirs = architecture_in(wanted), architecture_in(given)
    if ours != theirs and not theirs.startswith(UNKNOWN):
        parts.append(f"the weights are {theirs}, configured is {ours}")
    return "; ".join(parts)


def architecture_in(state: Mapping[str, Tensor]) -> str:
    """Return which kind of network a state dict seems to be of, and the length of its vectors.

    Example:
        >>> architecture_in({"backbone.layer1.0.conv1.weight": torch.zeros(8, 3, 1, 1)})
        'a ResNet (8)'
    """
    kinds = {
        "a CLIP": r"(^|\.)text_projection$|token_embedding\.weight$",
        "a ViT of torchvision": r"encoder_layer_0\.",
        "a ViT of Hugging Face": r"embeddings\.patch_embeddings",
        "a ViT": r"(^|\.)pos_embed$|blocks\.0\.attn\.",
        "a ResNet": r"(^|\.)layer1\.0\.conv1\.",
        "a MobileNet or EfficientNet of torchvision": r"(^|\.)features\.0\.0\.weight$",
        "a MobileNet or EfficientNet of timm": r"(^|\.)conv_stem\.",
    }
    width = {
        "a CLIP": r"text_projection$",
        "a ViT of torchvision": r"class_token$",
        "a ViT": r"cls_token$|pos_embed$",
        "a ResNet": r"layer\d+\.\d+\.conv\d+\.weight$",
    }
    for kind, pattern in kinds.items():
        if any(re.search(pattern, name) for name in state):
            sizes = [
                row.shape for name, row in state.items() if re.search(width.get(kind, "$^"), name)
            ]
            size = sizes[-1][0 if kind == "a ResNet" else -1] if sizes and sizes[-1] else None
            return kind if size is None else f"{kind} ({size})"
    first = next(iter(state), "nothing")
    return f"{UNKNOWN} {first}"


def _other_kind(path: Path, head: bytes) -> tuple[str, str] | None:
    """Return what a file is that is no file of weights, and what to do; None if it may be one."""
    if not head:
        return "empty", AGAIN
    for signature, what, advice in SIGNATURES:
        if head.startswith(signature):
            return what, advice
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and b"\x12" in head[:4]):
        return "a model of ONNX", ELSEWHERE
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return "a part of a model of OpenVINO", ELSEWHERE
    if all(byte in PRINTABLE for byte in head) and head[8:9] != b"{":
        text = head.decode(errors="replace").lstrip("\ufeff \t\r\n").lower()
        if text.startswith(("<!doctype html", "<html", "<head", "<!--")):
            return "a web page", "Open its address in a browser, and fetch the file itself."
        return "a text", AGAIN
    return None


def _names_in_zip(path: Path) -> list[str]:
    """Return the names in a zip archive; refuse what is cut off, unpacks too far or holds code."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is cut off or damaged ({error}). {AGAIN}") from error
    names = [entry.filename for entry in entries]
    if any(name.endswith("constants.pkl") for name in names):
        raise ValueError(
            f"{path} is an archive of TorchScript, which holds code. Load it where it comes from, "
            "and save its state_dict() by torch.save."
        )
    size = path.stat().st_size
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > 50 * size + (1 << 20) and not any(name.endswith(".npy") for name in names):
        raise ValueError(f"{path} would unpack from {size} to {unpacked} bytes. {AGAIN}")
    return names


def _check_sums(path: Path) -> None:
    """Refuse an archive of which a byte has changed: torch does not look at its checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.CRC:  # 0 where torch was told to write none
                    with archive.open(entry) as file:
                        while file.read(1 << 24):
                            pass
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is cut off or damaged ({error}). {AGAIN}") from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise ValueError(f"{path} is cut off or damaged ({_brief(error)}). {AGAIN}") from error
    return weights


def _refused(path: Path, error: Exception) -> str:
    """Return what an error of `torch.load` means; its own words advise to load unsafely."""
    text = str(error)
    code = re.search(r"GLOBAL ([\w.]*\w) |Unsupported global: \w+ ([\w.]*\w) ", text)
    if isinstance(error, pickle.UnpicklingError) and code:
        name = code[1] or code[2]
        return (
            f"{path} holds more than tensors and plain values ({name}), so it was not read: "
            f"loading it would run code from it. {ELSEWHERE}"
        )
    return f"{path} is cut off or damaged, or was not written by PyTorch ({_brief(error)}). {AGAIN}"


def _brief(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "weights_only" not in line]
    words = " ".join(lines[0].split()) if lines else ""
    return words[:120] or type(error).__name__


@cache
def _harmless() -> list[Any]:
    """Return what may stand in a checkpoint beside tensors: it only keeps values."""
    scalar, array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    kinds = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    old = [(scalar, "numpy.core.multiarray.scalar"), (array, "numpy.core.multiarray._reconstruct")]
    return [scalar, array, *old, np.ndarray, np.dtype, *kinds, argparse.Namespace]
