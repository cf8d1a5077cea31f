"""Random boxes of the augmentation, from the numbers that Python's `random` gave when recorded.

Which numbers are drawn depends on the boxes: a place is drawn for a box that fits, so each
attempt is put to the function under test by itself first. All draws together give all boxes.
"""

import random
from collections.abc import Callable

import torch
from torch import Tensor

from crosswalk.data.pipeline.crops import RectangularCrop, rectangular_boxes
from crosswalk.data.pipeline.decoding import RESAMPLING
from crosswalk.data.pipeline.image_transform import uniform_erasing_boxes
from crosswalk.data.pipeline.transforms import erase
from tests.golden.harness import Case, golden

CROP = RectangularCrop()


def replayed(
    attempts: int, size: tuple[int, int], box_of: Callable[[Tensor], Tensor], *, top_first: bool
) -> list[float]:
    """Return top, left, areas and ratios (2 + 2 * attempts) as drawn for one image."""
    areas, ratios = [0.0] * attempts, [0.0] * attempts
    place = [0.0, 0.0]
    for attempt in range(attempts):
        areas[attempt], ratios[attempt] = random.random(), random.random()
        draws = torch.tensor([[0.0, 0.0, areas[attempt], ratios[attempt]]], dtype=torch.float64)
        _, _, *box = box_of(draws)[0].tolist()
        if box != [0, 0]:
            for axis in (0, 1) if top_first else (1, 0):
                steps = size[axis] - box[axis]
                # the middle of what is rounded down to the recorded whole number
                place[axis] = (random.randint(0, steps) + 0.5) / (steps + 1)
            break
    return [*place, *areas, *ratios]


@golden("mmcl", "random_erasing")
def random_erasing(case: Case) -> None:
    image = case.tensor("image")
    height, width = image.shape[2:]
    options = {
        "height": height,
        "width": width,
        "probability": case.item("prob"),
        "area": tuple(case.setting("area", (0.02, 0.2))),
        "ratio": tuple(case.setting("aspect", (0.3, 3.0))),
    }
    chosen = torch.zeros(1, 1, dtype=torch.float64)

    def box_of(draws: Tensor) -> Tensor:
        return uniform_erasing_boxes(torch.cat([chosen, draws], dim=1), **options)

    random.seed(case.item("python_random_seed"))
    rows = []
    for _ in image:
        row = [random.random()]
        if row[0] <= options["probability"]:
            row += replayed(100, (height, width), box_of, top_first=True)
        rows.append(row + [0.0] * (203 - len(row)))
    boxes = uniform_erasing_boxes(torch.tensor(rows, dtype=torch.float64), **options)
    fill = case.setting("fill", (0.485, 0.456, 0.406))
    fill = torch.tensor(fill, dtype=image.dtype)[:, None, None]

    case.equal("out_box_y_x_h_w", boxes)
    case.close("out_image", erase(image, boxes, fill), rtol=0, atol=0)


@golden("mmcl", "rect_crop_boxes")
def rect_crop_boxes(case: Case) -> None:
    widths, heights = case.tensor("sizes_w_h").unbind(1)
    law = {name: tuple(case.setting(name, getattr(CROP, name))) for name in ("area", "aspect")}
    attempts = case.setting("attempts", CROP.attempts)

    random.seed(case.item("python_random_seed"))
    rows = []
    for height, width in zip(heights, widths, strict=True):

        def box_of(draws: Tensor, size: tuple[Tensor, Tensor] = (height, width)) -> Tensor:
            return rectangular_boxes(draws, *(part[None] for part in size), **law)

        size = (int(height), int(width))
        rows.append(replayed(attempts, size, box_of, top_first=False))
    boxes = rectangular_boxes(torch.tensor(rows, dtype=torch.float64), heights, widths, **law)
    top, left, height, width = boxes.unbind(1)
    corners = torch.stack([left, top, left + width, top + height], dim=1)
    none_fits = (width == 0) & (height == 0)

    case.equal("out_crop_box_x1_y1_x2_y2", torch.where(none_fits[:, None], -1, corners))
    case.equal(
        "out_resize_w_h",
        torch.tensor([case.setting("size_w_h", [128, 256])]).expand(len(boxes), -1),
    )
    case.equal("out_pil_interpolation", torch.full((len(boxes),), int(RESAMPLING["bilinear"])))
