"""Augmentation of image re-identification: the operations of several recipes, in one order.

The operations are pure, draws in and batch out, and run on the device the batch is on; a CPU goes
through all of them in one pass (`crosswalk.data.pipeline.one_pass`), with the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from crosswalk.data.pipeline.crops import rectangular_boxes
from crosswalk.data.pipeline.one_pass import Draws
from crosswalk.data.pipeline.transforms import (
    augment,
    erase,
    erasing_boxes,
    in_chunks,
    normalize,
)
from crosswalk.draws import keyed_uniform
from crosswalk.ranges import Colour, NotNegative, Padding, Positive, Range, Share
from crosswalk.types import ImageBatch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Streams of the keyed draws: an operation's are the same whatever else is switched on.
_FLIP, _CROP, _ROTATION, _JITTER, _STYLE, _ERASE = range(2, 8)
_NOISE = 10  # 9 is that of camera-style images


def camera_style(image: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Return the images with the colours of another camera: its mean and deviation per channel.

    Ours, a cheap stand-in for the images that camera-style networks generate.

    Args:
        image: ``[B, 3, H, W]`` values 0 to 255 of any type.
        own: ``[B, 2, 3]`` mean and deviation of the channels, in [0, 1], of the camera that took
            each image.
        other: ``[B, 2, 3]`` of the camera it should seem to be from; its own changes nothing.

    Returns:
        ``[B, 3, H, W]`` float32, clipped to 0 to 255, not rounded.

    Example:
        >>> image = torch.full((1, 3, 1, 1), 102, dtype=torch.uint8)
        >>> own, other = torch.tensor([[[0.2], [0.2]], [[0.5], [0.1]]]).expand(2, 2, 3)[:, None]
        >>> camera_style(image, own, other).flatten()
        tensor([153., 153., 153.])
    """
    # a camera that has one colour only is taken to deviate by one grey
    gain = other[:, 1] / own[:, 1].clamp_min(1 / 255)
    gain = torch.where((own == other).flatten(1).all(1, keepdim=True), 1.0, gain)
    shift = 255 * (other[:, 0] - gain * own[:, 0])
    return image.float().mul(gain[:, :, None, None]).add_(shift[:, :, None, None]).clamp_(0, 255)


def uniform_erasing_boxes(
    draws: Tensor,
    *,
    height: int,
    width: int,
    probability: float,
    area: tuple[float, float],
    ratio: tuple[float, float],
    smaller: bool = False,
) -> Tensor:
    """Return ``[B, 4]`` int64 boxes (top, left, height, width) to erase; size 0 erases nothing.

    Other than `erasing_boxes`, the ratio itself is uniform, and a box may be as large as the
    image, unless it has to be ``smaller``.
    Source: Zhong et al., Random erasing data augmentation, AAAI 2020, released code.

    Args:
        draws: ``[B, 3 + 2 * attempts]`` float64 in [0, 1): whether to erase, top, left, then
            the area of each attempt, then the ratio of each.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        probability: Share of images that are erased.
        area: Least and largest area of a box, as a share of the image.
        ratio: Least and largest height / width of a box.
        smaller: Whether a box has to be smaller than the image in both directions.

    Example:
        >>> draws = torch.tensor([[0.4, 0.0, 0.9, 0.5, 0.5]], dtype=torch.float64)
        >>> options = {"height": 4, "width": 4, "area": (1.0, 1.0), "ratio": (1.0, 1.0)}
        >>> uniform_erasing_boxes(draws, probability=0.5, **options)
        tensor([[0, 0, 4, 4]])
        >>> uniform_erasing_boxes(draws, probability=0.3, **options)
        tensor([[0, 0, 0, 0]])
    """
    heights, widths = (draws.new_full((len(draws),), size).long() for size in (height, width))
    boxes = rectangular_boxes(
        draws[:, 1:], heights, widths, area=area, aspect=ratio, smaller=smaller
    )
    return boxes * (draws[:, :1] < probability)


def erase_with_noise(image: Tensor, boxes: Tensor, key: Tensor) -> Tensor:
    """Return the images with each box filled by standard normal noise, per pixel and channel.

    Source: timm's random erasing in mode ``pixel``, as TransReID and CLIP-ReID use it.

    Args:
        image: ``[B, C, H, W]`` normalised.
        boxes: ``[B, 4]`` int64 boxes from `erasing_boxes`.
        key: ``[B]`` int64 keys of the samples' draws; a pixel's noise is the same in any box.

    Example:
        >>> boxes = torch.tensor([[0, 1, 1, 2], [0, 0, 0, 0]])
        >>> erase_with_noise(torch.zeros(2, 1, 1, 3), boxes, torch.tensor([7, 8])) == 0
        tensor([[[[ True, False, False]]],
        <BLANKLINE>
        <BLANKLINE>
                [[[ True,  True,  True]]]])
    """
    # noise is drawn for these alone: half of a batch is left as it is
    erased = (boxes[:, 2] > 0).nonzero()[:, 0]
    shape = image.shape[1:]
    share = keyed_uniform(key[erased], shape.numel(), _NOISE).clamp_min(2.0**-54)  # of 0: -inf
    noise = torch.special.ndtri(share).to(image.dtype).view(-1, *shape)
    return image.index_copy(0, erased, erase(image[erased], boxes[erased], noise))


@dataclass(frozen=True)
class ImageTransform:
    """Augments and normalises images; everything but the normalisation is off by default.

    In this order: mirror, pad with black and crop, rotate, jitter the colours, take on the
    colours of another camera, normalise, erase a box. Everything is drawn per sample from
    ``batch.key``; a batch without keys is only normalised.

    Attributes:
        flip_probability: Share of images mirrored.
        padding: Pixels added on each side before the crop.
        rotation: Largest angle, in degrees, to either side; uniform.
        brightness: Factors are uniform within this distance from 1, but not below 0.
        contrast: Likewise.
        saturation: Likewise.
        camera_style: Share of images that take on the colours of a camera, drawn from all that
            have statistics, their own included; needs ``camera_statistics``.
        erase_probability: Share of images with a box erased.
        erase_area: Least and largest area of the box, as a share of the image.
        erase_ratio: Least and largest height / width of the box.
        erase_law: ``torchvision`` draws the ratio's logarithm, 10 times at most, until the box
            is smaller than the image (`erasing_boxes`); ``uniform`` draws the ratio, 100 times
            at most, until the box fits (`uniform_erasing_boxes`), ``uniform_smaller`` until it is
            smaller than the image.
        erase_fill: Value of each channel in the box, after normalisation; 0 is the mean colour.
            ``noise`` draws every value of the box by itself, normal with mean 0 and variance 1.
        mean: Of the channels, in [0, 1].
        std: Of the channels.
        camera_statistics: ``[cameras, 2, 3]`` mean and deviation of the channels per camera, in
            [0, 1], from `crosswalk.data.pipeline.statistics`; NaN where there are none.

    Example:
        >>> image = torch.zeros(1, 3, 4, 2, dtype=torch.uint8)
        >>> one = torch.tensor([0])
        >>> batch = ImageBatch(image, person_id=one, camera_id=one, sample_index=one, key=None)
        >>> ImageTransform()(batch).image[0, :, 0, 0]
        tensor([-2.1179, -2.0357, -1.8044])
    """

    flip_probability: Share = 0.0
    padding: Padding = 0
    rotation: Annotated[float, Ge(0), Le(180)] = 0.0
    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    camera_style: Share = 0.0
    erase_probability: Share = 0.0
    erase_area: tuple[Share, Share] = (0.02, 0.4)
    erase_ratio: Range = (0.3, 3.33)
    erase_law: Literal["torchvision", "uniform", "uniform_smaller"] = "torchvision"
    erase_fill: Colour | Literal["noise"] = (0.0, 0.0, 0.0)
    mean: tuple[Share, Share, Share] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD
    camera_statistics: Tensor | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("flip_probability", "camera_style", "erase_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"data.transform.{name}={getattr(self, name)} should be a probability, "
                    "between 0 and 1."
                )
        for name in ("padding", "rotation", "brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"data.transform.{name}={getattr(self, name)} should not be negative."
                )

    def __call__(self, batch: ImageBatch) -> ImageBatch:
        """Return the batch as a method wants it: augmented if it has keys, else normalised."""
        image, key = batch.image, batch.key
        if key is None:
            return batch._replace(image=in_chunks(self._color, image))
        draws = self._draws(key, *image.shape[2:])
        styles = self._styles(key, batch.camera_id) if self.camera_style else ()
        colours = partial(self._color, styles=styles)
        noise = self.erase_fill == "noise"
        fill = None if noise else torch.tensor(self.erase_fill, device=key.device)
        image = augment(image, draws, colours, fill)
        if noise and draws.boxes is not None:
            image = in_chunks(erase_with_noise, image, draws.boxes, key)
        return batch._replace(image=image)

    def _color(self, image: Tensor, styles: tuple[Tensor, ...] = ()) -> Tensor:
        if styles:
            image = camera_style(image, *styles)
        return normalize(image, self.mean, self.std)

    def _draws(self, key: Tensor, height: int, width: int) -> Draws:
        """Return what is done to each image, but for the colours of cameras."""
        draws = Draws()
        if self.flip_probability:
            flipped = keyed_uniform(key, 1, _FLIP)[:, 0] < self.flip_probability
            draws = draws._replace(flipped=flipped)
        if self.padding:
            corner = (keyed_uniform(key, 2, _CROP) * (2 * self.padding + 1)).long()
            draws = draws._replace(corner=corner, padding=self.padding)
        if self.rotation:
            angle = self.rotation * (2 * keyed_uniform(key, 1, _ROTATION)[:, 0] - 1)
            draws = draws._replace(angle=angle)
        if self.brightness or self.contrast or self.saturation:
            draws = draws._replace(jitter=self._jitter(key))
        if self.erase_probability:
            draws = draws._replace(boxes=self._boxes(key, height, width))
        return draws

    def _jitter(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return order and factors for `color_jitter`."""
        draws = keyed_uniform(key, 6, _JITTER)
        spread = draws.new_tensor([self.brightness, self.contrast, self.saturation])
        low = (1 - spread).clamp_min(0)
        return draws[:, 3:].argsort(dim=1), low + (1 + spread - low) * draws[:, :3]

    def _styles(self, key: Tensor, camera_id: Tensor) -> tuple[Tensor, Tensor]:
        """Return the statistics of each image's own camera and of the one it shall seem from."""
        if self.camera_statistics is None:
            raise ValueError(
                f"data.transform.camera_style={self.camera_style} needs camera_statistics. Give "
                "them (crosswalk.data.pipeline.statistics), or pass data.transform.camera_style=0."
            )
        # looked up before they go to the device, which need not be waited for then
        measured = ~self.camera_statistics.isnan().flatten(1).any(dim=1)
        rows = measured.nonzero().flatten().to(key.device)
        measured, statistics = measured.to(key.device), self.camera_statistics.to(key.device)
        draws = keyed_uniform(key, 2, _STYLE)
        known = camera_id.clamp(0, len(measured) - 1)
        changed = (known == camera_id) & measured[known] & (draws[:, 0] < self.camera_style)
        own = statistics[known].nan_to_num()
        if not len(rows):
            return own, own
        other = statistics[rows[(draws[:, 1] * len(rows)).long()]]
        return own, torch.where(changed[:, None, None], other, own)

    def _boxes(self, key: Tensor, height: int, width: int) -> Tensor:
        law: Callable[..., Tensor]
        law, attempts = partial(uniform_erasing_boxes, smaller=self.erase_law != "uniform"), 100
        if self.erase_law == "torchvision":
            law, attempts = erasing_boxes, 10
        return law(
            keyed_uniform(key, 3 + 2 * attempts, _ERASE),
            height=height,
            width=width,
            probability=self.erase_probability,
            area=self.erase_area,
            ratio=self.erase_ratio,
        )
