import numpy as np
import pytest
import torch
from torch import Tensor

from crosswalk.data.pipeline.statistics import camera_statistics, channel_statistics


class Images:
    """Images in memory."""

    broken: dict[int, str] = {}  # noqa: RUF012

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: np.ndarray, key: Tensor | None = None) -> Tensor:
        return self.pixels[torch.from_numpy(index)]


def random_images(number: int, height: int = 7, width: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    colours = torch.tensor([256, 100, 30])[:, None, None]
    return (torch.rand(number, 3, height, width, generator=generator) * colours).byte()


@pytest.mark.parametrize("number", [1, 16, 17, 40])
def test_channel_statistics_are_those_of_all_pixels(number: int) -> None:
    pixels = random_images(number)

    mean, std = channel_statistics(Images(pixels), np.arange(number))

    values = pixels.numpy().transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert mean == pytest.approx(values.mean(axis=1).tolist(), rel=1e-12)
    assert std == pytest.approx(values.std(axis=1).tolist(), rel=1e-12)  # population deviation


def test_camera_statistics_are_those_of_each_cameras_pixels() -> None:
    pixels = random_images(37)
    camera_id = np.random.default_rng(0).choice([-1, 0, 2, 4], 37)

    statistics = camera_statistics(Images(pixels), np.arange(37), camera_id, num_cameras=6)

    assert statistics.shape == (6, 2, 3)
    assert statistics.dtype == torch.float32
    for camera in range(6):
        chosen = pixels.numpy()[camera_id == camera].transpose(1, 0, 2, 3).reshape(3, -1) / 255
        if camera in (0, 2, 4):
            expected = np.stack([chosen.mean(axis=1), chosen.std(axis=1)])
            assert np.allclose(statistics[camera].numpy(), expected, rtol=1e-6, atol=0)
        else:
            assert statistics[camera].isnan().all()


def test_only_images_that_are_asked_for_count() -> None:
    pixels = random_images(9)
    camera_id = np.array([1, 1, 0, 2, 2, 0, 1])
    kept = np.array([0, 1, 3, 4, 6, 7, 8])

    channels = channel_statistics(Images(pixels), kept)
    cameras = camera_statistics(Images(pixels), kept, camera_id, num_cameras=3)

    own = Images(pixels[kept])
    assert channels == channel_statistics(own, np.arange(7))
    assert torch.equal(cameras, camera_statistics(own, np.arange(7), camera_id, num_cameras=3))


@pytest.mark.parametrize("pixels", [random_images(0), torch.full((3, 3, 2, 2), 7).byte()])
def test_images_that_cannot_be_normalised_are_an_error(pixels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"cannot be normalised.*data\.normalization=given"):
        channel_statistics(Images(pixels), np.arange(len(pixels)))
