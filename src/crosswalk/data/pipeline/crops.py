"""Random rectangular crops: parts of images with the shape of a person, at the files' own sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crosswalk.data.pipeline.plans import Index
from crosswalk.draws import keyed_uniform
from crosswalk.ranges import Count, Range, Share

CROP_STREAM = 8  # of the keyed draws; the operations of an `ImageTransform` have 2 to 7


def rectangular_boxes(
    draws: Tensor,
    heights: Tensor,
    widths: Tensor,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    smaller: bool = False,
) -> Tensor:
    """Return ``[B, 4]`` int64 boxes (top, left, height, width) inside images of different sizes.

    The first of the attempts whose box is not larger than the image counts; if none is, the box
    has size 0. Sizes are rounded to the even neighbour from the middle, as Python does.

    Args:
        draws: ``[B, 2 + 2 * attempts]`` float64 in [0, 1): top, left, then the area of each
            attempt, then the aspect ratio of each.
        heights: ``[B]`` int64 of the images.
        widths: ``[B]`` int64 of the images.
        area: Least and largest area of a box, as a share of the image; uniform between them.
        aspect: Least and largest height / width of a box; uniform between them.
        smaller: Whether a box has to be smaller than the image in both directions.

    Example:
        >>> draws = torch.tensor([[0.0, 0.9, 0.5, 0.5]], dtype=torch.float64)
        >>> size = torch.tensor([8]), torch.tensor([4])
        >>> rectangular_boxes(draws, *size, area=(0.25, 0.25), aspect=(2.0, 2.0))
        tensor([[0, 2, 4, 2]])
        >>> rectangular_boxes(draws, *size, area=(0.25, 0.25), aspect=(0.1, 0.1))
        tensor([[0, 0, 0, 0]])
    """
    attempts = (draws.shape[1] - 2) // 2
    low, high = area
    size = (low + (high - low) * draws[:, 2 : 2 + attempts]) * (heights * widths)[:, None]
    low, high = aspect
    ratio = low + (high - low) * draws[:, 2 + attempts :]
    box_heights, box_widths = (size * ratio).sqrt().round(), (size / ratio).sqrt().round()
    most = heights[:, None] - int(smaller), widths[:, None] - int(smaller)
    fits = (box_heights <= most[0]) & (box_widths <= most[1])
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    fits_at_all = fits.any(dim=1)
    height = box_heights.gather(1, first)[:, 0] * fits_at_all
    width = box_widths.gather(1, first)[:, 0] * fits_at_all
    top = (draws[:, 0] * (heights - height + 1)).floor() * fits_at_all
    left = (draws[:, 1] * (widths - width + 1)).floor() * fits_at_all
    return torch.stack([top, left, height, width], dim=1).long()


@dataclass(frozen=True)
class RectangularCrop:
    """Cuts a random part out of an image, before it is resized.

    An image of which no attempt fits is taken whole.
    Source: Zhong et al., ECN, CVPR 2019, and Wang and Zhang, MMCL, CVPR 2020, released code.

    Attributes:
        area: Least and largest area of the part, as a share of the image; in (0, 1].
        aspect: Least and largest height / width of the part; > 0.
        attempts: Parts tried per image.

    Example:
        >>> crop = RectangularCrop(area=(0.25, 0.25), aspect=(2.0, 2.0))
        >>> crop.boxes(torch.tensor([7]), np.array([8]), np.array([4]))[:, 2:]
        array([[4, 2]])
        >>> crop.boxes(torch.tensor([7]), np.array([4]), np.array([100]))
        array([[  0,   0,   4, 100]])
    """

    area: tuple[Share, Share] = (0.64, 1.0)
    aspect: Range = (2.0, 3.0)
    attempts: Count = 10

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(
                f"data.crop.area={list(self.area)} should be the least and the largest share of "
                "an image, for instance [0.64, 1.0]."
            )
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(
                f"data.crop.aspect={list(self.aspect)} should be the least and the largest "
                "height / width, for instance [2.0, 3.0]."
            )
        if self.attempts < 1:
            raise ValueError(f"data.crop.attempts={self.attempts} should be at least 1.")

    def boxes(self, key: Tensor, heights: Index, widths: Index) -> Index:
        """Return ``[B, 4]`` top, left, height and width, a function of key and size alone.

        Args:
            key: ``[B]`` int64 keys from `crosswalk.draws.sample_key`.
            heights: ``[B]`` of the images.
            widths: ``[B]`` of the images.
        """
        draws = keyed_uniform(key.cpu(), 2 + 2 * self.attempts, CROP_STREAM)
        size = torch.as_tensor(heights), torch.as_tensor(widths)
        boxes = rectangular_boxes(draws, *size, area=self.area, aspect=self.aspect).numpy()
        none_fits = (boxes[:, 2:] == 0).any(axis=1)
        whole = np.stack([0 * heights, 0 * widths, heights, widths], axis=1)
        return np.where(none_fits[:, None], whole, boxes)
