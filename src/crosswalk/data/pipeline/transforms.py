"""Augmentation of whole batches from given random draws, on the device the batch is on.

The functions are pure: draws in, batch out. Recipes name their draws, take them from the batch's
keys (`crosswalk.draws`) and say whose order and magnitudes they follow. A CPU does everything in
one pass (`crosswalk.data.pipeline.one_pass`), with the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from crosswalk.data.pipeline.one_pass import FRACTION_BITS, Draws, augment_on_cpu, turns
from crosswalk.draws import keyed_uniform
from crosswalk.ranges import Count, Padding, Positive, Range, Share
from crosswalk.types import ImageBatch, PairBatch, TextBatch

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_CHUNK_VALUES = 1 << 20  # measured: 4 to 16 images of 384x128 are equally fast, 1 or 64 are not
_GREY = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # Pillow's, fractions of a power of two

PixelFormat = Literal["rgb01", "bgr255"]
AnyBatch = TypeVar("AnyBatch", PairBatch, ImageBatch, TextBatch)


def flip(image: Tensor, flipped: Tensor) -> Tensor:
    """Return the images, mirrored left to right where ``flipped``.

    Args:
        image: ``[B, C, H, W]`` of any type.
        flipped: ``[B]`` bool.

    Example:
        >>> flip(torch.tensor([[[[1, 2]]], [[[1, 2]]]]), torch.tensor([True, False])).tolist()
        [[[[2, 1]]], [[[1, 2]]]]
    """
    both = torch.cat([image, image.flip(-1)])
    # rows are copied whole, several times faster on a CPU than an elementwise choice
    return both.index_select(
        0, torch.arange(len(image), device=image.device) + flipped * len(image)
    )


def pad_crop(image: Tensor, top: Tensor, left: Tensor, *, padding: int, fill: int = 0) -> Tensor:
    """Return the images, padded on all sides and cropped back to their size.

    Args:
        image: ``[B, C, H, W]`` of any type.
        top: ``[B]`` int64 first row of each crop in the padded image; 0 <= top <= 2 * padding.
        left: ``[B]`` int64 first column of each crop, likewise.
        padding: Pixels on each side.
        fill: Value of the padding.

    Example:
        >>> image = torch.tensor([[[[1, 2], [3, 4]]]])
        >>> pad_crop(image, torch.tensor([0]), torch.tensor([1]), padding=1).tolist()
        [[[[0, 0], [1, 2]]]]
    """
    batch, channels, height, width = image.shape
    padded = image.new_full((batch, channels, height + 2 * padding, width + 2 * padding), fill)
    padded[..., padding : padding + height, padding : padding + width] = image
    # Every run of `width` pixels as a row: a crop is then a choice of rows, copied whole.
    runs = padded.as_strided((max(padded.numel() - width + 1, 0), width), (1, 1))
    stride = padded.stride()
    device = image.device
    start = (
        (torch.arange(batch, device=device) * stride[0] + top * stride[2] + left)[:, None, None]
        + (torch.arange(channels, device=device) * stride[1])[:, None]
        + torch.arange(height, device=device) * stride[2]
    )
    return runs.index_select(0, start.flatten()).view(image.shape)


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
    x, y, cos, sin = turns(angle, height, width)[..., None, None].unbind(1)
    row = torch.arange(height, dtype=torch.int32, device=image.device)[:, None]
    column = torch.arange(width, dtype=torch.int32, device=image.device)
    # One black pixel all around stands for everything outside.
    from_column = (column * cos + (x - row * sin)) >> FRACTION_BITS
    from_row = (column * sin + (y + row * cos)) >> FRACTION_BITS
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


def erasing_boxes(
    draws: Tensor,
    *,
    height: int,
    width: int,
    probability: float,
    area: tuple[float, float],
    ratio: tuple[float, float],
    attempts: int = 10,
) -> Tensor:
    """Return ``[B, 4]`` int64 boxes (top, left, height, width) to erase; size 0 erases nothing.

    The first of the attempts whose box is smaller than the image in both directions counts; if
    none is, nothing is erased. Same distribution as torchvision's RandomErasing.
    Source: Zhong et al., Random erasing data augmentation, AAAI 2020.

    Args:
        draws: ``[B, 3 + 2 * attempts]`` float64 in [0, 1): whether to erase, top, left, then
            the area of each attempt, then the aspect ratio of each.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        probability: Share of images that are erased.
        area: Least and largest area of a box, as a share of the image.
        ratio: Least and largest height / width of a box; its logarithm is uniform.
        attempts: Boxes tried per image.

    Example:
        >>> draws = torch.full((1, 5), 0.5, dtype=torch.float64)
        >>> options = {"area": (0.25, 0.25), "ratio": (1.0, 1.0), "attempts": 1}
        >>> erasing_boxes(draws, height=8, width=8, probability=0.6, **options).tolist()
        [[2, 2, 4, 4]]
        >>> erasing_boxes(draws, height=8, width=8, probability=0.4, **options).tolist()
        [[4, 4, 0, 0]]
    """
    chosen, top, left = draws[:, 0] < probability, draws[:, 1], draws[:, 2]
    size = height * width * (area[0] + (area[1] - area[0]) * draws[:, 3 : 3 + attempts])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * draws[:, 3 + attempts : 3 + 2 * attempts]).exp()
    heights, widths = (size * aspect).sqrt().round(), (size / aspect).sqrt().round()
    fits = (heights < height) & (widths < width)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    erased = chosen & fits.any(dim=1)
    box_height = torch.where(erased, heights.gather(1, first)[:, 0], 0)
    box_width = torch.where(erased, widths.gather(1, first)[:, 0], 0)
    box_top = (top * (height - box_height + 1)).floor()
    box_left = (left * (width - box_width + 1)).floor()
    return torch.stack([box_top, box_left, box_height, box_width], dim=1).long()


def box_mask(boxes: Tensor, *, height: int, width: int) -> Tensor:
    """Return ``[B, 1, height, width]`` bool, true inside each ``[B, 4]`` box.

    Example:
        >>> box_mask(torch.tensor([[0, 1, 1, 2]]), height=2, width=3).int().tolist()
        [[[[0, 1, 1], [0, 0, 0]]]]
    """
    top, left, box_height, box_width = boxes.unbind(1)
    row = torch.arange(height, device=boxes.device)
    column = torch.arange(width, device=boxes.device)
    in_rows = (row >= top[:, None]) & (row < (top + box_height)[:, None])
    in_columns = (column >= left[:, None]) & (column < (left + box_width)[:, None])
    # each row of the mask is a copy of its box's row, or of the empty row put behind them all
    rows = torch.cat([in_columns, in_columns.new_zeros((1, width))])
    which = torch.where(in_rows, torch.arange(len(boxes), device=boxes.device)[:, None], len(boxes))
    return rows.index_select(0, which.flatten()).view(len(boxes), 1, height, width)


def erase(image: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Return the images with each box filled; for images before or after normalisation.

    Args:
        image: ``[B, C, H, W]`` of any type.
        boxes: ``[B, 4]`` int64 boxes from `erasing_boxes`.
        fill: Value per channel, ``[C, 1, 1]`` or ``[B, C, 1, 1]``, of the images' type.

    Example:
        >>> image = torch.zeros(1, 1, 1, 3)
        >>> erase(image, torch.tensor([[0, 1, 1, 2]]), torch.ones(1, 1, 1)).tolist()
        [[[[0.0, 1.0, 1.0]]]]
    """
    mask = box_mask(boxes, height=image.shape[2], width=image.shape[3])
    if image.is_floating_point():
        # a lerp by 0 or 1 is exact, and on a CPU twice as fast as a choice by a bool mask
        return image.lerp(fill, mask.to(image.dtype))
    return torch.where(mask, fill, image)


def normalize(
    image: Tensor,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    pixel_format: PixelFormat = "rgb01",
) -> Tensor:
    """Return uint8 images as float32, less the mean, by the deviation.

    Args:
        image: ``[B, 3, H, W]`` uint8 RGB.
        mean: Of the channels, in the order that comes out.
        std: Of the channels, likewise.
        pixel_format: ``rgb01`` scales to [0, 1] first; ``bgr255`` reverses the channels and keeps
            values 0 to 255.

    Example:
        >>> image = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1)
        >>> normalize(image, (0.5, 0.5, 0.0), (0.5, 0.5, 0.2)).flatten()
        tensor([-1.,  1.,  1.])
        >>> normalize(image, (1.0, 5.0, 0.0), (0.5, 0.5, 0.2), pixel_format="bgr255").flatten()
        tensor([100., 500.,   0.])
    """
    return _normalize(*_ordered(image, pixel_format), mean, std)


def _ordered(image: Tensor, pixel_format: PixelFormat) -> tuple[Tensor, int]:
    """Return the images with their channels in the order of a format, and what divides values."""
    return (image.flip(1), 1) if pixel_format == "bgr255" else (image, 255)


def _normalize(
    image: Tensor, by: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    mean_, std_ = (torch.tensor(value, device=image.device)[:, None, None] for value in (mean, std))
    return image.float().div_(by).sub_(mean_).div_(std_)


def augment(
    image: Tensor, draws: Draws, colours: Callable[[Tensor], Tensor], fill: Tensor | None
) -> Tensor:
    """Return ``[B, 3, H, W]`` float32: moved, turned, jittered, then coloured, then erased.

    Args:
        image: ``[B, 3, H, W]`` uint8 RGB; H and W below 16384.
        draws: What is done to each.
        colours: Maps ``[B, 3, ...]`` values 0 to 255 of any type to float32, each by itself.
        fill: ``[3]`` float32 of what is erased; None erases nothing.

    Example:
        >>> image = torch.tensor([1, 2], dtype=torch.uint8).expand(1, 3, 1, 2)
        >>> flipped = Draws(flipped=torch.tensor([True]))
        >>> augment(image, flipped, lambda values: values / 2, fill=None)[0, 0]
        tensor([[1.0000, 0.5000]])
    """
    if image.device.type == "cpu":
        return augment_on_cpu(image, draws, colours, fill)
    return augment_at_once(image, draws, colours, fill)


def augment_at_once(
    image: Tensor, draws: Draws, colours: Callable[[Tensor], Tensor], fill: Tensor | None
) -> Tensor:
    """Return what `augment_on_cpu` does, by one operation on the whole batch after the other.

    Example:
        >>> image = torch.tensor([1, 2], dtype=torch.uint8).expand(1, 3, 1, 2)
        >>> flipped = Draws(flipped=torch.tensor([True]))
        >>> augment_at_once(image, flipped, lambda values: values / 2, fill=None)[0, 0]
        tensor([[1.0000, 0.5000]])
    """
    if draws.flipped is not None:
        image = flip(image, draws.flipped)
    if draws.corner is not None:
        image = pad_crop(image, *draws.corner.unbind(1), padding=draws.padding)
    if draws.angle is not None:
        image = rotate(image, draws.angle)
    if draws.jitter is not None:
        image = color_jitter(image, *draws.jitter)
    image = colours(image)
    if draws.boxes is not None and fill is not None:
        image = erase(image, draws.boxes, fill[:, None, None])
    return image


def in_chunks(augment: Callable[..., Tensor], image: Tensor, *columns: Tensor) -> Tensor:
    """Return the float32 ``augment(image, *columns)``, computed a few images at a time on a CPU.

    Intermediate images then stay in the processor's cache; on a GPU the batch goes in one piece.

    Args:
        augment: Maps ``[b, C, H, W]`` images and ``[b, ...]`` columns to images.
        image: ``[B, C, H, W]`` of any type.
        columns: What else there is per image, ``[B, ...]`` each.

    Example:
        >>> in_chunks(lambda part: part * 0.5, torch.full((20, 1, 1, 1), 3)).sum()
        tensor(30.)
    """
    if image.device.type != "cpu":
        return augment(image, *columns)
    size = max(1, _CHUNK_VALUES // max(1, image[0].numel() if len(image) else 1))
    out = torch.empty(image.shape, dtype=torch.float32)
    for start in range(0, len(image), size):
        part = slice(start, start + size)
        out[part] = augment(image[part], *(column[part] for column in columns))
    return out


def mask_replace_delete(
    tokens: Tensor,
    draws: Tensor,
    replacements: Tensor,
    *,
    mask_id: int,
    probability: float = 0.2,
    mask_share: float = 0.6,
    replace_share: float = 0.2,
) -> Tensor:
    """Return captions with some words masked, some replaced by random ones, some deleted.

    Words are the ids between padding (0) and ``mask_id``; start, end and mask are larger. What
    is behind a deleted word moves left, so the end token stays the last id that is not 0.
    Source: Faghri et al., VSE++, and Chen et al., VSE infinity, CVPR 2021, by way of RDE.

    Args:
        tokens: ``[B, L]`` int64 ids, zero padded.
        draws: ``[B, >= words]`` uniform numbers; number j decides over the j-th word.
        replacements: ``[B, >= replaced words]`` int64; number j is the j-th replacement.
        mask_id: Id of the mask token.
        probability: Share of words changed in one of the three ways.
        mask_share: Share of the changed words that are masked.
        replace_share: Share of the changed words that are replaced; the rest is deleted.

    Example:
        >>> tokens = torch.tensor([[98, 5, 6, 7, 8, 99, 0]])
        >>> draws = torch.tensor([[0.9, 0.1, 0.15, 0.19]])
        >>> mask_replace_delete(tokens, draws, torch.tensor([[3]]), mask_id=90).tolist()
        [[98, 5, 90, 3, 99, 0, 0]]
    """
    word = (tokens > 0) & (tokens < mask_id)
    place = (word.cumsum(1) - 1).clamp_(0, draws.shape[1] - 1)
    draw = draws.gather(1, place)
    changed = word & (draw < probability)
    share = draw / probability
    masked = changed & (share < mask_share)
    replaced = changed & ~masked & (share < mask_share + replace_share)
    kept = ~changed | masked | replaced
    turn = (replaced.cumsum(1) - 1).clamp_(0, replacements.shape[1] - 1)
    tokens = torch.where(masked, mask_id, tokens)
    tokens = torch.where(replaced, replacements.gather(1, turn), tokens)
    # kept ids go to their rank among the kept; deleted ones to a column that is cut off
    length = tokens.shape[1]
    target = torch.where(kept, kept.cumsum(1) - 1, length)
    moved = tokens.new_zeros((tokens.shape[0], length + 1))
    return moved.scatter_(1, target, tokens)[:, :length].contiguous()


def token_length(tokens: Tensor) -> Tensor:
    """Return ``[B]`` ids per caption: the place behind the last that is not 0.

    Zeros inside a caption count, as CLIP's id 0 is also a piece of some punctuation.

    Example:
        >>> token_length(torch.tensor([[98, 0, 5, 99, 0], [98, 99, 0, 0, 0]]))
        tensor([4, 2])
    """
    place = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return ((tokens != 0) * place).amax(dim=1)


@dataclass(frozen=True)
class PairTransform:
    """The augmentation of image-caption pairs in RDE, CM-MoCo and CMMT.

    Images: mirror, pad with black and crop, normalise, erase a box with the *mean* values, which
    are written after normalisation as in the published codes, so that the fill is not 0. Texts:
    12 % of the words masked, 4 % replaced, 4 % deleted. RDE (Qin et al., CVPR 2024) does all of
    this, as IRRA (CVPR 2023); CM-MoCo (Han et al., BMVC 2021) leaves captions as they are
    (``text_augmentation=False``); for CMMT (Zhao et al., ICCV 2021), whose training transform was
    never published, images are mirrored only (``image_augmentation=False`` as well). Everything
    is drawn per sample from ``batch.key``; a batch without keys is only normalised.

    Attributes:
        image_augmentation: False leaves the mirroring only (``img_aug`` of RDE's code, ``USE_AUG``
            of CM-MoCo's).
        text_augmentation: False leaves captions as they are (``txt_aug`` of RDE's code). Masking
            needs a tokenizer with a mask token.
        flip_probability: Share of images mirrored.
        padding: Pixels added on each side before the crop.
        erase_probability: Share of images with a box erased.
        erase_area: Least and largest area of the box, as a share of the image.
        erase_ratio: Least and largest height / width of the box.
        mask_id: Mask token of the tokenizer; ids of words are below it.
        mean: Of the channels, in [0, 1].
        std: Of the channels.
        pixel_format: ``rgb01`` are RGB values in [0, 1], of which ``mean`` is taken off;
            ``bgr255`` are BGR values to 255, of which the same ``mean`` is, as in the code from
            the time of CM-MoCo's paper.

    Example:
        >>> image = torch.zeros(1, 3, 4, 2, dtype=torch.uint8)
        >>> one = torch.tensor([0])
        >>> batch = ImageBatch(image, person_id=one, camera_id=one, sample_index=one, key=None)
        >>> PairTransform()(batch).image[0, :, 0, 0]
        tensor([-1.7923, -1.7521, -1.4802])
    """

    image_augmentation: bool = True
    text_augmentation: bool = True
    flip_probability: Share = 0.5
    padding: Padding = 10
    erase_probability: Share = 0.5
    erase_area: tuple[Share, Share] = (0.02, 0.4)
    erase_ratio: Range = (0.3, 3.3)
    mask_id: Count = 49405
    mean: tuple[Share, Share, Share] = CLIP_MEAN
    std: tuple[Positive, Positive, Positive] = CLIP_STD
    pixel_format: PixelFormat = "rgb01"

    def __call__(self, batch: AnyBatch) -> AnyBatch:
        """Return the batch as a method wants it: augmented if it has keys, else normalised."""
        if isinstance(batch, TextBatch):
            return batch
        if batch.key is None:
            return batch._replace(image=in_chunks(self._normalize, batch.image))
        batch = batch._replace(image=self.augment_images(batch.image, batch.key))
        if isinstance(batch, PairBatch) and self.text_augmentation:
            assert batch.key is not None
            tokens = self.augment_tokens(batch.tokens, batch.key)
            whole = batch.whole and batch.whole._replace(length=None)
            batch = batch._replace(tokens=tokens, length=token_length(tokens), whole=whole)
        return batch

    def augment_images(self, image: Tensor, key: Tensor) -> Tensor:
        """Return ``[B, 3, H, W]`` float32 from uint8 images and their samples' keys."""
        return self._augment(image, keyed_uniform(key, 26, stream=0))

    def _augment(self, image: Tensor, uniform: Tensor) -> Tensor:
        draws = Draws(flipped=uniform[:, 0] < self.flip_probability)
        if self.image_augmentation:
            boxes = erasing_boxes(
                uniform[:, 3:],
                height=image.shape[2],
                width=image.shape[3],
                probability=self.erase_probability,
                area=self.erase_area,
                ratio=self.erase_ratio,
            )
            corner = (uniform[:, 1:3] * (2 * self.padding + 1)).long()
            draws = draws._replace(corner=corner, padding=self.padding, boxes=boxes)
        image, by = _ordered(image, self.pixel_format)
        colours = partial(_normalize, by=by, mean=self.mean, std=self.std)
        return augment(image, draws, colours, torch.tensor(self.mean, device=image.device))

    def _normalize(self, image: Tensor) -> Tensor:
        return normalize(image, self.mean, self.std, pixel_format=self.pixel_format)

    def augment_tokens(self, tokens: Tensor, key: Tensor) -> Tensor:
        """Return ``[B, L]`` tokens, augmented."""
        length = tokens.shape[1]
        draws = keyed_uniform(key, 2 * length, stream=1)
        replacements = 1 + (draws[:, length:] * (self.mask_id - 1)).long()
        return mask_replace_delete(tokens, draws[:, :length], replacements, mask_id=self.mask_id)
