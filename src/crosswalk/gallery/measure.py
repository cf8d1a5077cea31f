"""`crosswalk calibrate` on the labelled pictures of a gallery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.config.model_file import THRESHOLDS
from crosswalk.gallery.description import read_gallery
from crosswalk.gallery.gallery import DIRECTION
from crosswalk.use.calibrate import open_set_of
from crosswalk.use.thresholds import Thresholds, read_thresholds

QUERIES = 5_000
"""Pictures that are looked for at most, drawn with a fixed seed."""

UNKNOWN = -1


def thresholds_by(path: Path, label: str) -> Thresholds:
    """Return how well scores of pictures tell that their person is in a gallery.

    Every picture with a label is a query, at most `QUERIES`; itself, and where cameras are known
    the pictures of the same person by the same camera, are left out of what it finds.

    Args:
        path: The gallery.
        label: The column that says who is on a picture; those without a value are passed over.

    Returns:
        With what the gallery knows of other directions already.

    Raises:
        ValueError: If there is no such column, or no person with two pictures.
    """
    told = read_gallery(path)
    if label not in told.columns:
        names = ", ".join(name for name in told.columns if name not in ("path", "sha256"))
        raise ValueError(
            f"{path} has no column {label}; it has {names or 'none'}. Index a CSV with one."
        )
    cameras = ["camera"] if "camera" in told.columns else []
    with told.open() as store:
        rows = store.scan(columns=[label, *cameras], vectors=True)
    assert rows.vectors is not None  # asked for
    person = _numbered(rows.meta[label])
    camera = _numbered(rows.meta["camera"]) if cameras else None
    picture = torch.arange(len(person))
    known = np.flatnonzero(person.numpy() != UNKNOWN)
    if len(known) == 0:
        raise ValueError(f"{path} cannot be measured by {label}: no picture has a value there.")
    if len(known) > QUERIES:
        known = np.sort(np.random.default_rng(0).choice(known, QUERIES, replace=False))
    gallery, some = torch.from_numpy(rows.vectors["main"]), torch.from_numpy(known)
    try:
        found = open_set_of(
            gallery[some],
            gallery,
            query_person_id=person[some],
            gallery_person_id=person,
            query_camera_id=None if camera is None else camera[some],
            gallery_camera_id=camera,
            query_picture=picture[some],
            gallery_picture=picture,
        )
    except ValueError as error:
        raise ValueError(f"{path} cannot be measured by {label}: {error}") from error
    before = read_thresholds(path / THRESHOLDS) if (path / THRESHOLDS).exists() else None
    return Thresholds(
        model=told.model or (before.model if before else "the model of the gallery"),
        fingerprint=told.fingerprint,
        data=_both(before.data if before else "", path.name),
        split=_both(before.split if before else "", label),
        directions={**(before.directions if before else {}), DIRECTION["picture"]: found},
    )


def _both(before: str, now: str) -> str:
    return now if before in ("", now) or before.endswith(f" and {now}") else f"{before} and {now}"


def _numbered(values: list[object]) -> Tensor:
    """Return the different values as numbers from 0; `UNKNOWN` where there is none."""
    numbers: dict[object, int] = {}
    found: NDArray[np.int64] = np.array(
        [UNKNOWN if v is None else numbers.setdefault(v, len(numbers)) for v in values], np.int64
    )
    return torch.from_numpy(found)
