"""Reading the released .mat files."""

from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np

from crosswalk.data.readers.mar_mat import SPLITS, MatImages, read_mar_mat
from tests.golden.harness import Case, golden


def in_ranges(images: MatImages, size: int) -> np.ndarray:
    """Return all pixels, read ``size`` images at a time."""
    starts = range(0, len(images), size)
    return np.concatenate([images.pixels(a, min(a + size, len(images))) for a in starts])


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

        splits = read_mar_mat(target)
        for name in SPLITS:
            case.equal(f"out_{name}_images_nhwc", in_ranges(splits[name], 2))
            case.equal(f"out_{name}_labels", splits[name].labels)
            case.equal(f"out_{name}_views", splits[name].views)
        pixels = in_ranges(splits["train"], 3).reshape(-1, 3).astype(np.float64)
        case.close("out_train_mean_0_255", pixels.mean(axis=0))
        case.close("out_train_std_0_255", pixels.std(axis=0))
        whole = read_mar_mat(source)["train"]
        case.equal("out_fulltraining_images_nhwc", in_ranges(whole, 4))
        case.equal("out_fulltraining_labels", whole.labels)
