"""`crosswalk embed`: the embeddings of a folder's images, or of a table's, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosswalk.files import check_writable, refuse_inside, write_arrays
from crosswalk.use.inputs import Inputs
from crosswalk.words import counted

if TYPE_CHECKING:
    from crosswalk.use.model import Model


def check_target(target: Path, place: Path) -> None:
    """Refuse to write anything but an .npz, or beside the images that are read.

    Raises:
        ValueError: If ``target`` is refused.
        FileNotFoundError: If its folder does not exist.
    """
    if target.suffix != ".npz":
        raise ValueError(f"--out {target} should end in .npz, NumPy's format for arrays by name.")
    if not target.absolute().parent.is_dir():
        check_writable(target, "--out")
        raise FileNotFoundError(f"--out {target}: there is no folder {target.parent}. Make it.")
    check_writable(target, "--out")
    if place.is_dir():
        refuse_inside(target, place, (), "--out", given=place)


def embed_files(model: Model, inputs: Inputs, target: Path, *, batch_size: int, skip: bool) -> int:
    """Embed, write ``target``, say so, and return the number of images that could not be read.

    The file has ``path`` and ``embedding``, a row per image; where there are sentences
    ``caption``, ``caption_embedding`` and ``caption_path``; the name and the fingerprint of the
    model; and ``broken``, the files that are left out.

    Args:
        model: Embeds.
        inputs: From `inputs_of`.
        target: The .npz.
        batch_size: Images computed at a time.
        skip: Whether images that cannot be read are left out.

    Raises:
        ValueError: If none can be read, or one cannot and ``skip`` is false.
    """
    import numpy as np

    from crosswalk.use.model import SentenceError

    captions: Any = None
    if inputs.captions:  # first: of a sentence without words it is heard before hours of images
        try:
            captions = model.embed_texts(inputs.captions, progress=True).numpy()
        except SentenceError as error:
            line = inputs.lines[error.place]
            raise ValueError(f"line {line}: {error.caption!r} has no words. Write some.") from error
    broken: dict[int, str] = {}
    rows = model.embed_images(
        inputs.images,
        batch_size=batch_size,
        on_error="skip" if skip else "raise",
        broken=broken,
        progress=True,
    )
    paths = [str(path) for path in inputs.images]
    if len(broken) == len(paths):
        raise ValueError(f"no image of {len(paths):,} can be read: {broken[0]}.")
    arrays: Mapping[str, Any] = {
        "path": np.array([path for place, path in enumerate(paths) if place not in broken]),
        "embedding": rows.numpy(),
        "broken": np.array([paths[place] for place in broken], dtype=np.str_),
        "model": np.array(model.name),
        "fingerprint": np.array(model.fingerprint),
    }
    if inputs.captions:
        arrays = {
            **arrays,
            "caption": np.array(inputs.captions),
            "caption_embedding": captions,
            "caption_path": np.array([paths[place] for place in inputs.of_image]),
        }
    write_arrays(target, arrays)
    sentences = f" and {counted(len(inputs.captions), 'sentence')}" if inputs.captions else ""
    images = counted(len(rows), "image")
    print(f"In {target}: {images}{sentences}, {rows.shape[1]} numbers each.")
    for problem in broken.values():
        print(f"left out: {problem}")
    return len(broken)
