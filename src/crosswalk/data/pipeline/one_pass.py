"""Augmentation of images on a CPU in one pass, by compiled loops over a few images at a time.

The pixels are to the last bit those of the operations on tensors, which other devices use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.compiled import compiled, for_each, threads

FRACTION_BITS = 16  # behind the point, of Pillow's coordinates

_IMAGES_AT_ONCE = 8  # 0.8 MB of 256x128 in between, which stay in the processor's cache


class Draws(NamedTuple):
    """What is done to each image of a batch; None leaves it out.

    Attributes:
        flipped: ``[B]`` bool, whether it is mirrored.
        corner: ``[B, 2]`` int64 first row and column of what is cut out, once it is padded.
        angle: ``[B]`` float64 degrees that it is turned by, counterclockwise.
        jitter: Order and factors of `crosswalk.data.pipeline.transforms.color_jitter`.
        boxes: ``[B, 4]`` int64 top, left, height and width of what is erased.
        padding: Black pixels on each side, for ``corner``.
    """

    flipped: Tensor | None = None
    corner: Tensor | None = None
    angle: Tensor | None = None
    jitter: tuple[Tensor, Tensor] | None = None
    boxes: Tensor | None = None
    padding: int = 0


def turns(angle: Tensor, height: int, width: int) -> Tensor:
    """Return ``[B, 4]`` int32 where turned pixels come from, in 2**-16 of a pixel.

    Column and row that the middle of the first pixel comes from, then the cosine and the sine by
    which they change from column to column.

    Args:
        angle: ``[B]`` float64 degrees, counterclockwise.
        height: Of the images; below 16384.
        width: Of the images, likewise.

    Example:
        >>> turns(torch.tensor([0.0], dtype=torch.float64), 4, 2) / 2**16
        tensor([[0.5000, 0.5000, 1.0000, 0.0000]])
    """
    radians = torch.deg2rad(angle)
    cos, sin = radians.cos(), radians.sin()
    x = width / 2 + (0.5 - width / 2) * cos - (0.5 - height / 2) * sin
    y = height / 2 + (0.5 - width / 2) * sin + (0.5 - height / 2) * cos
    turn = torch.stack([x, y, cos, sin], dim=1)
    return (turn * (1 << FRACTION_BITS) + 0.5).floor().int()


def augment_on_cpu(
    image: Tensor, draws: Draws, colours: Callable[[Tensor], Tensor], fill: Tensor | None
) -> Tensor:
    """Return what `crosswalk.data.pipeline.transforms.augment` does.

    The first call of a process imports Numba and loads the loops: a third of a second.

    Args:
        image: ``[B, 3, H, W]`` uint8 on the CPU; H and W below 16384.
        draws: What is done to each.
        colours: Is called for all 256 values of every image's channels, ``[B, 3, 1, 256]`` uint8.
        fill: ``[3]`` float32 of what is erased; None erases nothing.

    Example:
        >>> image = torch.tensor([1, 2], dtype=torch.uint8).expand(1, 3, 1, 2)
        >>> flipped = Draws(flipped=torch.tensor([True]))
        >>> augment_on_cpu(image, flipped, lambda values: values / 2, fill=None)[0, 0]
        tensor([[1.0000, 0.5000]])
    """
    batch, _, height, width = image.shape
    out = torch.empty(image.shape)
    values = torch.arange(256, dtype=torch.uint8).expand(batch, 3, 1, 256)
    none = torch.zeros((batch, 4), dtype=torch.int64)
    angle = none[:, 0].double() if draws.angle is None else draws.angle
    moves = _arrays(
        image,
        none[:, 0].bool() if draws.flipped is None else draws.flipped,
        none[:, :2] if draws.corner is None else draws.corner - draws.padding,
        turns(angle, height, width),
    )
    order, factor = draws.jitter or (none[:, :3], torch.ones((batch, 3)))
    jitter = _arrays(order, factor.float())
    colouring = _arrays(
        colours(values)[:, :, 0],
        none if draws.boxes is None or fill is None else draws.boxes,
        torch.zeros(3) if fill is None else fill,
        out,
    )

    def augment(start: int) -> None:
        number = min(_IMAGES_AT_ONCE, batch - start)
        some = np.empty((number, 3, height, width), dtype=np.uint8)
        _move(start, *moves, some)
        _jitter(start, *jitter, some.reshape(number, 3, -1))
        _color(start, some, *colouring)

    with threads() as pool:
        for_each(augment, range(0, batch, _IMAGES_AT_ONCE), pool)
    return out


def _arrays(*columns: Tensor) -> list[NDArray[Any]]:
    return [column.contiguous().numpy() for column in columns]


@compiled("void(i8, u1[:, :, :, ::1], b1[::1], i8[:, ::1], i4[:, ::1], u1[:, :, :, ::1])")
def _move(
    start: int,
    images: NDArray[np.uint8],
    flipped: NDArray[np.bool_],
    shift: NDArray[np.int64],
    turn: NDArray[np.int32],
    out: NDArray[np.uint8],
) -> None:
    """Mirror, shift and turn: the nearest pixel, its three channels in one integer."""
    height, width = out.shape[2:]
    # One black pixel all around stands for everything outside.
    framed = np.zeros((height + 2, width + 2), np.int32)
    flat = framed.reshape(-1)
    line, place = np.empty(width, np.int32), np.empty(width, np.uint32)
    # int32 throughout, which processors compute many of at once; Numba's own choice is int64
    last_row, last_column, stride = np.int32(height), np.int32(width), np.int32(width + 2)
    one, eight, sixteen = np.int32(1), np.int32(8), np.int32(16)
    for index in range(len(out)):
        source = images[start + index]
        up, left = shift[start + index]
        first, end = max(0, -left), max(0, -left, min(width, width - left))
        for row in range(height):
            framed[row + 1] = 0
            if not 0 <= row + up < height:
                continue
            red, green, blue = source[0, row + up], source[1, row + up], source[2, row + up]
            for column in range(width):
                colour = np.int32(np.int32(green[column]) << eight) | np.int32(red[column])
                colour = np.int32(colour) | np.int32(np.int32(blue[column]) << sixteen)
                line[column] = np.int32(colour)
            seen = line[first + left : end + left]
            if flipped[start + index]:
                seen = line[width - end - left : width - first - left][::-1]
            framed[row + 1, first + 1 : end + 1] = seen
        x, y, cos, sin = turn[start + index]
        for row in range(height):
            row_x, row_y = np.int32(x - row * sin), np.int32(y + row * cos)
            for column in range(width):
                from_column = np.int32(np.int32(row_x + np.int32(column) * cos) >> sixteen)
                from_row = np.int32(np.int32(row_y + np.int32(column) * sin) >> sixteen)
                from_column = min(max(from_column, -one), last_column)
                from_row = min(max(from_row, -one), last_row)
                place[column] = np.int32(np.int32(from_row + one) * stride + from_column + one)
            for column in range(width):
                line[column] = flat[place[column]]
            for column in range(width):
                out[index, 0, row, column] = line[column]
                out[index, 1, row, column] = np.int32(line[column] >> eight)
                out[index, 2, row, column] = np.int32(line[column] >> sixteen)


@compiled("void(i8, i8[:, ::1], f4[:, ::1], u1[:, :, ::1])", fused=True)
def _jitter(
    start: int,
    order: NDArray[np.int64],
    factor: NDArray[np.float32],
    images: NDArray[np.uint8],
) -> None:
    """Do as `crosswalk.data.pipeline.transforms.color_jitter`, in the images' place."""

    def grey_of(red: np.uint8, green: np.uint8, blue: np.uint8) -> np.int32:
        weighted = np.int32(np.int32(red) * np.int32(19595) + np.int32(1 << 15))
        weighted = np.int32(weighted + np.int32(green) * np.int32(38470))
        weighted = np.int32(weighted + np.int32(blue) * np.int32(7471))
        return np.int32(weighted >> np.int32(16))

    def mixed(value: np.uint8, grey: np.float32, part: np.float32, near: bool) -> np.uint8:
        # torch's lerp, which starts from the nearer end
        colour = np.float32(value)
        colour = part * (colour - grey) + (colour if near else grey)
        return np.uint8(np.int32(min(max(colour, np.float32(0)), np.float32(255))))

    for index in range(len(images)):
        image = images[index]
        red, green, blue = image
        for kind in order[start + index]:
            share = factor[start + index, kind]
            if share == 1:
                continue
            near = share >= np.float32(0.5)
            part = np.float32(share - np.float32(1)) if near else share
            if kind == 2:
                for pixel in range(len(red)):
                    grey = np.float32(grey_of(red[pixel], green[pixel], blue[pixel]))
                    red[pixel] = mixed(red[pixel], grey, part, near)
                    green[pixel] = mixed(green[pixel], grey, part, near)
                    blue[pixel] = mixed(blue[pixel], grey, part, near)
                continue
            total = 0
            if kind == 1:
                for pixel in range(len(red)):
                    total += int(grey_of(red[pixel], green[pixel], blue[pixel]))
            grey = np.float32(np.floor(total / len(red) + 0.5))
            for values in image:
                for pixel in range(len(values)):
                    values[pixel] = mixed(values[pixel], grey, part, near)


@compiled(
    "void(i8, u1[:, :, :, ::1], f4[:, :, ::1], i8[:, ::1], f4[::1], f4[:, :, :, ::1])",
)
def _color(
    start: int,
    images: NDArray[np.uint8],
    table: NDArray[np.float32],
    boxes: NDArray[np.int64],
    fill: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Look each value up in its image's and channel's table, then fill the boxes."""
    _, channels, height, width = images.shape
    for index in range(len(images)):
        top, left, rows, columns = boxes[start + index]
        for channel in range(channels):
            colours = table[start + index, channel]
            coloured = out[start + index, channel]
            for row in range(height):
                for column in range(width):
                    coloured[row, column] = colours[images[index, channel, row, column]]
            coloured[top : top + rows, left : left + columns] = fill[channel]
