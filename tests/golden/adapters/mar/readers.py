"""The image files of the released code, ``Market.mat`` and the like: MATLAB 7.3, that is HDF5.

Training reads image folders; what a converter of such files would have to know is compared here.
Images are stored as N x 3 x width x height, labels and cameras as N x 1.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
from numpy.typing import NDArray

from tests.golden.harness import Case, golden

SPLITS = ("train", "gallery", "probe")


def read_pixels(path: Path, variable: str, size: int) -> NDArray[np.uint8]:
    """Return ``[images, height, width, 3]``, read ``size`` images at a time: files are large."""
    with h5py.File(path, "r") as file:
        stored = file[variable]
        parts = [stored[start : start + size] for start in range(0, len(stored), size)]
    return np.concatenate(parts).transpose(0, 3, 2, 1)


def read_numbers(path: Path, variable: str) -> NDArray[np.int64]:
    """Return the identities or the cameras of the images."""
    with h5py.File(path, "r") as file:
        return np.asarray(file[variable][()]).reshape(-1).astype(np.int64)


@golden("mar", "mat_layout")
def mat_layout(case: Case) -> None:
    with TemporaryDirectory() as folder:
        target, source = Path(folder) / "Market.mat", Path(folder) / "MSMT17.mat"
        with h5py.File(target, "w") as file:
            for name in case:
                if name.startswith("hdf5_"):
                    file[name.removeprefix("hdf5_")] = case[name]
        with h5py.File(source, "w") as file:
            for name in ("data", "labels"):
                file[name] = case[f"hdf5_train_{name}"]

        for name in SPLITS:
            case.equal(f"out_{name}_images_nhwc", read_pixels(target, f"{name}_data", 2))
            case.equal(f"out_{name}_labels", read_numbers(target, f"{name}_labels"))
            case.equal(f"out_{name}_views", read_numbers(target, f"{name}_views"))
        pixels = read_pixels(target, "train_data", 3).reshape(-1, 3).astype(np.float64)
        case.close("out_train_mean_0_255", pixels.mean(axis=0))
        case.close("out_train_std_0_255", pixels.std(axis=0))
        case.equal("out_fulltraining_images_nhwc", read_pixels(source, "data", 4))
        case.equal("out_fulltraining_labels", read_numbers(source, "labels"))
