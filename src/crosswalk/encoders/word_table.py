"""A vector for every word of a vocabulary, from CLIP's text encoder or a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from crosswalk.byte_pairs import byte_pairs
from crosswalk.cache_folder import build_once, cache_root
from crosswalk.encoders.clip_text import ClipText, open_clip_text
from crosswalk.encoders.clip_weights import downloading, local_file
from crosswalk.encoders.word_vectors import MakeTable, Words

_SETTING = "encoder.text.vectors.table.pretrained"
_VERSION = 1
"""Changes when the same settings give other rows."""


def clip_word_table(
    words: Words,
    *,
    name: str = "ViT-B-32-quickgelu",
    pretrained: str = "openai",
    template: str = "{}",
    normalize: bool = False,
    folder: Path | None = None,
) -> Tensor:
    """Return what CLIP's text encoder makes of each word alone.

    That is the end token behind the text projection, as for any caption. Built once for a
    vocabulary and a model, which takes minutes on two cores, and kept in the cache folder.
    Source: Han et al., CM-MoCo, BMVC 2021: the ViT-B/32's vectors for all image encoders. Template
    and normalisation are not published; the bare word without normalisation is ours.

    Args:
        words: The word of each token id; "" is an id that is padding only.
        name: Of a CLIP in open_clip, or ``tiny``, see `open_clip_text`.
        pretrained: A local file, one that comes with this package, or a tag that open_clip can
            download.
        template: What is encoded, with the word for ``{}``, such as ``a photo of {}``.
        normalize: Whether rows are scaled to length 1.
        folder: The cache folder; default `cache_root`.

    Returns:
        ``[len(words), embed_dim]`` float32; zeros for padding.

    Raises:
        ValueError: If the template has no place for the word, or the model is not supported.
        FileNotFoundError: If there are no such weights.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     table = clip_word_table(
        ...         ["", "red", "blue"], name="tiny", pretrained="tiny_clip.safetensors",
        ...         folder=Path(folder),
        ...     )
        >>> table.shape, table[0].any()
        (torch.Size([3, 64]), tensor(False))
    """
    if template.count("{}") != 1:
        raise ValueError(
            f"encoder.text.vectors.table.template={template!r} should have one {{}}, for the word."
        )
    settings = {
        "version": _VERSION,
        "name": name,
        "pretrained": _identity(pretrained),
        "template": template,
        "normalize": normalize,
    }
    digest = hashlib.sha256(json.dumps([settings, list(words)]).encode()).hexdigest()
    entry = (folder or cache_root()) / f"word-table-{digest[:24]}"

    def write(unfinished: Path) -> None:
        Console(stderr=True).print(
            f"Encoding {len(words)} words with the text encoder of {name}.", style="dim"
        )
        # a run draws the same with and without the cache, and keeps no random table in it
        with torch.random.fork_rng(devices=[]), downloading(True):
            clip = open_clip_text(name=name, pretrained=pretrained, setting=_SETTING)
        rows = _encode(clip, words, template)
        if normalize:
            rows = torch.nn.functional.normalize(rows, dim=1)
        np.save(unfinished / "rows.npy", rows.numpy())
        (unfinished / "index.json").write_text(json.dumps({**settings, "words": list(words)}))

    build_once(entry, write)
    return torch.from_numpy(np.load(entry / "rows.npy"))


def file_word_table(words: Words, *, file: str) -> Tensor:
    """Return the table in a file, such as CM-MoCo's released ``clip_vocab_vit.npy``.

    Args:
        words: The word of each token id.
        file: A ``.npy`` with ``[len(words), D]`` numbers.

    Returns:
        ``[len(words), D]`` float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has not one row for each word.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/rows.npy", np.eye(2))
        ...     file_word_table(["", "a"], file=f"{folder}/rows.npy")
        tensor([[1., 0.],
                [0., 1.]])
    """
    path = Path(file)
    key = f"encoder.text.vectors.table.file={file}"
    if not path.is_file():
        raise FileNotFoundError(
            f"{key} is missing. Name the table that the checkpoint was trained with, or build one "
            "with crosswalk.encoders.word_table.clip_word_table."
        )
    rows = np.load(path, allow_pickle=False)
    if rows.ndim != 2 or len(rows) != len(words):
        raise ValueError(
            f"{key} has the shape {list(rows.shape)}, but data.tokenizer has {len(words)} token "
            "ids, padding included: one row for each is needed. Give data.tokenizer the "
            "vocabulary that the table was made for."
        )
    return torch.from_numpy(rows).float()


def joined_word_tables(words: Words, *, tables: Sequence[MakeTable]) -> Tensor:
    """Return several tables side by side.

    Source: Han et al., CM-MoCo, BMVC 2021, released configurations: 512 channels of the ViT-B/32
    and 640 of the RN50x4.

    Args:
        words: The word of each token id.
        tables: Each called ``table(words)``.

    Returns:
        ``[len(words), sum of the tables' channels]``.

    Example:
        >>> ones, zeros = lambda words: torch.ones(len(words), 1), lambda words: torch.zeros(2, 2)
        >>> joined_word_tables(["", "a"], tables=[ones, zeros])
        tensor([[1., 0., 0.],
                [1., 0., 0.]])
    """
    return torch.cat([table(words) for table in tables], dim=1)


def missing_word_table(words: Words, *, size: int) -> Tensor:
    """Return a table that a checkpoint of this package fills, for weights without their CLIP file.

    Its numbers are NaN until then, and loading a checkpoint without table into it is an error.

    Args:
        words: The word of each token id.
        size: Channels of the table in the checkpoint.

    Example:
        >>> missing_word_table(["", "a"], size=1)
        tensor([[nan],
                [nan]])
    """
    return torch.full((len(words), size), torch.nan)


@torch.no_grad()
def _encode(clip: ClipText, words: Words, template: str) -> Tensor:
    """Return one row per word; sentences of similar length are encoded together."""
    texts = [template.replace("{}", word) for word in words]
    tokens: Tensor = byte_pairs()(texts, context_length=clip.context_length)
    length = (tokens.argmax(dim=1) + 1).to(torch.int64)
    rows = torch.empty(len(words), clip.num_features)
    for some in torch.split(length.argsort(stable=True), 256):
        rows[some] = clip(tokens[some], length[some], int(length[some].max()))
    rows[[number for number, word in enumerate(words) if not word]] = 0
    return rows


def _identity(pretrained: str) -> list[str | int]:
    """Return what tells weights apart: a tag, or name, size and time of change of a file."""
    path = local_file(pretrained)
    if path is None:
        return [pretrained]
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]
