"""What images go through, and the boxes that are erased."""

import math
from functools import partial

import numpy as np
import torch

from crosswalk.data.pipeline.decoding import resize
from crosswalk.data.pipeline.transforms import (
    box_mask,
    erase,
    erasing_boxes,
    flip,
    normalize,
    pad_crop,
)
from tests.golden.harness import Case, golden


@golden("clip_reid", "transform")
def transform(case: Case) -> None:
    for name in ("flip_probability", "erase_probability"):
        case.unused(name, reason="flipped and box are what was drawn with it")
    size = tuple(case["size"].tolist())
    normal = partial(normalize, mean=tuple(case["mean"].tolist()), std=tuple(case["std"].tolist()))
    for number in range(case.item("num_images")):
        pixels = case[f"image_{number}"]
        resized = resize(pixels, size, "bicubic")[None]
        tested = normal(resize(pixels, size, "bilinear")[None])
        mirrored = flip(resized, torch.tensor([case.item(f"flipped_{number}")]))
        top, left = (torch.tensor([each]) for each in case[f"crop_{number}"].tolist())
        cropped = pad_crop(mirrored, top, left, padding=case.item("padding"))
        normalised = normal(cropped)
        box = case.tensor(f"box_{number}")[None]
        noise = torch.zeros_like(normalised)
        noise[0, :, box_mask(box, height=size[0], width=size[1])[0, 0]] = case.tensor(
            f"noise_{number}"
        ).flatten(1)

        case.equal(f"out_resized_{number}", resized[0].permute(1, 2, 0))
        case.equal(f"out_cropped_{number}", cropped[0].permute(1, 2, 0))
        case.close(f"out_normalised_{number}", normalised[0], rtol=0, atol=1e-6)
        case.close(f"out_train_{number}", erase(normalised, box, noise)[0], rtol=0, atol=1e-6)
        case.close(f"out_test_{number}", tested[0], rtol=0, atol=1e-6)


@golden("clip_reid", "erasing")
def erasing(case: Case) -> None:
    height, width = case["size"].tolist()
    low, high = case["log_ratio"].tolist()
    area = case.item("min_area"), case.item("max_area")
    shares = (case["target_area"] - area[0]) / (area[1] - area[0])
    if np.nanmax(case["target_area"], initial=0.0) > 1:  # in pixels
        shares = (case["target_area"] / (height * width) - area[0]) / (area[1] - area[0])
    aspects = (case["log_aspect"] - low) / (high - low)
    attempts = shares.shape[1]
    ratio = math.exp(low), math.exp(high)
    # an attempt that was not made cannot be asked about: a box that never fits
    made = ~np.isnan(shares)
    found = case["out_box"]
    middle = np.full_like(found[:, :2], 0.0, dtype=np.float64)
    steps = np.array([height, width]) - found[:, 2:] + 1
    placed = case["corner"] >= 0
    middle[placed] = ((case["corner"] + 0.5) / steps)[placed]
    draws = np.concatenate(
        [
            np.nextafter(case["gate"], -np.inf)[:, None],  # erased where the draw is equal, too
            middle,
            np.where(made, shares, 0.0),
            np.where(made, aspects, 0.0),
        ],
        axis=1,
    )

    boxes = erasing_boxes(
        torch.from_numpy(draws),
        height=height,
        width=width,
        probability=case.item("probability"),
        area=area,
        ratio=ratio,
        attempts=attempts,
    )

    boxes = torch.where(boxes[:, 2:].bool().any(dim=1, keepdim=True), boxes, 0)
    case.equal("out_box", boxes)
