from pathlib import Path

import h5py
import numpy as np
import pytest

from crosswalk.data.readers.mar_mat import read_mar_mat

SIZES = {"train": 7, "gallery": 5, "probe": 1}


def matlab(seed: int, number: int) -> np.ndarray:
    """Return images as MATLAB has them: height 4 x width 2 x 3 x images."""
    return np.random.default_rng(seed).integers(0, 256, (4, 2, 3, number), dtype=np.uint8)


def write_market(path: Path, order: tuple[str, ...] = ("train", "gallery", "probe")) -> Path:
    with h5py.File(path, "w") as file:
        for name in order:
            number = SIZES[name]
            # HDF5 from MATLAB has its axes in reverse order
            file[f"{name}_data"] = matlab(number, number).transpose()
            file[f"{name}_labels"] = np.arange(number)[:, None] * 10
            file[f"{name}_views"] = np.arange(number)[:, None] % 6 + 1
    return path


@pytest.mark.parametrize("order", [("train", "gallery", "probe"), ("probe", "train", "gallery")])
def test_images_labels_and_views_are_found_by_name(tmp_path: Path, order: tuple[str, ...]) -> None:
    splits = read_mar_mat(write_market(tmp_path / "Market.mat", order))

    assert list(splits) == ["train", "gallery", "probe"]
    for name, number in SIZES.items():
        images = splits[name]
        assert images.shape == (number, 4, 2, 3)
        assert len(images) == number
        assert images.labels.tolist() == [10 * n for n in range(number)]
        assert images.views is not None
        assert images.views.tolist() == [n % 6 + 1 for n in range(number)]
        pixels = images.pixels(0, number)
        for n in range(number):
            assert (pixels[n] == matlab(number, number)[..., n]).all()


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 7), (2, 3), (3, 7), (7, 7)])
def test_a_range_of_images_is_read_alone(tmp_path: Path, start: int, stop: int) -> None:
    images = read_mar_mat(write_market(tmp_path / "Market.mat"))["train"]

    pixels = images.pixels(start, stop)

    expected = [matlab(7, 7)[..., n] for n in range(start, stop)]
    assert pixels.shape == (stop - start, 4, 2, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert all((found == image).all() for found, image in zip(pixels, expected, strict=True))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 8), (3, 2)])
def test_a_range_outside_is_refused(tmp_path: Path, start: int, stop: int) -> None:
    images = read_mar_mat(write_market(tmp_path / "Market.mat"))["train"]

    with pytest.raises(IndexError, match=r"`train_data` in .*Market\.mat: there are 7\. Choose 0"):
        images.pixels(start, stop)


def test_reading_labels_leaves_the_pixels_on_disk(tmp_path: Path) -> None:
    # 64 GiB of pixels that were never written, so they take no room on disk
    path = tmp_path / "MSMT17.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (466_034, 3, 128, 384), np.uint8, chunks=(1, 3, 128, 384))
        file["labels"] = np.zeros((466_034, 1), np.int64)

    images = read_mar_mat(path)["train"]

    assert images.shape == (466_034, 384, 128, 3)
    assert images.pixels(466_033, 466_034).shape == (1, 384, 128, 3)


def test_the_source_file_has_labels_and_no_views(tmp_path: Path) -> None:
    path = tmp_path / "MSMT17.mat"
    with h5py.File(path, "w") as file:
        file["data"] = matlab(1, 3).transpose()
        file["labels"] = np.array([[4100.0, 0.0, 7.0]])

    splits = read_mar_mat(path)

    assert list(splits) == ["train"]
    assert splits["train"].views is None
    assert splits["train"].labels.tolist() == [4100, 0, 7]
    assert splits["train"].labels.dtype == np.int64


def test_a_missing_variable_is_told(tmp_path: Path) -> None:
    path = write_market(tmp_path / "Market.mat")
    with h5py.File(path, "a") as file:
        del file["gallery_views"]

    with pytest.raises(ValueError, match=r"has no variable gallery_views; it has gallery_data, "):
        read_mar_mat(path)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (np.zeros((3, 2, 4), np.uint8), r"uint8 of shape \(3, 2, 4\)"),
        (np.zeros((3, 4, 2, 3), np.uint8), r"uint8 of shape \(3, 4, 2, 3\)"),
        (np.zeros((3, 3, 2, 4)), r"float64 of shape \(3, 3, 2, 4\)"),
    ],
)
def test_other_pixels_are_refused(tmp_path: Path, data: np.ndarray, told: str) -> None:
    path = tmp_path / "MSMT17.mat"
    with h5py.File(path, "w") as file:
        file["data"], file["labels"] = data, np.zeros((3, 1))

    with pytest.raises(
        ValueError, match=rf"`data` in .*MSMT17\.mat is {told}, but should be uint8"
    ):
        read_mar_mat(path)


@pytest.mark.parametrize("values", [[[1], [2]], [[1.5], [2], [3]], [[float("nan")], [2], [3]]])
def test_other_labels_are_refused(tmp_path: Path, values: list[list[float]]) -> None:
    path = tmp_path / "MSMT17.mat"
    with h5py.File(path, "w") as file:
        file["data"], file["labels"] = np.zeros((3, 3, 2, 4), np.uint8), np.array(values)

    with pytest.raises(ValueError, match=r"`labels` in .* one whole number for each of the 3"):
        read_mar_mat(path)


def test_a_file_that_is_not_there_or_not_hdf5_is_told(tmp_path: Path) -> None:
    (tmp_path / "Duke.mat").write_bytes(b"MATLAB 5.0 MAT-file")

    with pytest.raises(ValueError, match=r"Duke\.mat is not HDF5\. Save it again .*-v7\.3"):
        read_mar_mat(tmp_path / "Duke.mat")
    with pytest.raises(FileNotFoundError, match=r"market\.mat is missing"):
        read_mar_mat(tmp_path / "market.mat")
