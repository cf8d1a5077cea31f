import math

import numpy as np
import pytest
import torch

from crosswalk.data.pipeline.crops import RectangularCrop, rectangular_boxes
from crosswalk.draws import keyed_uniform, sample_key

SIZES = [(128, 64), (160, 53), (100, 200), (97, 31), (7, 3), (1, 1), (60, 300), (0, 0)]


def loop_over_attempts(
    draws: list[float], height: int, width: int, attempts: int
) -> tuple[int, int, int, int] | None:
    """Return the box (top, left, height, width) of one image."""
    for attempt in range(attempts):
        area = height * width * (0.64 + (1 - 0.64) * draws[2 + attempt])
        aspect = 2 + (3 - 2) * draws[2 + attempts + attempt]
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h <= height and w <= width:
            top, left = draws[0] * (height - h + 1), draws[1] * (width - w + 1)
            return math.floor(top), math.floor(left), h, w
    return None


@pytest.mark.parametrize("attempts", [1, 3, 10])
def test_rectangular_boxes_match_a_loop_over_attempts(attempts: int) -> None:
    heights, widths = torch.tensor(SIZES * 40).unbind(1)
    draws = keyed_uniform(torch.arange(len(heights)), 2 + 2 * attempts)

    boxes = rectangular_boxes(draws, heights, widths, area=(0.64, 1.0), aspect=(2.0, 3.0))

    found = 0
    for box, draw, height, width in zip(boxes, draws.tolist(), heights, widths, strict=True):
        expected = loop_over_attempts(draw, int(height), int(width), attempts)
        found += expected is not None
        assert tuple(box.tolist()) == (expected or (0, 0, 0, 0))
    assert 0 < found < len(boxes)


@pytest.mark.parametrize("side", [5, 7])
def test_sides_are_rounded_to_the_even_neighbour(side: int) -> None:
    # area and ratio 1 on a square of side * side / 4 pixels: both sides are side / 2
    draws = torch.tensor([[0.0, 0.0, 0.5, 0.5]], dtype=torch.float64)
    size = torch.tensor([side])

    box = rectangular_boxes(draws, size, size, area=(0.25, 0.25), aspect=(1.0, 1.0))[0]

    assert box[2:].tolist() == [{5: 2, 7: 4}[side]] * 2


def test_no_boxes_may_be_asked_for() -> None:
    nothing = np.zeros(0, dtype=np.int64)

    boxes = RectangularCrop().boxes(torch.from_numpy(nothing), nothing, nothing)

    assert boxes.shape == (0, 4)


def test_an_image_of_which_no_part_fits_is_taken_whole() -> None:
    heights, widths = np.array([60, 0, 1]), np.array([300, 0, 9])

    boxes = RectangularCrop().boxes(torch.arange(3), heights, widths)

    assert boxes.tolist() == [[0, 0, 60, 300], [0, 0, 0, 0], [0, 0, 1, 9]]


def test_boxes_lie_inside_the_images_and_have_the_shape_asked_for() -> None:
    count = 5000
    heights, widths = np.full(count, 400), np.full(count, 200)

    top, left, height, width = RectangularCrop().boxes(torch.arange(count), heights, widths).T

    assert (np.minimum(top, left) >= 0).all()
    assert (top + height <= 400).all()
    assert (left + width <= 200).all()
    # rounding moves a side by half a pixel
    assert (height * width >= 0.64 * 80_000 - 300).all()
    assert (np.abs(height / width - 2.5) < 0.5 + 0.02).all()
    # five standard errors of uniform places
    place = (top + 0.5) / (400 - height + 1)
    assert place.mean() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / count))


def test_a_box_depends_on_key_and_size_only() -> None:
    key = sample_key(3, 1, 0, torch.arange(20))
    heights, widths = np.arange(100, 120), np.arange(60, 40, -1)
    crop = RectangularCrop()

    together = crop.boxes(key, heights, widths)
    alone = [crop.boxes(key[[k]], heights[[k]], widths[[k]])[0].tolist() for k in range(20)]
    backwards = crop.boxes(key.flip(0), heights[::-1].copy(), widths[::-1].copy())

    assert together.tolist() == alone
    assert backwards.tolist() == alone[::-1]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"area": (0.9, 0.5)}, "area"),
        ({"area": (0.0, 0.5)}, "area"),
        ({"area": (0.5, 1.5)}, "area"),
        ({"aspect": (3.0, 2.0)}, "aspect"),
        ({"aspect": (0.0, 2.0)}, "aspect"),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.crop\.{key}="):
        RectangularCrop(**settings)
