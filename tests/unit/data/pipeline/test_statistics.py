import numpy as np
import pytest
import torch
from torch import Tensor

from crosswalk.data.pipeline.statistics import camera_statistics, channel_statistics


class Images:
    """Images in memory."""

    def __init__(self, pixels: Tensor, broken: dict[int, str] | None = None) -> None:
        self.pixels = pixels
        self.broken = broken or {}

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: np.ndarray) -> Tensor:
        return self.pixels[torch.from_numpy(index)]


def random_images(number: int, height: int = 7, width: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    colours = torch.tensor([256, 100, 30])[:, None, None]
    return (torch.rand(number, 3, height, width, generator=generator) * colours).byte()


@pytest.mark.parametrize("number", [1, 16, 17, 40])
def test_channel_statistics_are_those_of_all_pixels(number: int) -> None:
    pixels = random_images(number)

    mean, std = channel_statistics(Images(pixels))

    values = pixels.numpy().transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert mean == pytest.approx(values.mean(axis=1).tolist(), rel=1e-12)
    assert std == pytest.approx(values.std(axis=1).tolist(), rel=1e-12)  # population deviation


def test_camera_statistics_are_those_of_each_cameras_pixels() -> None:
    pixels = random_images(37)
    camera_id = np.random.default_rng(0).choice([-1, 0, 2, 4], 37)

    statistics = camera_statistics(Images(pixels), camera_id, num_cameras=6)

    assert statistics.shape == (6, 2, 3)
    assert statistics.dtype == torch.float32
    for camera in range(6):
        chosen = pixels.numpy()[camera_id == camera].transpose(1, 0, 2, 3).reshape(3, -1) / 255
        if camera in (0, 2, 4):
            expected = np.stack([chosen.mean(axis=1), chosen.std(axis=1)])
            assert np.allclose(statistics[camera].numpy(), expected, rtol=1e-6, atol=0)
        else:
            assert statistics[camera].isnan().all()


def test_images_that_cannot_be_read_do_not_count() -> None:
    pixels = random_images(9)
    pixels[[2, 5]] = 0

    found = channel_statistics(Images(pixels, {2: "missing", 5: "empty"}))

    kept = [place for place in range(9) if place not in (2, 5)]
    assert found == channel_statistics(Images(pixels[kept]))


@pytest.mark.parametrize("pixels", [random_images(0), torch.full((3, 3, 2, 2), 7).byte()])
def test_images_that_cannot_be_normalised_are_an_error(pixels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"cannot be normalised.*data\.normalization=given"):
        channel_statistics(Images(pixels))
