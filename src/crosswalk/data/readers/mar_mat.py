"""The image files of the released MAR code: ``Market.mat``, ``Duke.mat`` and ``MSMT17.mat``.

For comparing with that code; training reads image folders. The files are MATLAB 7.3, that is HDF5.
The target sets hold ``{train,gallery,probe}_{data,labels,views}``, the source set ``data`` and
``labels``. Images are 384x128, stored as N x 3 x width x height; labels are the relabelled
identities and views the cameras, from 1. The released code keeps all of it in memory, 40 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "gallery", "probe")


@dataclass(frozen=True)
class MatImages:
    """Images of one split with their labels; the pixels stay on disk until they are asked for.

    Attributes:
        path: The .mat file.
        variable: Name of the pixels in it.
        shape: ``(images, height, width, 3)``.
        labels: ``[images]`` int64 identities.
        views: ``[images]`` int64 cameras; None where the file has none.
    """

    path: Path
    variable: str
    shape: tuple[int, int, int, int]
    labels: NDArray[np.int64]
    views: NDArray[np.int64] | None

    def __len__(self) -> int:
        return self.shape[0]

    def pixels(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return ``[stop - start, height, width, 3]`` uint8 pixels, read from the file now.

        Args:
            start: First image, from 0.
            stop: One after the last image; at most ``len(self)``.

        Raises:
            IndexError: If the range does not lie within the images.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as name:
            ...     path = Path(name) / "MSMT17.mat"
            ...     with h5py.File(path, "w") as file:
            ...         file["data"] = np.zeros((5, 3, 2, 4), np.uint8)
            ...         file["labels"] = np.zeros((5, 1), np.int64)
            ...     read_mar_mat(path)["train"].pixels(1, 3).shape
            (2, 4, 2, 3)
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(
                f"Images {start} to {stop} of `{self.variable}` in {self.path}: there are "
                f"{len(self)}. Choose 0 <= start <= stop <= {len(self)}."
            )
        with h5py.File(self.path, "r") as file:
            stored = file[self.variable][start:stop]
        return np.ascontiguousarray(stored.transpose(0, 3, 2, 1))


def read_mar_mat(path: Path) -> dict[str, MatImages]:
    """Return the splits of a .mat file: train, gallery and probe, or train alone for the source.

    Variables are found by name; the released code takes them by alphabetical position, which is
    the same for its own files.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not HDF5, or a variable is missing or has another shape.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = Path(name) / "MSMT17.mat"
        ...     with h5py.File(path, "w") as file:
        ...         file["data"] = np.zeros((3, 3, 2, 4), np.uint8)
        ...         file["labels"] = np.array([[7], [7], [9]])
        ...     splits = read_mar_mat(path)
        >>> list(splits), splits["train"].labels.tolist(), splits["train"].views
        (['train'], [7, 7, 9], None)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. It is made by the data script of the released MAR code, or "
            "fetched from its authors; on some systems Market.mat and market.mat differ."
        )
    if not h5py.is_hdf5(path):
        raise ValueError(
            f"{path} is not HDF5. Save it again in MATLAB with the flag -v7.3, or fetch it again "
            "if the download was interrupted."
        )
    with h5py.File(path, "r") as file:
        if "data" in file:
            return {"train": _images(path, file, "", with_views=False)}
        return {split: _images(path, file, f"{split}_", with_views=True) for split in SPLITS}


def _images(path: Path, file: h5py.File, prefix: str, *, with_views: bool) -> MatImages:
    names = [f"{prefix}{name}" for name in ("data", "labels", "views")[: 2 + with_views]]
    missing = [name for name in names if not isinstance(file.get(name), h5py.Dataset)]
    if missing:
        raise ValueError(
            f"{path} has no variable {', '.join(missing)}; it has {', '.join(sorted(file))}. "
            "A target file holds {train,gallery,probe}_{data,labels,views}, the source file data "
            "and labels."
        )
    data = file[names[0]]
    if data.ndim != 4 or data.shape[1] != 3 or data.dtype != np.uint8:
        raise ValueError(
            f"`{names[0]}` in {path} is {data.dtype} of shape {data.shape}, but should be uint8 "
            "of images x 3 x width x height (height x width x 3 x images in MATLAB)."
        )
    number, _, width, height = data.shape
    vectors = [_vector(path, file, name, number) for name in names[1:]]
    return MatImages(
        path, names[0], (number, height, width, 3), vectors[0], vectors[1] if with_views else None
    )


def _vector(path: Path, file: h5py.File, name: str, number: int) -> NDArray[np.int64]:
    stored = file[name][()]
    values = np.asarray(stored).reshape(-1)
    if len(values) != number or (values != np.round(values)).any():
        raise ValueError(
            f"`{name}` in {path} has shape {np.shape(stored)}, but should hold one whole number "
            f"for each of the {number} images."
        )
    return values.astype(np.int64)
