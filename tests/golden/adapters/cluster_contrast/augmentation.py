"""What images go through before training and before a test."""

import random
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from crosswalk.data.pipeline.decoding import decode_image
from crosswalk.data.pipeline.image_transform import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    uniform_erasing_boxes,
)
from crosswalk.data.pipeline.transforms import erase, flip, normalize, pad_crop
from tests.golden.adapters.mmcl.augmentation import replayed
from tests.golden.harness import Case, golden

ATTEMPTS = 100


def resized(case: Case, number: int) -> Tensor:
    """Return ``[1, 3, H, W]`` uint8, as the package reads it from a file."""
    size = (case.item("height"), case.item("width"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.png")  # PNG keeps every pixel
        Image.fromarray(case[f"image_{number}"]).save(path)
        return decode_image(path, size, case.setting("interpolation", "bicubic"))[None]


def normalised(case: Case, image: Tensor) -> Tensor:
    mean, std = (
        tuple(case.setting(key, value))
        for key, value in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    return normalize(image, mean, std)


def filled(case: Case, image: Tensor, boxes: Tensor) -> Tensor:
    fill = torch.tensor(case.setting("fill", (0.485, 0.456, 0.406)), dtype=image.dtype)
    return erase(image, boxes, fill[:, None, None])


@golden("cluster_contrast", "transform_train")
def transform_train(case: Case) -> None:
    case.unused("python_seed", "torch_seed", reason="what was drawn is recorded")
    drawn = case.tensor("drawn_flip_top_left_y_x_h_w")
    for number in range(case.item("num_images")):
        image = resized(case, number)
        case.equal(f"out_resized_{number}", image[0].permute(1, 2, 0))
        flipped, top, left = drawn[number, :3, None]
        image = flip(image, flipped.bool())
        image = pad_crop(image, top, left, padding=case.setting("padding", 10))
        image = filled(case, normalised(case, image), drawn[number, None, 3:])
        case.close(f"out_image_{number}", image[0], rtol=0, atol=1e-6)


@golden("cluster_contrast", "transform_test")
def transform_test(case: Case) -> None:
    for number in range(case.item("num_images")):
        image = normalised(case, resized(case, number))
        case.close(f"out_image_{number}", image[0], rtol=0, atol=1e-6)


@golden("cluster_contrast", "random_erasing")
def random_erasing(case: Case) -> None:
    image = case.tensor("image")
    height, width = image.shape[2:]
    options = {
        "height": height,
        "width": width,
        "probability": case.item("probability"),
        "area": tuple(case.setting("area", (0.02, 0.4))),
        "ratio": tuple(case.setting("aspect", (0.3, 1 / 0.3))),
        "smaller": True,
    }
    chosen = torch.zeros(1, 1, dtype=torch.float64)

    def box_of(draws: Tensor) -> Tensor:
        return uniform_erasing_boxes(torch.cat([chosen, draws], dim=1), **options)

    random.seed(case.item("python_seed"))
    rows = []
    for _ in image:
        row = [random.random()]
        if row[0] < options["probability"]:
            row += replayed(ATTEMPTS, (height, width), box_of, top_first=True)
        rows.append(row + [0.0] * (3 + 2 * ATTEMPTS - len(row)))
    boxes = uniform_erasing_boxes(torch.tensor(rows, dtype=torch.float64), **options)

    case.equal("out_box_y_x_h_w", boxes)
    case.close("out_image", filled(case, image, boxes), rtol=0, atol=0)
    case.equal("out_next_python", random.random())
