"""Augmentation in one pass: the pixels of operations on tensors and of Pillow, to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torchvision.transforms.functional as tf
from torch import Tensor

from crosswalk.data.pipeline import one_pass
from crosswalk.data.pipeline.image_transform import camera_style
from crosswalk.data.pipeline.one_pass import Draws, augment_on_cpu
from crosswalk.data.pipeline.transforms import augment_at_once, color_jitter, normalize
from crosswalk.draws import keyed_uniform
from tests.unit.data.pictures import random_images, to_picture, to_pixels

ORDERS = torch.tensor(list(itertools.permutations(range(3))))
ADJUST = (tf.adjust_brightness, tf.adjust_contrast, tf.adjust_saturation)
BOUNDARIES = torch.tensor([0.0, 2.0**-30, 0.5 - 2.0**-25, 0.5, 1 - 2.0**-24, 1.0, 1 + 2.0**-23, 2])
SIZES = [(256, 128), (24, 9), (7, 3), (5, 40), (1, 1)]


@pytest.fixture(params=[1, 3])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def random_draws(number: int, height: int, width: int, padding: int) -> Draws:
    uniform = keyed_uniform(torch.arange(number), 20)
    ends = uniform[:, 3:7].mul(torch.tensor([height + 1, height + 1, width + 1, width + 1])).long()
    top, bottom = ends[:, :2].sort(dim=1).values.unbind(1)
    left, right = ends[:, 2:].sort(dim=1).values.unbind(1)
    factor = 2 * uniform[:, 8:11]
    factor[::2] = BOUNDARIES[(8 * uniform[::2, 11:14]).long()].double()
    return Draws(
        flipped=uniform[:, 0] < 0.5,
        corner=(uniform[:, 1:3] * (2 * padding + 1)).long(),
        angle=360 * uniform[:, 7],
        jitter=(ORDERS[torch.arange(number) % 6], factor),
        boxes=torch.stack([top, left, bottom - top, right - left], dim=1),
        padding=padding,
    )


def plain(values: Tensor) -> Tensor:
    return normalize(values, (0.5, 0.25, 0.1), (0.2, 0.3, 0.4))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("padding", [0, 2, 50])
def test_one_pass_gives_what_operations_on_tensors_do(
    num_threads: int, height: int, width: int, padding: int
) -> None:
    image = random_images(60, height, width)
    draws = random_draws(60, height, width, padding)
    statistics = keyed_uniform(torch.arange(60), 12).float().view(60, 2, 2, 3)

    def styled(values: Tensor) -> Tensor:
        return plain(camera_style(values, *statistics.unbind(1)))

    fill = torch.tensor([9.0, -9.0, 0.25])
    for colours, box in itertools.product((plain, styled), (fill, None)):
        out = augment_on_cpu(image, draws, colours, box)

        assert torch.equal(out, augment_at_once(image, draws, colours, box))


@pytest.mark.parametrize("left_out", ["flipped", "corner", "angle", "jitter", "boxes"])
def test_what_is_not_drawn_is_not_done(left_out: str) -> None:
    image, fill = random_images(30, 24, 9), torch.tensor([9.0, -9.0, 0.25])
    every = random_draws(30, 24, 9, padding=3)
    draws = every._replace(**{left_out: None})

    out = augment_on_cpu(image, draws, plain, fill)

    assert torch.equal(out, augment_at_once(image, draws, plain, fill))
    assert not torch.equal(out, augment_on_cpu(image, every, plain, fill))


def test_nothing_drawn_only_colours() -> None:
    image = random_images(11, 7, 3)

    assert torch.equal(augment_on_cpu(image, Draws(), plain, fill=None), plain(image))


@pytest.mark.parametrize("number", [0, 1, 8, 9])
def test_images_are_the_same_in_any_batch(number: int) -> None:
    image, fill = random_images(20, 24, 9), torch.zeros(3)
    draws = random_draws(20, 24, 9, padding=3)
    jitter = tuple(column[:number] for column in draws.jitter)
    some = draws._replace(
        jitter=jitter,
        **{name: getattr(draws, name)[:number] for name in ("flipped", "corner", "angle", "boxes")},
    )

    out = augment_on_cpu(image[:number], some, plain, fill)

    assert torch.equal(out, augment_on_cpu(image, draws, plain, fill)[:number])


def test_groups_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    image, draws = random_images(20, 24, 9), random_draws(20, 24, 9, padding=3)
    augment = partial(augment_on_cpu, image, draws, plain, torch.zeros(3))
    groups_of_eight = augment()

    monkeypatch.setattr(one_pass, "_IMAGES_AT_ONCE", 3)

    assert torch.equal(augment(), groups_of_eight)


def test_images_that_do_not_lie_one_behind_the_other_are_read_and_not_written() -> None:
    image, draws = random_images(20, 24, 18)[:, :, :, ::2], random_draws(20, 24, 9, padding=3)
    before = image.clone()

    out = augment_on_cpu(image, draws, plain, torch.zeros(3))

    assert torch.equal(out, augment_on_cpu(before, draws, plain, torch.zeros(3)))
    assert torch.equal(image, before)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_moved_and_turned_pixels_are_pillows(height: int, width: int) -> None:
    image, draws = random_images(40, height, width), random_draws(40, height, width, padding=2)

    out = augment_on_cpu(image, draws._replace(jitter=None), Tensor.float, fill=None)

    for index in range(40):
        expected = to_picture(image[index])
        if draws.flipped[index]:
            expected = tf.hflip(expected)
        top, left = draws.corner[index].tolist()
        expected = tf.pad(expected, 2).crop((left, top, left + width, top + height))
        expected = tf.rotate(expected, draws.angle[index].item())
        assert torch.equal(out[index], to_pixels(expected).float())


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_jittered_pixels_are_pillows_where_products_need_no_rounding(
    height: int, width: int
) -> None:
    factors = torch.tensor([0.0, 1 / 64, 0.5, 0.8125, 1.0, 1.1875, 2.5, 7.0])
    factor = factors[(8 * keyed_uniform(torch.arange(60), 3)).long()]
    order = ORDERS.repeat(10, 1)
    image = random_images(60, height, width)

    out = augment_on_cpu(image, Draws(jitter=(order, factor)), Tensor.float, fill=None)

    for index in range(60):
        expected = to_picture(image[index])
        for kind in order[index].tolist():
            expected = ADJUST[kind](expected, factor[index, kind].item())
        assert torch.equal(out[index], to_pixels(expected).float())


def test_products_are_rounded_as_torch_rounds_them() -> None:
    # away from the mean, 128, towards 0: what the product loses, if it is rounded first, can count
    values = torch.arange(256, dtype=torch.uint8).expand(40_000, 3, 1, 256)
    factor = torch.ones(40_000, 3).double()
    factor[:, 1] = 1 + keyed_uniform(torch.arange(40_000), 1)[:, 0]
    draws = Draws(jitter=(torch.arange(3).repeat(40_000, 1), factor))

    out = augment_on_cpu(values, draws, Tensor.float, fill=None)

    assert torch.equal(out, color_jitter(values, *draws.jitter))
