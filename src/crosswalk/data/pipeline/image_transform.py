"""Augmentation of image re-identification: the operations of several recipes, in one order.

The operations are pure, draws in and batch out, and run on the device the batch is on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from crosswalk.data.pipeline.crops import rectangular_boxes
from crosswalk.data.pipeline.transforms import (
    erase,
    erasing_boxes,
    flip,
    in_chunks,
    normalize,
    pad_crop,
)
from crosswalk.draws import keyed_uniform
from crosswalk.ranges import Colour, NotNegative, Padding, Positive, Range, Share
from crosswalk.types import ImageBatch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Streams of the keyed draws: an operation's are the same whatever else is switched on.
_FLIP, _CROP, _ROTATION, _JITTER, _STYLE, _ERASE = range(2, 8)
_NOISE = 10  # 9 is that of camera-style images
_GREY = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # Pillow's, fractions of a power of two
_FRACTION_BITS = 16

Operation = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


def rotate(image: Tensor, angle: Tensor) -> Tensor:
    """Return the images, turned about their centres; what comes from outside is black.

    Every pixel is the nearest one, as Pillow's ``rotate`` finds it, with coordinates of 16 bits
    behind the point. So the pixels are Pillow's exactly.

    Args:
        image: ``[B, C, H, W]`` uint8; H and W below 16384.
        angle: ``[B]`` float64 degrees, counterclockwise.

    Example:
        >>> image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
        >>> rotate(image, torch.tensor([90.0], dtype=torch.float64)).tolist()
        [[[[2, 4], [1, 3]]]]
    """
    batch, channels, height, width = image.shape
    radians = torch.deg2rad(angle)
    cos, sin = radians.cos(), radians.sin()
    # where the middle of the first pixel comes from
    x = width / 2 + (0.5 - width / 2) * cos - (0.5 - height / 2) * sin
    y = height / 2 + (0.5 - width / 2) * sin + (0.5 - height / 2) * cos
    x, y, cos, sin = (
        (value * (1 << _FRACTION_BITS) + 0.5).floor().int()[:, None, None]
        for value in (x, y, cos, sin)
    )
    row = torch.arange(height, dtype=torch.int32, device=image.device)[:, None]
    column = torch.arange(width, dtype=torch.int32, device=image.device)
    # One black pixel all around stands for everything outside.
    from_column = (column * cos + (x - row * sin)) >> _FRACTION_BITS
    from_row = (column * sin + (y + row * cos)) >> _FRACTION_BITS
    place = from_row.clamp_(-1, height).add_(1).mul_(width + 2)
    place = place.add_(from_column.clamp_(-1, width)).add_(1).flatten(1).long()
    framed = image.new_zeros((batch, channels, height + 2, width + 2))
    framed[..., 1:-1, 1:-1] = image
    pixels = framed.flatten(2).gather(2, place[:, None].expand(-1, channels, -1))
    return pixels.view(image.shape)


def color_jitter(image: Tensor, order: Tensor, factor: Tensor) -> Tensor:
    """Return the images with changed brightness, contrast and saturation, one after the other.

    Same values as torchvision's ColorJitter on pictures of Pillow: each of the three mixes the
    image with black, with its mean grey or with its own grey, clips, and drops fractions. A
    value may be one off where a product falls on a whole number. Without dropping them, values
    would be up to three greys brighter than those of published pipelines.

    Args:
        image: ``[B, 3, H, W]`` whole numbers 0 to 255 of any type.
        order: ``[B, 3]`` int64 permutations: 0 is brightness, 1 contrast, 2 saturation.
        factor: ``[B, 3]`` share of the image in brightness, contrast and saturation, >= 0; from
            1 on away from what it is mixed with.

    Returns:
        ``[B, 3, H, W]`` float32 whole numbers 0 to 255.

    Example:
        >>> image = torch.tensor([90, 100, 200], dtype=torch.uint8).reshape(1, 3, 1, 1)
        >>> order, factor = torch.tensor([[2, 0, 1]]), torch.tensor([[1.5, 1.0, 0.0]])
        >>> color_jitter(image, order, factor).flatten()
        tensor([162., 162., 162.])
    """
    out = image.to(torch.float32, copy=True)
    half = torch.tensor(0.5, device=image.device)
    shares = factor.gather(1, order).float().T[..., None, None, None]
    by_pixel, by_image = (order == 2).float().T, (order == 1).float().T
    for step, share in enumerate(shares):
        red, green, blue = out.unbind(1)
        grey = torch.add(half, red, alpha=_GREY[0]).add_(green, alpha=_GREY[1])
        grey = grey.add_(blue, alpha=_GREY[2]).floor_()
        # sums of rows are exact in float32, sums of images are not
        mean = grey.sum(2).double().mean(1).div_(image.shape[3]).add_(0.5).floor_().float()
        grey = grey.mul_(by_pixel[step, :, None, None])
        mixed_with = grey.add_((mean * by_image[step])[:, None, None])[:, None]
        out = torch.lerp(mixed_with, out, share, out=out).clamp_(0, 255).floor_()
    return out


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
        operations = self._operations(batch)
        counts = [len(columns) for _, columns in operations]

        def augment(image: Tensor, *columns: Tensor) -> Tensor:
            left = iter(columns)
            for (operation, _), count in zip(operations, counts, strict=True):
                image = operation(image, *islice(left, count))
            return image

        columns = [column for _, columns in operations for column in columns]
        return batch._replace(image=in_chunks(augment, batch.image, *columns))

    def _operations(self, batch: ImageBatch) -> list[Operation]:
        """Return what is done to the images, each with its draws, a row per image."""
        normalization: Operation = (partial(normalize, mean=self.mean, std=self.std), ())
        key = batch.key
        if key is None:
            return [normalization]
        operations: list[Operation] = []
        if self.flip_probability:
            flipped = keyed_uniform(key, 1, _FLIP)[:, 0] < self.flip_probability
            operations.append((flip, (flipped,)))
        if self.padding:
            corner = (keyed_uniform(key, 2, _CROP) * (2 * self.padding + 1)).long()
            operations.append((partial(pad_crop, padding=self.padding), corner.unbind(1)))
        if self.rotation:
            angle = self.rotation * (2 * keyed_uniform(key, 1, _ROTATION)[:, 0] - 1)
            operations.append((rotate, (angle,)))
        if self.brightness or self.contrast or self.saturation:
            operations.append((color_jitter, self._jitter(key)))
        if self.camera_style:
            operations.append((camera_style, self._styles(key, batch.camera_id)))
        operations.append(normalization)
        if self.erase_probability:
            boxes = self._boxes(key, *batch.image.shape[2:])
            if self.erase_fill == "noise":
                operations.append((erase_with_noise, (boxes, key)))
            else:
                fill = torch.tensor(self.erase_fill, device=key.device)[:, None, None]
                operations.append((partial(erase, fill=fill), (boxes,)))
        return operations

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
